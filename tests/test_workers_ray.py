"""A cluster on loopback gives what one process gives, whatever dies on the way."""

import functools
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
import worker_cases
from conftest import ROOT
from worker_cases import INDEX, TEXTS, Counted, compare, digest, fail_at_70, lose_one, square

from data_prep import curate, report
from longcot import workers
from longcot.contamination import Index
from longcot.errors import RowError
from longcot.rows import write_jsonl
from longcot.workers import map_rows


def node(address: str) -> dict:
    # 127.0.0.1 Ray would replace by this machine's address in the network.
    return {"num_cpus": 1, "object_store_memory": 80 << 20, "node_ip_address": address}


@pytest.fixture(scope="module")
def cluster():
    """A cluster on the loopback interface; what it writes goes with it."""
    if sys.platform != "linux":
        pytest.skip("only Linux has more than one loopback address without set-up")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray
    from ray.cluster_utils import Cluster

    # Not tmp_path: the path of a socket has to be short.
    with tempfile.TemporaryDirectory(prefix="ray") as folder:
        head = {**node("127.0.0.2"), "include_dashboard": False, "temp_dir": folder}
        head["_system_config"] = {"health_check_period_ms": 500}  # the dead are noticed sooner
        made = Cluster(initialize_head=True, head_node_args=head)
        # The nodes know the packages only, not these files.
        for module in (worker_cases, sys.modules[__name__]):
            ray.cloudpickle.register_pickle_by_value(module)
        yield made
        for module in (worker_cases, sys.modules[__name__]):
            ray.cloudpickle.unregister_pickle_by_value(module)
        ray.shutdown()
        made.shutdown()


@pytest.mark.slow
def test_ray_gives_what_one_process_gives(cluster):
    assert list(map_rows(square, range(100), ray=cluster.address, chunk=7)) == [
        i * i for i in range(100)
    ]
    with pytest.raises(RowError, match="^file:70: no good$"):
        list(map_rows(fail_at_70, range(100), ray=cluster.address, chunk=4))
    with pytest.raises(ValueError, match="3 results for 4 rows"):
        list(map_rows(lose_one, range(8), ray=cluster.address, chunk=4))


def tell_file(rows: list) -> list[str]:
    return [workers.__file__ for _ in rows]


@pytest.mark.slow
def test_ray_brings_the_code_along_and_nothing_else(cluster, tmp_path, monkeypatch):
    """A node needs no copy of the repository."""
    monkeypatch.chdir(tmp_path)  # Ray lets nodes of this machine import from the current folder
    sent = Path(next(map_rows(tell_file, [1], ray=cluster.address)))
    assert not sent.is_relative_to(workers.ROOT) and sent.name == "workers.py"
    folders = [path for path in sent.parents[2].glob("*/*") if path.is_dir()]
    assert {path.name for path in folders} == set(workers.PACKAGES)
    assert sum(path.stat().st_size for folder in folders for path in folder.rglob("*")) < 2e6


def work_with_marks(folder: str, victim: str, index: Index, texts: list[str]) -> list[dict]:
    """`compare`, but the victim never finishes its third chunk, and the other node waits for it to
    begin one. The results are too large for a message, so a finished chunk dies with its node."""
    import ray

    mine = ray.get_runtime_context().get_node_id()
    Path(folder, f"{mine}-{TEXTS.index(texts[0])}-{time.time_ns()}").touch()
    ends = time.monotonic() + 120
    while (len(list_marks(folder, victim)) < 3) != (mine == victim) and time.monotonic() < ends:
        time.sleep(0.02)
    return [{**row, "ballast": "x" * 20_000} for row in compare(index, texts)]


def list_marks(folder: str, of: str = "") -> list[Path]:
    return list(Path(folder).glob(f"{of}*-*"))


@pytest.mark.slow
def test_a_node_killed_in_the_middle_changes_nothing(cluster, tmp_path):
    victim = cluster.add_node(**node("127.0.0.3"))
    cluster.wait_for_nodes()
    marks = tmp_path / "marks"
    marks.mkdir()

    def kill() -> None:
        ends = time.monotonic() + 60
        while time.monotonic() < ends and len(list_marks(marks, victim.node_id)) < 3:
            time.sleep(0.02)
        cluster.remove_node(victim, allow_graceful=False)

    killer = threading.Thread(target=kill)
    killer.start()
    work = functools.partial(work_with_marks, str(marks), victim.node_id, INDEX)
    try:
        on_ray = map_rows(work, TEXTS, ray=cluster.address, chunk=25)
        hash_on_ray = digest(tmp_path / "ray.jsonl", on_ray)
    finally:
        killer.join()
    here = ({**row, "ballast": "x" * 20_000} for row in compare(INDEX, TEXTS))
    assert hash_on_ray == digest(tmp_path / "here.jsonl", here)
    assert len(list_marks(marks, victim.node_id)) == 3
    chunks = [int(path.name.split("-")[1]) for path in list_marks(marks)]
    # Done again: the chunk in work, and those finished ones whose results nobody had fetched.
    assert set(chunks) == set(range(0, 300, 25)) and 13 <= len(chunks) <= 15


@pytest.mark.slow
def test_ray_is_sent_the_function_once(cluster, monkeypatch):
    monkeypatch.setattr(Counted, "sent", 0)
    assert list(map_rows(Counted(), range(100), ray=cluster.address, chunk=4)) == list(range(100))
    assert Counted.sent == 1


@pytest.mark.slow
def test_a_connection_of_the_process_is_used_and_left(cluster):
    import ray

    inner = map_rows(square, range(20), ray=cluster.address, chunk=4)
    assert list(map_rows(square, inner, ray=cluster.address, chunk=3)) == [i**4 for i in range(20)]
    assert not ray.is_initialized()


@pytest.mark.slow
def test_verdicts_and_the_report_are_the_same_on_ray(cluster, tmp_path):
    given = [
        {"prompt": text, "completion": f"<think>\nWait: {i}.\n</think>\n\n\\boxed{{{i}}}",
         "kind": "math", "gold": str(i + (i % 5 == 0)), "reply": f"\\boxed{{{i}}}"}
        for i, text in enumerate(TEXTS)
    ]  # fmt: skip
    here = list(map_rows(curate.judge_rows, given))
    assert sum(row["drop"] is None for row in here) == 240
    assert list(map_rows(curate.judge_rows, given, ray=cluster.address, chunk=20)) == here
    write_jsonl(tmp_path / "rows.jsonl", given)
    ask = functools.partial(
        report.measure, str(tmp_path / "rows.jsonl"), max_length=1024,
        tokenizer_path=str(ROOT / "data_prep/rehearsal_base"),
    )  # fmt: skip
    assert ask(ray=cluster.address) == ask()

"""The same results in the same order, wherever the rows are worked on."""

import functools
import hashlib
import json
import multiprocessing
import os
import sys
import tempfile
import threading
import time
from importlib import metadata
from pathlib import Path

import pytest
from conftest import ROOT

from data_prep import curate, report
from longcot import workers
from longcot.contamination import Index
from longcot.errors import LaunchError, RowError
from longcot.rows import write_jsonl
from longcot.workers import map_rows

TEXTS = [
    f"How many of {i} sheep are left when {i % 7} leave and {i % 11} come?" for i in range(300)
]
INDEX = Index((("b", str(i), TEXTS[i]) for i in range(0, 300, 3)), 8)


def square(rows: list[int]) -> list[int]:
    return [row * row for row in rows]


def tell_process(rows: list) -> list[int]:
    return [os.getpid() for _ in rows]


def fail_at_70(rows: list[int]) -> list[int]:
    if 70 in rows:
        raise RowError("file:70: no good")
    return rows


def lose_one(rows: list) -> list:
    return rows[1:]


def die_at_70(rows: list[int]) -> list[int]:
    if 70 in rows:
        os._exit(1)
    return rows


def compare(index: Index, texts: list[str]) -> list[dict]:
    """Real work, with something large to send along."""
    return [{"text": text, "overlap": index.overlap(text)} for text in texts]


class Counted:
    """A function that counts in the sender's process how often it is sent."""

    sent = 0

    def __call__(self, rows: list) -> list:
        return rows

    def __getstate__(self) -> dict:
        Counted.sent += 1
        return {}


def digest(path: Path, results) -> str:
    write_jsonl(path, results)
    return hashlib.sha256(path.read_bytes()).hexdigest()


# ---- here and in a pool


@pytest.mark.parametrize(("count", "cores"), [(0, 1), (0, 2), (1, 2), (64, 1), (65, 1), (150, 2)])
def test_one_result_per_row_in_order(count, cores):
    found = list(map_rows(square, iter(range(count)), workers=cores, chunk=16))
    assert found == [i * i for i in range(count)]


@pytest.mark.slow
def test_the_file_is_the_same_for_one_two_and_four_workers(tmp_path):
    work = functools.partial(compare, INDEX)
    hashes = {
        digest(tmp_path / "a.jsonl", map_rows(work, TEXTS, workers=cores, chunk=chunk))
        for cores, chunk in ((1, 64), (2, 7), (4, 13))
    }
    assert len(hashes) == 1
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [row["text"] for row in rows] == TEXTS and rows[3]["overlap"] == [1.0, "b/3"]


def test_other_processes_do_the_work_and_end_with_it():
    found = set(map_rows(tell_process, range(64), workers=2, chunk=4))
    assert os.getpid() not in found and 1 <= len(found) <= 2
    assert set(map_rows(tell_process, range(3))) == {os.getpid()}
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("cores", [1, 2])
def test_rows_are_taken_only_a_little_ahead(cores):
    taken = 0

    def count():
        nonlocal taken
        for number in range(1, 100_001):
            taken = number
            yield number

    results = map_rows(square, count(), workers=cores, chunk=4)
    assert taken == 0
    for number, _ in zip(range(1, 200), results, strict=False):
        assert taken <= number + 4 * (1 if cores == 1 else 2 * cores + 1)
    results.close()
    assert taken < 250 and multiprocessing.active_children() == []


@pytest.mark.parametrize("cores", [1, 2])
def test_an_exception_of_the_function_is_raised_after_the_rows_before_it(cores):
    found = []
    with pytest.raises(RowError, match="^file:70: no good$"):
        found.extend(map_rows(fail_at_70, range(1000), workers=cores, chunk=4))
    # extend keeps what came before the exception
    assert found == list(range(68)) and multiprocessing.active_children() == []


@pytest.mark.parametrize("cores", [1, 2])
def test_an_exception_of_the_source_is_raised(cores):
    def source():
        yield from range(10)
        raise RowError("file:11: broken JSON")

    with pytest.raises(RowError, match="file:11"):
        list(map_rows(square, source(), workers=cores, chunk=4))
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("cores", [1, 2])
def test_a_function_that_loses_rows_is_caught(cores):
    with pytest.raises(ValueError, match="3 results for 4 rows"):
        list(map_rows(lose_one, range(8), workers=cores, chunk=4))


def test_a_worker_that_dies_is_told():
    with pytest.raises(LaunchError, match="one of 2 worker processes died"):
        list(map_rows(die_at_70, range(100), workers=2, chunk=4))
    assert multiprocessing.active_children() == []


def test_the_function_is_sent_once_to_each_process(monkeypatch):
    monkeypatch.setattr(Counted, "sent", 0)
    assert list(map_rows(Counted(), range(100), workers=2, chunk=4)) == list(range(100))
    assert 1 <= Counted.sent <= 2


# ---- Ray


def test_without_ray_the_remedy_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(LaunchError, match=rf"pip install ray=={workers.RAY}"):
        next(map_rows(square, [1], ray="local"))


def test_the_version_named_is_the_one_tested():
    assert metadata.version("ray") == workers.RAY


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1:port", "no"])
def test_where_no_cluster_answers(address):
    with pytest.raises(LaunchError, match=rf"--ray {address}: no cluster there .*ray start --head"):
        next(map_rows(square, [1], ray=address))


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
        # The nodes know the packages only, not this file.
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        yield made
        ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
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
    # Done again: the chunk in work, and at least one whose results nobody had fetched.
    assert set(chunks) == set(range(0, 300, 25)) and 14 <= len(chunks) <= 15


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

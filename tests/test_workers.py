"""The same results in the same order, wherever the rows are worked on."""

import hashlib
import json
import os
import sys

import pytest

from data_prep import curate
from longcot.errors import LaunchError, RowError
from longcot.workers import map_rows

ROWS = [
    {"kind": "math", "gold": str(i), "reply": f"It is \\boxed{{{i + (i % 5 == 0)}}}."}
    for i in range(200)
]


def digest(results) -> str:
    return hashlib.sha256(json.dumps(list(results)).encode()).hexdigest()


def square(rows: list[int]) -> list[int]:
    return [row * row for row in rows]


def pids(rows: list) -> list[int]:
    return [os.getpid() for _ in rows]


def fail_at_seven(rows: list[int]) -> list[int]:
    if 7 in rows:
        raise RowError("file:7: no good")
    return rows


def lose_one(rows: list) -> list:
    return rows[1:]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("count", [0, 1, 64, 65, 150])
def test_one_result_per_row_in_order(workers, count):
    found = list(map_rows(square, iter(range(count)), workers=workers, chunk=16))
    assert found == [i * i for i in range(count)]


@pytest.mark.slow
def test_verdicts_are_the_same_for_one_two_and_four_workers():
    one = digest(map_rows(curate.judge_rows, ROWS))
    assert digest(map_rows(curate.judge_rows, ROWS, workers=2, chunk=7)) == one
    assert digest(map_rows(curate.judge_rows, ROWS, workers=4, chunk=13)) == one


def test_several_processes_really_work():
    found = set(map_rows(pids, range(64), workers=2, chunk=4))
    assert os.getpid() not in found and 1 <= len(found) <= 2
    assert set(map_rows(pids, range(3))) == {os.getpid()}


@pytest.mark.parametrize("workers", [1, 2])
def test_an_exception_of_the_function_is_raised_here(workers):
    with pytest.raises(RowError, match="file:7: no good"):
        list(map_rows(fail_at_seven, range(64), workers=workers, chunk=4))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_function_that_loses_rows_is_caught(workers):
    with pytest.raises(ValueError, match="3 results for 4 rows"):
        list(map_rows(lose_one, range(8), workers=workers, chunk=4))


@pytest.mark.parametrize("workers", [1, 2])
def test_rows_are_read_only_a_little_ahead(workers):
    read = 0

    def count():
        nonlocal read
        for number in range(100_000):
            read = number + 1
            yield number

    found = map_rows(square, count(), workers=workers, chunk=4)
    assert next(found) == 0
    assert read <= 4 * 3 * workers
    found.close()  # the pool goes with it


def test_without_ray_installed_the_remedy_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(LaunchError, match="pip install ray"):
        next(map_rows(square, [1], ray="local"))


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "nowhere"])
def test_an_address_without_a_cluster_is_told_at_once(address):
    pytest.importorskip("ray", reason="Ray is not installed (requirements-dev.txt)")
    with pytest.raises(LaunchError, match=f"--ray {address}: no cluster there"):
        next(map_rows(square, [1], ray=address))


@pytest.mark.slow
def test_a_ray_node_killed_in_the_middle_changes_nothing(monkeypatch):
    """Two nodes on this machine; one is killed with its work; rows, order and hash stay the same."""
    ray = pytest.importorskip("ray", reason="Ray is not installed (requirements-dev.txt)")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    node = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    try:
        second = cluster.add_node(**node)
        cluster.wait_for_nodes()
        seen = []
        for result in map_rows(curate.judge_rows, ROWS * 3, ray=cluster.address, chunk=5):
            seen.append(result)
            if len(seen) == 60:
                assert sum(n["Alive"] for n in ray.nodes()) == 2
                cluster.remove_node(second, allow_graceful=False)
        assert digest(seen) == digest(map_rows(curate.judge_rows, ROWS * 3))
    finally:
        cluster.shutdown()

"""The same function over many rows: in this process, in a pool of processes, or on a Ray cluster.

Results come in row order and one per row, so that a file written from them does not depend on
where they were made. Rows are taken only a few chunks ahead and results handed on at once, so that
memory does not grow with the number of rows.
"""

import contextlib
import logging
import multiprocessing
import os
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from pathlib import Path
from typing import Any

from longcot.errors import LaunchError

RAY = "2.60.0"
AHEAD = 2  # chunks waiting for each worker, so that none is idle while the first is awaited
RETRIES = 5  # of a chunk whose node or process died
ROOT = Path(__file__).parents[1]
PACKAGES = ("longcot", "data_prep")  # sent to a cluster's nodes, without:
EXCLUDED = ["__pycache__", "rehearsal_base"]

Rows = Callable[[list], list]


def map_rows(
    function: Rows,
    rows: Iterable,
    *,
    workers: int = 1,
    ray: str | None = None,
    chunk: int = 64,
) -> Iterator:
    """Yield the results of `function(list of rows) -> list of results` in row order.

    `function` is picklable: a function of a module, or `functools.partial` of one with what it
    needs, which is sent once to each worker. `ray` is the address of a cluster ("auto",
    "HOST:PORT", "ray://HOST:PORT") or "local" to start one here. What `function` raises is raised
    here; LaunchError says that workers died or that Ray cannot be had.
    """
    source = iter(rows)
    parts = iter(lambda: list(islice(source, chunk)), [])
    if ray is not None:
        yield from _map_on_ray(function, parts, ray)
    elif workers == 1:
        for part in parts:
            yield from _apply(function, part)
    else:
        yield from _map_in_pool(function, parts, workers)


def _apply(function: Rows, part: list) -> list:
    results = function(part)
    if len(results) != len(part):
        raise ValueError(f"{function}: {len(results)} results for {len(part)} rows")
    return results


def _in_order(
    parts: Iterator[list], ahead: int, submit: Callable[[list], Any], wait: Callable[[Any], list]
) -> Iterator:
    """Keep `ahead` parts submitted, and yield what `wait` gives for the oldest."""
    waiting = deque(submit(part) for part in islice(parts, ahead))
    while waiting:
        results = wait(waiting.popleft())
        waiting.extend(submit(part) for part in islice(parts, 1))
        yield from results


# ---- a pool of processes

_kept: list[Rows] = []  # in a worker process: the function, sent once


def _keep(function: Rows) -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism
    _kept[:] = [function]


def _apply_kept(part: list) -> list:
    return _apply(_kept[0], part)


def _map_in_pool(function: Rows, parts: Iterator[list], workers: int) -> Iterator:
    # Spawned, not forked: a lock that one of torch's threads holds would stay locked in the child.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, _keep, (function,))

    def submit(part: list) -> Any:
        return pool.submit(_apply_kept, part)

    try:
        yield from _in_order(parts, AHEAD * workers, submit, lambda future: future.result())
    except BrokenProcessPool:
        raise LaunchError(
            f"one of {workers} worker processes died; if it printed nothing above, memory was short: "
            "use fewer workers"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


# ---- a Ray cluster: plain tasks, for Ray Data neither streams an iterator of rows nor keeps
# Python values as they are (its blocks are Arrow tables)


def _map_on_ray(function: Rows, parts: Iterator[list], address: str) -> Iterator:
    with _connected(address) as ray:
        # A chunk whose node or process died is tried again, one whose function raised is not.
        task = ray.remote(max_retries=RETRIES)(_apply)
        kept = ray.put(function)  # one copy on each node, which its workers read in place
        ahead = AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
        try:
            yield from _in_order(parts, ahead, lambda part: task.remote(kept, part), ray.get)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except ray.exceptions.RayError as error:
            raise LaunchError(f"Ray at {address} lost a chunk of rows for good: {error}") from None


@contextlib.contextmanager
def _connected(address: str) -> Iterator[Any]:
    """Connect to the cluster, or start one, and leave it at the end; what this process has
    connected to before is used and left as it is."""
    # Under `uv run` Ray would build the environment anew on every node.
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_ENABLE_UV_RUN_RUNTIME_ENV="0")
    try:
        import ray
    except ImportError:
        raise LaunchError(
            f"--ray needs Ray, which is not installed: pip install ray=={RAY}, on every node"
        ) from None
    if ray.is_initialized():
        yield ray
        return
    packages = [str(ROOT / name) for name in PACKAGES]
    settings: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
    settings["runtime_env"] = {"py_modules": packages, "excludes": EXCLUDED}
    try:
        _knock(address)
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **settings)
    except (OSError, RuntimeError, ValueError) as error:
        raise LaunchError(
            f"--ray {address}: no cluster there ({str(error).partition(chr(10))[0]}); start one with "
            "`ray start --head`, the same versions of Ray and Python as here, or give --ray local"
        ) from None
    try:
        yield ray
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    # Ray itself tries for minutes where nobody listens.
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if colon:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()

"""One function over many rows: in this process, in several, or on a Ray cluster; same rows, same order.

Plain Ray tasks rather than Ray Data: a task lost with its node is run again, order is kept by waiting
for the tasks in turn, and rows need not fit the column types of a block.
"""

import multiprocessing
import os
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

from longcot.errors import LaunchError

AHEAD = 3  # chunks in work or waiting per process
PACKAGES = ("longcot", "data_prep")  # sent to the nodes of a Ray cluster
_held: list[Callable[[list], list]] = []  # in a worker process: the function, sent once


def map_rows(
    function: Callable[[list], list],
    rows: Iterable[Any],
    *,
    workers: int = 1,
    ray: str | None = None,
    chunk: int = 64,
) -> Iterator[Any]:
    """Yield one result per row, in the rows' order; `function` maps a list of rows to their results.

    `function` is sent to each process once, so it may carry something large (`functools.partial`).
    Rows are read no further ahead than the processes need. `ray` is a cluster's address ("auto",
    host:port), or "local" to start one here. An exception of `function` is raised here; LaunchError
    when Ray is not installed or not reached.
    """
    remaining = iter(rows)
    pieces = iter(lambda: list(islice(remaining, chunk)), [])
    if ray is not None:
        yield from _on_ray(function, pieces, ray)
    elif workers > 1:
        yield from _in_pool(function, pieces, workers)
    else:
        for piece in pieces:
            yield from _one_each(piece, function(piece))


def _in_turn(submit: Callable[[list], Any], wait: Callable[[Any], list], pieces, ahead: int):
    """Keep `ahead` pieces in work and yield their results in order."""
    waiting: deque = deque()
    for piece in pieces:
        waiting.append((piece, submit(piece)))
        if len(waiting) >= ahead:
            piece, result = waiting.popleft()
            yield from _one_each(piece, wait(result))
    while waiting:
        piece, result = waiting.popleft()
        yield from _one_each(piece, wait(result))


def _one_each(piece: list, results: list) -> list:
    if len(results) != len(piece):
        raise ValueError(f"{len(results)} results for {len(piece)} rows")
    return results


def _in_pool(function: Callable, pieces: Iterator[list], workers: int) -> Iterator[Any]:
    # Spawned, not forked: a fork of a process that runs threads (torch, tokenizers) can hang.
    pool = ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=_hold, initargs=(function,)
    )
    try:
        yield from _in_turn(
            lambda piece: pool.submit(_call_held, piece),
            lambda future: future.result(),
            pieces,
            AHEAD * workers,
        )
    finally:
        pool.shutdown(cancel_futures=True)


def _hold(function: Callable[[list], list]) -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism
    _held[:] = [function]


def _call_held(piece: list) -> list:
    return _held[0](piece)


def _on_ray(function: Callable, pieces: Iterator[list], address: str) -> Iterator[Any]:
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_ENABLE_UV_RUN_RUNTIME_ENV="0")
    try:
        import ray
    except ImportError:
        raise LaunchError(
            "--ray needs Ray, which is not installed here; `pip install ray==2.60.0`, on every node"
        ) from None
    root = Path(__file__).parent.parent
    try:
        if ":" in address:  # Ray itself tries a wrong address for minutes
            host, _, port = address.removeprefix("ray://").rpartition(":")
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(
            None if address == "local" else address,
            runtime_env={"py_modules": [str(root / package) for package in PACKAGES]},
            include_dashboard=False if address == "local" else None,
            logging_level="error",
            log_to_driver=False,
        )
    except (ConnectionError, OSError, ValueError) as error:
        raise LaunchError(
            f"--ray {address}: no cluster there ({str(error).partition(chr(10))[0]}); "
            "start one with `ray start --head`, or give --ray local"
        ) from None

    # Retried on the death of a node without limit, on an exception of the function never.
    @ray.remote(num_cpus=1, max_retries=-1, retry_exceptions=False)
    def call(held: Callable[[list], list], piece: list) -> list:
        return held(piece)

    def wait(reference: Any) -> list:
        try:
            return ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None  # as it was raised, without Ray's wrapping

    try:
        held = ray.put(function)
        processes = max(1, int(ray.cluster_resources().get("CPU", 1)))
        yield from _in_turn(lambda piece: call.remote(held, piece), wait, pieces, AHEAD * processes)
    finally:
        ray.shutdown()

"""The room of one program: an init without rights, that forks a process for each input.

It comes to life by a fork within a box (`longcot.cell`), where `prepare` has run once; so the
interpreter's start and the usual imports cost a program nothing, and each of its runs begins as
fresh as the first. The init never runs a line of the program. It cannot be signalled from its own
process namespace, nor looked into.
"""

import _signal  # pyright: ignore[reportMissingImports]
import _thread
import atexit
import builtins
import contextlib
import io
import json
import math
import os
import random
import resource
import signal
import site
import socket
import sys
import time
import types
from pathlib import Path
from typing import Any

from longcot import isolation

Source = types.CodeType | bytes  # a program's code, or its text if that cannot be compiled

RECURSION = 50_000  # frames, as in LiveCodeBench's runner
DIGITS = 50_000  # of a whole number written as text, likewise
FILES = 64  # open at a time
OWN = 3  # processes of the box itself, which count too: launcher, server, this init
# Names that LiveCodeBench's runner gives every answer: what these modules export, and themselves.
STARRED = ["string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random",
           "statistics", "itertools", "functools", "operator", "io", "sys", "json"]  # fmt: skip
NAME = "solution.py"  # in tracebacks
_STREAMS = ("stdin", "stdout", "stderr")


def prepare(packages: str) -> None:
    """Make this interpreter what every program finds: names, limits, arguments, no environment."""
    site.setquit()  # exit() and quit()
    names: dict = {}
    for line in [f"from {name} import *" for name in (*STARRED, "builtins", "typing")]:
        exec(line, names)
    for name in STARRED:
        exec(f"import {name}", names)
    del names["__builtins__"]
    builtins.__dict__.update(names)  # a fallback, so that the program's own names come first
    os.environ.clear()
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    sys.path += [packages]
    sys.argv = [NAME]
    sys.setrecursionlimit(RECURSION)
    sys.set_int_max_str_digits(DIGITS)
    _open_streams()
    _thread.stack_size(8 << 20)  # else every thread would take as much as the main stack
    for name in [name for name in sys.modules if name.startswith("longcot")]:
        del sys.modules[name]


def lend(limits: dict, files: list[int], rules: int, system_calls: bytes) -> Source:
    """Be an init: give up all rights, run a program on each input that comes (its three streams)
    and report; returns only in a program's own process, what it runs.

    The room is given up after a run that did not end well or left anything behind, be it a process
    or a change in the scratch folder: the next run needs another one.
    """
    text, end = files
    session = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, end)
    source = os.pread(text, os.fstat(text).st_size, 0)
    try:
        _confine(limits, rules, system_calls)
    except OSError as error:
        session.send(json.dumps({"status": "sandbox_failure", "note": str(error)}).encode())
        os._exit(1)
    _signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGCHLD,))  # to be waited for
    code, scratch = _compile(source), Path(isolation.SCRATCH)
    untouched = scratch.stat().st_ctime_ns
    while True:
        _, streams, _, _ = socket.recv_fds(session, 16, 3)
        if not streams:
            os._exit(0)
        start = time.monotonic()
        child = os.fork()
        if child == 0:
            for number, file in enumerate(streams):
                os.dup2(file, number)
            session.close()
            os.closerange(3, 1 << 16)
            _signal.pthread_sigmask(signal.SIG_SETMASK, ())  # signal's own is far slower
            return code
        for file in streams:
            os.close(file)
        report = _wait(child, limits, start)
        clean = not _has_children() and scratch.stat().st_ctime_ns == untouched
        report["more"] = clean and report["status"] == "exited"
        session.send(json.dumps(report).encode())
        if not report["more"]:
            os._exit(0)


def _confine(limits: dict, rules: int, system_calls: bytes) -> None:
    """Set the limits, drop all rights, lock files and system calls. None of it can be undone."""
    os.setsid()
    os.chdir(isolation.SCRATCH)
    bounds = {
        resource.RLIMIT_AS: limits["memory"],
        resource.RLIMIT_NPROC: limits["processes"] + OWN,
        resource.RLIMIT_FSIZE: limits["scratch"],
        resource.RLIMIT_NOFILE: FILES,
        resource.RLIMIT_STACK: resource.getrlimit(resource.RLIMIT_STACK)[0],
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
    }
    for name, bound in bounds.items():
        resource.setrlimit(name, (bound, bound))
    seconds = math.ceil(limits["cpu"])  # then comes a signal, and a second later the end
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    isolation.drop_capabilities()
    if rules >= 0:
        isolation.lock_files(rules)
    isolation.load_filter(system_calls)


def _compile(source: bytes) -> Source:
    with contextlib.suppress(Exception):  # the program's own process will meet it again, and tell
        return compile(source, NAME, "exec", dont_inherit=True)
    return source


def _wait(child: int, limits: dict, start: float) -> dict:
    """How the program's process ended; after its time, nothing but that it did not."""
    while True:
        pid, status, used = os.wait4(child, os.WNOHANG)
        seconds = time.monotonic() - start
        if pid:
            said = _name_end(status, used.ru_utime + used.ru_stime, limits["cpu"])
        elif seconds > limits["wall"]:
            said = ("timeout", f"no end within {limits['wall']:g} s")
        else:
            signal.sigtimedwait({signal.SIGCHLD}, limits["wall"] - seconds + 0.001)
            continue
        return {"status": said[0], "note": said[1], "seconds": round(seconds, 6)}


def _name_end(status: int, processor: float, limit: float) -> tuple[str, str]:
    code = os.waitstatus_to_exitcode(status)
    if code == -signal.SIGXCPU or processor >= limit:
        return "timeout", f"more than {limit:g} s of processor time"
    if code == 0:
        return "exited", ""
    return "crashed", f"signal {-code}" if code < 0 else f"exit code {code}"


def _has_children() -> bool:
    """Whether anything that the program started still runs: it is ours since its parent ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def run(source: Source) -> None:
    """Run a program as the interpreter runs a script, and end this process."""
    random.seed(0)  # one verdict for one answer, like the fixed hash seed
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    vars(main)["__builtins__"] = builtins
    ending = _Ending()
    with ending:
        if isinstance(source, bytes):
            source = compile(source, NAME, "exec", dont_inherit=True)
        exec(source, vars(main))
    with ending:
        _finish(main)
    os._exit(ending.code)


class _Ending:
    """What the interpreter does with what a program leaves uncaught: it is told, and the exit code
    is 1. A SystemExit of any kind is an ordinary end, as in LiveCodeBench's runner."""

    code = 0

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool:
        if isinstance(error, SystemExit):
            if isinstance(error.code, str):
                print(error.code, file=sys.stderr)
        elif error is not None:
            self.code = 1
            sys.excepthook(kind, error.with_traceback(trace.tb_next), trace.tb_next)  # not our line
        return True


def _open_streams() -> None:
    """Make sys.stdin and the others anew, over pipes for now: whether a file can be sought is asked
    once, when a stream is made."""
    kept = [os.dup(number) for number in range(len(_STREAMS))]
    reading, writing = os.pipe()
    for number, (name, file) in enumerate(zip(_STREAMS, kept, strict=True)):
        told = name == "stderr"
        os.dup2(writing if number else reading, number)
        raw = open(number, "wb" if number else "rb", closefd=False)  # noqa: SIM115
        errors = "backslashreplace" if told else "surrogateescape"
        stream = io.TextIOWrapper(raw, "utf-8", errors, newline="\n", line_buffering=told)
        for place, word in ((sys, name), (sys, f"__{name}__"), (builtins, name)):
            setattr(place, word, stream)
        os.dup2(file, number)
    for file in (*kept, reading, writing):
        os.close(file)


def _finish(main: types.ModuleType) -> None:
    """What the interpreter does at its end: wait for threads, call exit functions, drop the
    program's objects (a file that nobody closed is written then), flush."""
    if threading := sys.modules.get("threading"):
        threading._shutdown()
    atexit._run_exitfuncs()
    streams = [sys.stdout, sys.stderr, sys.__stdout__]
    vars(main).clear()
    for stream in streams:
        if hasattr(stream, "flush") and not getattr(stream, "closed", False):
            stream.flush()

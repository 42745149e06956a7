"""The process of one program: it gives up what is left of its rights, then is that program.

It comes to life by a fork within a box (`longcot.cell`), where `prepare` has run once; so the
interpreter's start and the usual imports cost a program nothing.
"""

import atexit
import builtins
import io
import math
import os
import random
import resource
import site
import sys
import threading
import types

from longcot import isolation

RECURSION = 50_000  # frames, as in LiveCodeBench's runner
DIGITS = 50_000  # of a whole number written as text, likewise
FILES = 64  # open at a time
# Names that LiveCodeBench's runner gives every answer: what these modules export, and themselves.
STARRED = ["string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random",
           "statistics", "itertools", "functools", "operator", "io", "sys", "json"]  # fmt: skip
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
    sys.path.append(packages)
    sys.argv = ["solution.py"]
    sys.setrecursionlimit(RECURSION)
    sys.set_int_max_str_digits(DIGITS)
    _open_streams()
    threading.stack_size(8 << 20)  # else every thread would take as much as the main stack
    for name in [name for name in sys.modules if name.startswith("longcot")]:
        del sys.modules[name]


def confine(limits: dict, files: list[int], rules: int, system_calls: bytes) -> bytes:
    """Take the three streams, set the limits, lock files and system calls; returns the program's
    text, which is read from the first of `files`. Nothing of this can be undone."""
    text, *streams = files
    os.setsid()
    for number, file in enumerate(streams):
        os.dup2(file, number)
    source = os.pread(text, os.fstat(text).st_size, 0)
    os.chdir(isolation.SCRATCH)
    seconds = math.ceil(limits["cpu"])
    bounds = {
        resource.RLIMIT_CPU: (seconds, seconds),
        resource.RLIMIT_AS: (limits["memory"],) * 2,
        resource.RLIMIT_NPROC: (limits["processes"] + 2,) * 2,  # the box's own two count too
        resource.RLIMIT_FSIZE: (limits["scratch"],) * 2,
        resource.RLIMIT_NOFILE: (FILES, FILES),
        resource.RLIMIT_CORE: (0, 0),
        resource.RLIMIT_MEMLOCK: (0, 0),
        resource.RLIMIT_MSGQUEUE: (0, 0),
    }
    for name, bound in bounds.items():
        resource.setrlimit(name, bound)
    isolation.drop_capabilities()
    isolation.set_dumpable(True)  # it may look into itself and what it starts
    if rules >= 0:
        isolation.lock_files(rules)
    isolation.load_filter(system_calls)
    return source


def run(source: bytes) -> None:
    """Run `source` as the interpreter runs a script, and end this process. A SystemExit of any
    kind is an ordinary end, as in LiveCodeBench's runner; an exception ends with exit code 1."""
    random.seed(0)  # one verdict for one answer, like the fixed hash seed
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    vars(main)["__builtins__"] = builtins
    code = 0
    try:
        exec(compile(source, "solution.py", "exec", dont_inherit=True), vars(main))
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException as error:
        code = 1
        sys.excepthook(type(error), error, error.__traceback__ and error.__traceback__.tb_next)
    fault = _end(main)
    os._exit(code or fault)


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


def _end(main: types.ModuleType) -> int:
    """What the interpreter does at its end: wait for threads, call exit functions, drop the
    program's objects (a file that nobody closed is written then), flush. Returns the exit code."""
    try:
        threading._shutdown()  # pyright: ignore[reportAttributeAccessIssue]
        atexit._run_exitfuncs()
        streams = [sys.stdout, sys.stderr, sys.__stdout__]
        vars(main).clear()
        for stream in streams:
            if hasattr(stream, "flush") and not getattr(stream, "closed", False):
                stream.flush()
    except BaseException as error:
        sys.__excepthook__(type(error), error, error.__traceback__)
        return 120
    return 0

"""Run one Python program that nobody has read, where it can do no harm.

    outcome = run("print(int(input()) + 1)", b"41\\n", Limits(cpu_seconds=2.0))

A box (`longcot.box`) is a process in user, process, mount, network, IPC, host and cgroup
namespaces of its own, that sees a read-only interpreter, an empty scratch folder and nothing else;
it lends each program a fresh process, without capabilities, under landlock and seccomp. Bytes go in
and out through pipes. Boxes are reused, so a run costs milliseconds; they end with their caller.

Levels: "bubblewrap", the box within a bubblewrap container, where `bwrap` is installed;
"namespaces", the box alone, otherwise (landlock is then a must). The level is chosen by trying, and
a box is used only after a harmless program has found itself isolated in it. Below that: SandboxError.
"""

import atexit
import contextlib
import json
import os
import threading
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from pathlib import Path

from longcot import isolation
from longcot.box import LEVELS, TAIL, Box, Ended, Session
from longcot.errors import SandboxError

STATUSES = ("exited", "crashed", "timeout", "memory", "output_limit", "sandbox_failure")


@dataclass(frozen=True)
class Limits:
    """Bounds of one run. Address space holds for each process, and for all of them together what
    they really use; `output` holds for each of the two streams."""

    cpu_seconds: float = 6.0  # of each process
    wall_seconds: float = 12.0
    memory: int = 4 << 30  # bytes
    processes: int = 64  # threads included
    output: int = 8 << 20  # bytes
    scratch: int = 64 << 20  # bytes of files in the scratch folder


@dataclass(frozen=True)
class Outcome:
    """How a run ended. "exited": by itself, with any sys.exit; "crashed": by an exception, a signal
    or os._exit; "sandbox_failure": nothing is known about the program."""

    status: str  # one of STATUSES
    stdout: bytes
    stderr_tail: str
    seconds: float
    level: str  # one of LEVELS


# Nothing but looking: what this program finds must be a box.
PROBE = """
import json, os, socket, sys
def refused(action, *arguments):
    try:
        action(*arguments)
    except OSError:
        return True
    return False
asked = json.loads(sys.stdin.read())
lines = [line.split(":") for line in open("/proc/self/status")]
print(json.dumps({
    "namespaces": {n: os.readlink("/proc/self/ns/" + n) for n in asked["namespaces"]},
    "processes": sum(name.isdigit() for name in os.listdir("/proc")),
    "status": {name: value.strip() for name, value in lines},
    "seen": [path for path in asked["hidden"] if os.path.exists(path)],
    "written": [path for path in ("/", "/dev", "/usr", "/proc") if os.access(path, os.W_OK)],
    "socket": not refused(socket.socket),
    "scratch": os.getcwd() == "/scratch" and not os.listdir() and not refused(open, "a", "w"),
}))
"""
STATUS = dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), "0" * 16)
STATUS |= {"NoNewPrivs": "1", "Seccomp": "2"}


def _find_fault(outcome: Outcome) -> str | None:
    """Why the probe's outcome does not prove a box, or None."""
    if outcome.status != "exited":
        return f"the probe {outcome.status}: {outcome.stderr_tail.strip()}"
    found = json.loads(outcome.stdout)
    ours = {name: str(Path(f"/proc/self/ns/{name}").readlink()) for name in isolation.NAMESPACES}
    shared = [name for name in ours if found["namespaces"][name] == ours[name]]
    expected = {"processes": 1, "status": STATUS, "seen": [], "written": [], "socket": False}
    found["status"] = {name: found["status"].get(name) for name in STATUS}
    wrong = [name for name, value in expected.items() if found[name] != value]
    if shared or wrong or not found["scratch"]:
        return f"not isolated: namespaces {shared}, {', '.join(f'{n} {found[n]}' for n in wrong)}"
    return None


# ---- running


def run(program: str, stdin: bytes = b"", limits: Limits | None = None) -> Outcome:
    """Run a Python program with `stdin` on its standard input, isolated and within `limits`.

    Whatever the program does becomes its Outcome. Raises SandboxError where programs cannot be
    isolated.
    """
    with contextlib.closing(run_each(program, [stdin], limits)) as outcomes:
        return next(outcomes)


def run_each(
    program: str, inputs: Iterable[bytes], limits: Limits | None = None
) -> Generator[Outcome, None, None]:
    """Run a program once for each input, each time in a fresh process that knows nothing of the
    other runs; close the iterator when no more outcomes are wanted. As `run` otherwise.

    A run that was lost is repeated once elsewhere. Lost again, it is "sandbox_failure" if the box
    itself failed, and the program's own crash if only its room did.
    """
    limits, text = limits or Limits(), program.encode("utf-8", "surrogatepass")
    session = None
    try:
        for stdin in inputs:
            for _ in range(2):
                session = session or Session(_take(), text, _bounds(limits))
                ended = session.run(stdin, limits.output)
                level = session.box.level
                if session.over:
                    _give_back(session)
                    session = None
                if ended.status not in ("lost", "failed", "sandbox_failure"):
                    break
            yield _outcome(ended, level)
    finally:
        if session:
            if not session.over:
                session.close()
            _give_back(session)


def _bounds(limits: Limits) -> dict:
    return {
        "cpu": limits.cpu_seconds,
        "wall": limits.wall_seconds,
        "memory": limits.memory,
        "processes": limits.processes,
        "scratch": limits.scratch,
    }


def _outcome(ended: Ended, level: str) -> Outcome:
    tail = ended.stderr.decode("utf-8", "replace").rstrip()
    status = {"lost": "crashed", "stopped": "timeout", "failed": "sandbox_failure"}.get(
        ended.status, ended.status
    )
    if status == "crashed" and tail.rpartition("\n")[2].startswith("MemoryError"):
        status = "memory"
    notes = [tail, ended.note if status != "exited" else ""]
    return Outcome(status, ended.stdout, "\n".join(filter(None, notes)), ended.seconds, level)


# ---- boxes

_idle: list[Box] = []
_lock = threading.Lock()
_level: str | None = None


def probe() -> str:
    """The level of isolation this machine gives, found by trying once; raises SandboxError."""
    global _level
    with _lock:
        if _level is None:
            reasons = []
            for level in LEVELS:
                try:
                    _idle.append(_start(level))
                except OSError as error:
                    reasons.append(f"{level}: {error}")
                else:
                    _level = level
                    break
            else:
                raise SandboxError(_remedy(reasons))
        return _level


def _remedy(reasons: list[str]) -> str:
    return (
        f"programs cannot be isolated here, so none is run ({'; '.join(reasons)}); on Linux, install "
        "bubblewrap (apt-get install bubblewrap) and let its user make user namespaces"
    )


def _take() -> Box:
    level = probe()
    with _lock:
        if _idle:
            return _idle.pop()
    try:
        return _start(level)
    except OSError as error:
        raise SandboxError(_remedy([f"{level}: {error}"])) from None


def _give_back(session: Session) -> None:
    if session.failed:
        session.box.close()
        return
    with _lock:
        _idle.append(session.box)


def _start(level: str) -> Box:
    """A box in which the probe found itself isolated; raises OSError otherwise."""
    box = Box(level)
    hidden = [__file__, "/etc/passwd", "/bin/sh", "/sys", "/home"]
    asked = json.dumps({"hidden": hidden, "namespaces": isolation.NAMESPACES}).encode()
    session = Session(box, PROBE.encode(), _bounds(Limits()))
    fault = _find_fault(_outcome(session.run(asked, TAIL), level))
    if not session.over:
        session.close()
    if fault or session.failed:
        box.close()
        raise OSError(fault or "the box failed after its probe")
    return box


def close() -> None:
    """End the boxes that wait for another program; the next run starts a new one."""
    with _lock:
        boxes, _idle[:] = list(_idle), []
    for box in boxes:
        box.close()


atexit.register(close)
os.register_at_fork(after_in_child=_idle.clear)  # a forked process must not share its boxes

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
import json
import os
import threading
from dataclasses import dataclass
from pathlib import Path

from longcot import isolation
from longcot.box import LEVELS, Box
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
import json, os, sys
def refused(action, *arguments):
    try:
        action(*arguments)
    except OSError:
        return True
    return False
import socket
lines = [line.split(":") for line in open("/proc/self/status")]
print(json.dumps({
    "namespaces": {n: os.readlink("/proc/self/ns/" + n) for n in os.listdir("/proc/self/ns")},
    "processes": sum(name.isdigit() for name in os.listdir("/proc")),
    "status": {name: value.strip() for name, value in lines },
    "seen": [path for path in json.loads(sys.stdin.read()) if os.path.exists(path)],
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
        "bubblewrap (apt-get install bubblewrap) and allow user namespaces, or run as root outside "
        "a container"
    )


def _start(level: str) -> Box:
    """A box in which the probe found itself isolated; raises OSError otherwise."""
    box = Box(level)
    hidden = json.dumps([__file__, "/etc/passwd", "/bin/sh", "/sys", "/home"]).encode()
    fault = _find_fault(_run_in(box, PROBE, hidden, Limits()))
    if fault:
        box.close()
        raise OSError(fault)
    return box


def run(program: str, stdin: bytes = b"", limits: Limits | None = None) -> Outcome:
    """Run a Python program with `stdin` on its standard input, isolated and within `limits`.

    Whatever the program does becomes its Outcome. Raises SandboxError where programs cannot be
    isolated.
    """
    return next(run_each(program, [stdin], limits))


def run_each(
    program: str, inputs: Iterable[bytes], limits: Limits | None = None
) -> Iterator[Outcome]:
    """Run a program once for each input, each time in a fresh process that knows nothing of the
    other runs; close the iterator when no more outcomes are wanted. As `run` otherwise.

    A run that was lost is repeated once elsewhere. Lost again, it is "sandbox_failure" if the box
    itself failed, and the program's own crash if only its room did.
    """
    limits = limits or Limits()
    desk = _Desk(program.encode("utf-8", "surrogatepass"), limits)
    try:
        for stdin in inputs:
            outcome = desk.run(stdin)
            if outcome.status == "lost" or outcome.status == "sandbox_failure":
                outcome = desk.run(stdin)
            yield replace(outcome, status="crashed") if outcome.status == "lost" else outcome
    finally:
        desk.clear()


class _Desk:
    """The box and session of one program, taken when needed and given back."""

    def __init__(self, text: bytes, limits: Limits) -> None:
        self.text, self.limits = text, limits
        self.box: Box | None = None
        self.session: Session | None = None

    def run(self, stdin: bytes) -> Outcome:
        self.box = self.box or _take()
        level = self.box.level
        self.session = self.session or self.box.open(self.text, _bounds(self.limits))
        try:
            report, out, err = self.session.run(stdin, self.limits.output)
            if report is None or not report["more"]:
                report = (report or {}) | self._end_session(report)
        ...
def close() -> None:
    """End the boxes that wait for another program; the next run starts a new one."""
    with _lock:
        boxes, _idle[:] = list(_idle), []
    for box in boxes:
        box.close()


atexit.register(close)
os.register_at_fork(after_in_child=_idle.clear)  # a forked process must not share its boxes

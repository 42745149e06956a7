"""For tests that run programs: one box at each level, limits that are small, and the proof.

A hostile program is run by `attack` alone, which first has a harmless one show, in the same way,
that it sees none of our namespaces; else the test fails and nothing hostile runs.
"""

import json
import os
from pathlib import Path
from typing import NoReturn

import pytest

from longcot import sandbox
from longcot.box import LEVELS
from longcot.sandbox import Limits

SMALL = Limits(
    cpu_seconds=2.0,
    wall_seconds=3.0,
    memory=256 << 20,
    processes=32,
    output=1 << 20,
    scratch=16 << 20,
)
NAMESPACES = ("pid", "net", "mnt", "user", "ipc", "uts")
PROOF = """
import json, os
names = ("pid", "net", "mnt", "user", "ipc", "uts")
print(json.dumps({
    "namespaces": {name: os.readlink("/proc/self/ns/" + name) for name in names},
    "pid": os.getpid(), "parent": os.getppid(), "uid": os.getuid(),
    "processes": sum(name.isdigit() for name in os.listdir("/proc")),
    "here": os.path.exists(%r),
}))
"""


def prove(limits: Limits = SMALL) -> dict:
    """Run the harmless program as any other is run; fails the test unless it is isolated."""
    outcome = sandbox.run(PROOF % __file__, limits=limits)
    assert outcome.status == "exited", outcome
    found = json.loads(outcome.stdout)
    for name in NAMESPACES:
        assert found["namespaces"][name] != str(Path(f"/proc/self/ns/{name}").readlink()), name
    assert (found["parent"], found["uid"], found["processes"]) == (1, 1000, 1)
    assert 1 < found["pid"] < 10 and not found["here"]
    return found


def attack(program: str, stdin: bytes = b"", limits: Limits = SMALL) -> sandbox.Outcome:
    """Run a hostile program, once a harmless one has proven the isolation of this very way."""
    prove(limits)
    return sandbox.run(program, stdin, limits)


def descendants() -> list[str]:
    """The command names of all processes below this one."""
    parents, names = {}, {}
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = place.read_text(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        pid, rest = int(text.split(" ", 1)[0]), text.rpartition(")")[2].split()
        parents[pid], names[pid] = int(rest[1]), text.partition("(")[2].rpartition(")")[0]
    below, found = {os.getpid()}, []
    while more := {pid for pid, parent in parents.items() if parent in below} - below:
        below |= more
        found += [names[pid] for pid in more]
    return sorted(found)


def _leave_out(reason: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(f"{reason} (where CI is set, these tests must run)")
    pytest.skip(reason)


@pytest.fixture(scope="module", params=LEVELS)
def level(request):
    """Each level of isolation this machine gives, one after the other."""
    sandbox.close()
    try:
        box = sandbox._start(request.param)
    except OSError as error:
        _leave_out(f"no isolation at level {request.param} here: {error}")
    sandbox._level = request.param
    sandbox._idle.append(box)
    yield request.param
    sandbox.close()
    sandbox._level = None


@pytest.fixture(scope="module")
def isolated():
    """The best level this machine gives."""
    try:
        yield sandbox.probe()
    except sandbox.SandboxError as error:
        _leave_out(str(error))
    sandbox.close()

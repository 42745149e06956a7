"""What runs inside a box: a small server that lends every program a process of its own.

The server is started by `longcot.box` from these sources alone, with no environment. For each
program it forks a process that is the init of a new process namespace, so that the kernel ends
whatever the program started when it ends, and that gives up its rights (`longcot.program`). The
server watches from outside that namespace, where the program can neither see nor signal it; a
program, its input and its output never pass through the server's memory.
"""

import gc
import json
import os
import platform
import resource
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import NamedTuple

from longcot import isolation, program

STACK = 256 << 20  # bytes: Python recurses on the C stack through sort keys, caches, json ...
PREFERRED = "1000"  # when memory is short, the kernel ends a program, not its caller


def main(settings: dict) -> None:
    """Build the box that `settings` describe, serve programs until the control socket closes."""
    _deepen_stack()
    control = socket.socket(fileno=settings["control"])
    control.set_inheritable(False)
    isolation.die_with_parent()
    os.umask(0o022)
    nothing = os.open("/dev/null", os.O_RDWR)
    os.dup2(nothing, 0)
    bare = settings["level"] == "namespaces"
    if not bare and os.geteuid() == 0:
        isolation.mount_proc()  # bubblewrap covers parts of its own, and then none can be mounted
    isolation.enter_namespaces()
    if bare:
        isolation.build_root(settings["binds"], settings["links"])
    else:
        isolation.become_nobody()
    isolation.die_with_parent()  # forgotten by the kernel when the user changes
    server = os.fork()
    if server:
        control.close()
        os.waitpid(server, 0)
        os._exit(0)
    isolation.die_with_parent()
    isolation.mount_proc()
    if bare:
        isolation.finish_root()
    isolation.forbid_gains()
    isolation.set_dumpable(True)  # lost with the change of user; else the next file is root's
    Path("/proc/self/oom_score_adj").write_text(PREFERRED)
    isolation.set_dumpable(False)
    if bare and not isolation.landlock_version():
        raise OSError("the kernel has no landlock")
    home = os.open("/proc/self/ns/pid", os.O_RDONLY)
    isolation.mount_proc(only_ours=True)
    program.prepare(settings["packages"])
    gc.collect()
    gc.freeze()
    control.send(b"ready")
    program.run(_serve(control, home))


def _deepen_stack() -> None:
    """Start over with room for a deep stack: its place is fixed when a program is loaded."""
    soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
    wanted = STACK if hard == resource.RLIM_INFINITY else min(STACK, hard)
    if soft != wanted:
        resource.setrlimit(resource.RLIMIT_STACK, (wanted, hard))
        os.lseek(0, 0, os.SEEK_SET)
        os.execv(sys.executable, sys.orig_argv)


def _serve(control: socket.socket, home: int) -> bytes:
    """Lend one process after another (`home` is our own process namespace) and answer each job
    with a report; returns only in a lent process, confined: the text of its program."""
    system_calls = isolation.build_filter(platform.machine())
    scratch = Scratch(0, 0, -1)
    while True:
        message, files, _, _ = socket.recv_fds(control, 1 << 16, 8)
        if not message:
            os._exit(0)
        if not files:
            continue  # a stop for a program that had ended by itself
        limits = json.loads(message)
        scratch = _clean(scratch, limits["scratch"])
        isolation.call("unshare", isolation.NEW_PID)
        told, tell = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                text = program.confine(limits, files, scratch.rules, system_calls)
            except OSError as error:
                os.write(tell, str(error).encode())
                os._exit(1)
            os.write(tell, b"ready")
            os.closerange(3, 1 << 16)
            return text
        isolation.call("setns", home, isolation.NEW_PID)
        for file in (*files, tell):
            os.close(file)
        said = os.read(told, 4096)
        os.close(told)
        report = _watch(child, control, limits)
        if said != b"ready":
            note = said.decode(errors="replace") or "the process ended early"
            report = {"status": "sandbox_failure", "note": note, "seconds": 0.0}
        control.send(json.dumps(report).encode())


class Scratch(NamedTuple):
    """The scratch folder as the last program should have left it."""

    size: int  # bytes; 0: none yet
    changed: int  # nanoseconds; nobody can set this time
    rules: int  # landlock's, which hold for this very folder


def _clean(scratch: Scratch, size: int) -> Scratch:
    """A scratch folder as new, at no cost where the last program left it alone."""
    place = Path(isolation.SCRATCH)
    if (scratch.size, scratch.changed) == (size, place.stat().st_ctime_ns):
        return scratch
    if scratch.size:
        isolation.unmount_scratch()
        if scratch.rules >= 0:
            os.close(scratch.rules)
    isolation.mount_scratch(size)
    return Scratch(size, place.stat().st_ctime_ns, isolation.lock_rules())


# ---- watching one program


def _watch(child: int, control: socket.socket, limits: dict) -> dict:
    """Wait for the end of the program or bring it about; returns the report."""
    start, base, pause = time.monotonic(), _resident(Path("/proc/self")), 5
    ended = os.pidfd_open(child)
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    poll.register(control, select.POLLIN)
    verdict = None
    while verdict is None:
        ready = dict(poll.poll(pause))
        pause = min(50, 2 * pause)  # milliseconds
        seconds = time.monotonic() - start
        if ended in ready:
            break
        if ready:  # a stop, or the caller is gone and we end with it
            verdict = ("stopped", "")
            if not control.recv(16):
                os._exit(0)
        elif seconds > limits["wall"]:
            verdict = ("timeout", f"no end within {limits['wall']:g} s")
        elif _resident_beyond(base) > limits["memory"]:
            verdict = ("memory", f"its processes hold more than {limits['memory']} bytes")
    if verdict:
        os.kill(child, signal.SIGKILL)
    os.close(ended)
    _, status, used = os.wait4(child, 0)
    verdict = verdict or _name_end(status, used.ru_utime + used.ru_stime, limits)
    return {"status": verdict[0], "note": verdict[1], "seconds": round(seconds, 6)}


def _name_end(status: int, processor: float, limits: dict) -> tuple[str, str]:
    code = os.waitstatus_to_exitcode(status)
    if processor >= limits["cpu"]:
        return "timeout", f"more than {limits['cpu']:g} s of processor time"
    if code == 0:
        return "exited", ""
    return "crashed", signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _resident(task: Path) -> int:
    try:
        pages = (task / "statm").read_bytes().split()[1]
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(pages) * resource.getpagesize()


def _resident_beyond(base: int) -> int:
    """Bytes held by all other processes here, less what each shares with us from its start."""
    return sum(max(0, _resident(task) - base) for task in Path("/proc").glob("[0-9]*"))

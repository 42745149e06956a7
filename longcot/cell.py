"""What runs inside a box: a small server that lends every program a room of its own.

The server is started by `longcot.box` from these sources alone, with no environment. For each
program it forks the init of a new process namespace, which gives up its rights and forks a process
for each input (`longcot.program`); when the init ends, the kernel ends whatever is left. The server
watches from outside that namespace, where no program can see or signal it. A program, its input and
its output never pass through the server's memory.
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
    isolation.restrict_devices()
    isolation.forbid_gains()
    isolation.set_dumpable(True)  # lost with the change of user; else the next file is root's
    Path("/proc/self/oom_score_adj").write_text(PREFERRED)
    isolation.set_dumpable(False)
    if bare and not isolation.landlock_version():
        raise OSError("the kernel has no landlock")
    home = os.open("/proc/self/ns/pid", os.O_RDONLY)
    tasks = os.open("/proc", os.O_RDONLY)  # all of them, which the next /proc hides
    isolation.mount_proc(only_ours=True)
    program.prepare(settings["packages"])
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python's own handler would let an init be hit
    gc.collect()
    gc.freeze()
    control.send(b"ready")
    program.run(program.lend(*_serve(control, home, tasks)))


def _deepen_stack() -> None:
    """Start over with room for a deep stack: its place is fixed when a program is loaded."""
    soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
    wanted = STACK if hard == resource.RLIM_INFINITY else min(STACK, hard)
    if soft != wanted:
        resource.setrlimit(resource.RLIMIT_STACK, (wanted, hard))
        os.lseek(0, 0, os.SEEK_SET)
        os.execv(sys.executable, sys.orig_argv)


def _serve(control: socket.socket, home: int, tasks: int) -> tuple[dict, list[int], int, bytes]:
    """Fork an init for each job (`home`: our own process namespace), watch it (`tasks`: its /proc)
    and report its end; returns only in an init: what `program.lend` wants."""
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
        init = os.fork()
        if init == 0:
            control.close()
            os.close(home)
            os.close(tasks)
            return limits, files, scratch.rules, system_calls
        isolation.call("setns", home, isolation.NEW_PID)
        for file in files:
            os.close(file)
        control.send(json.dumps(_watch(init, control, tasks, limits["memory"])).encode())


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


def _watch(init: int, control: socket.socket, tasks: int, memory: int) -> dict:
    """Wait for the init's end, or bring it about; returns the report: its status is "ended",
    "stopped" (the caller's wish) or "memory"."""
    base, pause = _resident(tasks, "self"), 5
    ended = os.pidfd_open(init)
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    poll.register(control, select.POLLIN)
    report = {"status": "ended"}
    while ended not in (ready := dict(poll.poll(pause))):
        pause = min(50, 2 * pause)  # milliseconds
        if ready:
            if not control.recv(16):
                os._exit(0)  # the caller is gone, and we end with it
            report = {"status": "stopped"}
        elif _resident_beyond(base, tasks) > memory:
            report = {"status": "memory", "note": f"its processes hold more than {memory} bytes"}
        if report["status"] != "ended":
            os.kill(init, signal.SIGKILL)
            break
    os.close(ended)
    status = os.waitpid(init, 0)[1]
    return report | {"code": os.waitstatus_to_exitcode(status)}


def _resident(tasks: int, name: str) -> int:
    try:
        with os.fdopen(os.open(f"{name}/statm", os.O_RDONLY, dir_fd=tasks), "rb") as stream:
            return int(stream.read().split()[1]) * resource.getpagesize()
    except (FileNotFoundError, ProcessLookupError):  # it has just ended
        return 0


def _resident_beyond(base: int, tasks: int) -> int:
    """Bytes held by all other processes here, less what each shares with us from its start."""
    names = [name for name in os.listdir(tasks) if name.isdigit()]
    return sum(max(0, _resident(tasks, name) - base) for name in names)

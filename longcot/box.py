"""A box, seen from outside: what lies in it, how it is started, bytes in and out through pipes.

Inside runs `longcot.cell`, which lends each program a room and each of its runs a process.
"""

import contextlib
import functools
import importlib.util
import json
import os
import selectors
import shutil
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from longcot import isolation

LEVELS = ("bubblewrap", "namespaces")
TAIL = 4096  # bytes kept of what a program writes to its error stream
START = 30.0  # seconds for a box to be ready
GRACE = 10.0  # seconds beyond a program's own wall limit before its box is given up
LIBRARIES = ("lib", "lib64")
PACKAGES = "/packages"  # where numpy lies in a box, if the caller has it
_PIECE = 1 << 16

# The box reads its sources from its standard input, for it cannot see this folder.
BOOT = """
import json, os, sys, types
settings = json.loads(os.pread(0, 1 << 24, 0))
for name, text in settings["modules"].items():
    module = sys.modules[name] = types.ModuleType(name)
    setattr(sys.modules["longcot"], name.rpartition(".")[2], module)
    exec(compile(text, name, "exec"), vars(module))
sys.modules["longcot.cell"].main(settings)
"""

_keeper = ThreadPoolExecutor(1)
_held: set[int] = set()  # descriptors whose other end waits until every copy is closed


def _forget() -> None:
    """In a forked child: its copies of our pipes would keep programs waiting for their end."""
    global _keeper
    _keeper = ThreadPoolExecutor(1)
    while _held:
        with contextlib.suppress(OSError):
            os.close(_held.pop())


os.register_at_fork(after_in_child=_forget)


class Ended(NamedTuple):
    """What came of a run."""

    status: str  # as in `sandbox`, or "lost": the room was gone before it could report
    note: str
    seconds: float
    stdout: bytes
    stderr: bytes  # the last TAIL bytes


# ---- what a box sees


def _layout() -> tuple[dict[str, str], dict[str, str]]:
    """Read-only paths {inside: outside} and links {inside: target}: system libraries, the standard
    library, the interpreter, numpy. Other packages, programs and settings do not exist inside."""
    roots = ["/", "/usr", Path(sys.base_prefix).resolve()]
    folders = [Path(root, name) for root in dict.fromkeys(map(str, roots)) for name in LIBRARIES]
    links = {str(path): str(path.readlink()) for path in folders if path.is_symlink()}
    binds = {str(path): str(path) for path in folders if path.is_dir() and not path.is_symlink()}
    binds[_interpreter()] = _interpreter()
    numpy = importlib.util.find_spec("numpy")
    if numpy and numpy.origin:
        for path in Path(numpy.origin).parents[1].glob("numpy*"):
            if path.name in ("numpy", "numpy.libs"):
                binds[f"{PACKAGES}/{path.name}"] = str(path)
    streams = {"fd": "", "stdin": "/0", "stdout": "/1", "stderr": "/2"}
    return binds, links | {f"/dev/{name}": f"/proc/self/fd{end}" for name, end in streams.items()}


def _interpreter() -> str:
    return str(Path(getattr(sys, "_base_executable", sys.executable)).resolve())


def _bubblewrap(binds: dict[str, str], links: dict[str, str]) -> list[str]:
    """The bwrap command around a box. For root it makes no user namespace, or the box could not
    change the user within its own; it lends the privileges for that instead."""
    if not (command := shutil.which("bwrap")):
        raise OSError("no `bwrap` on PATH")
    words = [command, "--die-with-parent", "--new-session", "--unshare-pid", "--unshare-net"]
    words += ["--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    if os.geteuid() == 0:
        for name in ("CAP_SYS_ADMIN", "CAP_SETUID", "CAP_SETGID"):
            words += ["--cap-add", name]
    else:
        words += ["--unshare-user"]
    for inside, outside in binds.items():
        for folder in list(Path(inside).parents)[-2::-1]:  # bwrap alone would close some of them
            words += ["--dir", str(folder)]
        words += ["--ro-bind", outside, inside]
    words += ["--dir", "/dev"]
    for name in isolation.DEVICES:
        words += ["--dev-bind", f"/dev/{name}", f"/dev/{name}"]
    for inside, target in links.items():
        words += ["--symlink", target, inside]
    words += ["--proc", "/proc", "--dir", isolation.SCRATCH, "--remount-ro", "/", "--chdir", "/"]
    return [*words, "--"]


def _write_settings(level: str, control: int, binds: dict, links: dict) -> int:
    modules = {"longcot": ""}
    for name in ("isolation", "program", "cell"):
        modules[f"longcot.{name}"] = Path(__file__).with_name(f"{name}.py").read_text("utf-8")
    settings = {"modules": modules, "level": level, "control": control, "packages": PACKAGES}
    file = os.memfd_create("settings")
    os.write(file, json.dumps(settings | {"binds": binds, "links": links}).encode())
    return file


# ---- the box


class Box:
    """A running box. One program at a time; `close` ends it and everything in it."""

    def __init__(self, level: str) -> None:
        """Start a box and wait until it listens; raises OSError saying why it does not."""
        binds, links = _layout()
        command = _bubblewrap(binds, links) if level == "bubblewrap" else []
        command += [_interpreter(), "-s", "-S", "-P", "-B", "-c", BOOT]
        self.level, self.process = level, None
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        _held.add(self.control.fileno())
        settings = _write_settings(level, theirs.fileno(), binds, links)
        self.errors = os.memfd_create("errors")
        streams = {"stdin": settings, "stdout": subprocess.DEVNULL, "stderr": self.errors}
        clean = {"PYTHONHASHSEED": "0", "PYTHONUTF8": "1"}  # nothing of the caller's
        start = functools.partial(
            subprocess.Popen, command, **streams, env=clean, cwd="/", start_new_session=True
        )
        try:
            with theirs:  # the kernel ends a box with the thread that started it, so that must last
                self.process = _keeper.submit(start, pass_fds=[theirs.fileno()]).result()
            self.control.settimeout(START)
            if self.control.recv(16) != b"ready":
                raise OSError(self.complaint())
        except OSError:
            self.close()
            raise
        finally:
            os.close(settings)

    def complaint(self) -> str:
        """The last line the box wrote to its own error stream."""
        said = os.pread(self.errors, _PIECE, 0).decode(errors="replace").strip()
        return said.splitlines()[-1] if said else "the box ended"

    def close(self) -> None:
        """End the box and wait for its end."""
        _close(self.control.detach())
        os.close(self.errors)
        if self.process:
            try:
                self.process.wait(timeout=2)  # it ends by itself when its socket closes
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Session:
    """Runs of one program in one room of a box, one at a time. When it is `over` the box can take
    the next, unless it `failed`."""

    def __init__(self, box: Box, program: bytes, limits: dict) -> None:
        """Have the box make room for `program` within `limits` (see `program.lend`)."""
        self.box, self.limits, self.over, self.failed = box, limits, False, False
        self.end, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        _held.add(self.end.fileno())
        with theirs, os.fdopen(os.memfd_create("program"), "wb") as text:
            text.write(program)
            text.flush()
            _send(box.control, json.dumps(limits).encode(), [text.fileno(), theirs.fileno()])

    def close(self) -> dict:
        """End the room; returns the box's report on it."""
        self.over = True
        _close(self.end.detach())
        report = b""
        with contextlib.suppress(OSError):
            report = self.box.control.recv(_PIECE)
        self.failed = not report
        return json.loads(report or '{"status": "failed"}')

    def run(self, stdin: bytes, output: int) -> Ended:
        """Run the program on `stdin`, keeping at most `output` bytes of its output."""
        (given, feed), *pipes = (_open_pipe() for _ in range(3))
        theirs = [given, *(writing for _, writing in pipes)]
        ours = [feed, *(reading for reading, _ in pipes)]
        _held.update(ours)
        _send(self.end, b"run", theirs)
        for file in theirs:
            os.close(file)
        self.over = self.failed = True  # if this is interrupted: the program may still be running
        try:
            told, out, err, flood = self._exchange(ours, stdin, output)
            self.over = self.failed = False
        finally:
            for file in (*ours, *([self.end.detach()] if self.over else [])):
                _close(file)  # those that the exchange has not closed
        report: dict = {"status": "lost", "note": "", "seconds": 0.0}
        report |= json.loads(told or "{}")
        if not report.get("more"):
            why = self.close()
            if flood:
                report |= {"status": "output_limit", "note": f"more than {output} bytes"}
            elif not told and why["status"] in ("stopped", "memory"):
                report |= why
            elif not told and why.get("code", 0) >= 0:  # programs cannot bring that about
                report |= {"status": "failed", "note": self.box.complaint()}
        return Ended(report["status"], report["note"], report["seconds"], out[:output], err)

    def _exchange(self, ours: list[int], stdin: bytes, output: int) -> tuple:
        """Feed stdin and collect the rest, until the streams are closed at the other end and the
        room has reported or is gone, or it is stopped: (report, stdout, stderr, flood)."""
        feed, out, err = ours
        told = self.end.fileno()
        found = {out: bytearray(), err: bytearray(), told: bytearray()}
        counts = dict.fromkeys(found, 0)
        deadline = time.monotonic() + self.limits["wall"] + GRACE
        sent, flood = 0, False
        os.set_blocking(feed, False)
        with selectors.DefaultSelector() as selector:
            selector.register(feed, selectors.EVENT_WRITE)
            for file in found:
                selector.register(file, selectors.EVENT_READ)
            while selector.get_map():
                ready = selector.select(max(0.0, deadline - time.monotonic()))
                flood = max(counts[out], counts[err]) > output
                if flood or not ready:
                    _send(self.box.control, b"stop", [])
                    found[told].clear()
                    break
                for file in (key.fd for key, _ in ready):
                    if file == feed:
                        sent += _feed(feed, stdin[sent : sent + _PIECE])
                        over = sent >= len(stdin)
                    else:
                        piece = _read(file)
                        over = not piece or file == told
                        counts[file] += len(piece)
                        found[file] += piece
                        del found[err][:-TAIL]
                    if over:
                        selector.unregister(file)
                        if file != told:
                            ours.remove(file)
                            _close(file)
        return (*(bytes(found[file]) for file in (told, out, err)), flood)


def _open_pipe() -> tuple[int, int]:
    ends = os.pipe()
    if os.geteuid() == 0:  # then the box is nobody, who could not open /dev/stdin
        os.fchown(ends[0], isolation.NOBODY, isolation.NOBODY)
    return ends


def _send(end: socket.socket, message: bytes, files: list[int]) -> None:
    with contextlib.suppress(OSError):  # nobody is there any more: that nothing comes out will tell
        socket.send_fds(end, [message], files)


def _feed(file: int, piece: bytes) -> int:
    try:
        return os.write(file, piece)
    except BrokenPipeError:  # nobody will read the rest
        return 1 << 62


def _read(file: int) -> bytes:
    try:
        return os.read(file, _PIECE)
    except ConnectionResetError:  # the room is gone, without a look at what we sent
        return b""


def _close(file: int) -> None:
    _held.discard(file)
    os.close(file)

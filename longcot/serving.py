"""A local model server for the length of a `with` block, in a process group of its own.

Linux only: the server is told to end when this process dies, so that no kill leaves one behind.
"""

import contextlib
import ctypes
import functools
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from longcot.errors import ClientError, LaunchError

GRACE = 15.0  # seconds between SIGTERM and SIGKILL
PAUSE = 0.2  # seconds between two looks at a loading server
TAIL = 15  # lines of the log in a message
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def vllm(
    model: str, extra_args: Sequence[str] = (), log: Path | None = None, limit: float = 3600.0
) -> contextlib.AbstractContextManager[str]:
    """Run `vllm serve MODEL` and give its base URL; it answers to `model` as the model's name.

    `vllm` is looked for beside the interpreter that VLLM_PYTHON names, beside this one, and on PATH.
    Sampling defaults that a model ships with are off, unless `extra_args` turn them on. Its output
    goes to `log`; it may take `limit` seconds to load. Raises LaunchError (not found, died, too slow).
    """
    command = [_find_vllm(), "serve", model, "--generation-config", "vllm", *extra_args]
    quiet = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    return _serve(f"vllm serve {model}", command, quiet, log, limit)


def transformers(
    model: str,
    extra_args: Sequence[str] = (),
    log: Path | None = None,
    limit: float = 600.0,
    device: str = "cpu",
    dtype: str = "float32",
) -> contextlib.AbstractContextManager[str]:
    """Run `transformers serve MODEL` with this interpreter, for tests and the rehearsal; as `vllm`.

    It answers one call after the other, and to no other model's name than `model` as written here.
    """
    # -P: the current folder is no place to import from.
    command = [sys.executable, "-P", "-m", "transformers.cli.transformers", "serve", model]
    command += ["--device", device, "--dtype", dtype, *extra_args]
    quiet = {"HF_HUB_DISABLE_UPDATE_CHECK": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    if Path(model).is_dir():
        quiet["HF_HUB_OFFLINE"] = "1"
    return _serve(f"transformers serve {model}", command, quiet, log, limit)


def _find_vllm() -> str:
    named = os.environ.get("VLLM_PYTHON")
    if named:
        path = Path(named).parent / "vllm"
        if not os.access(path, os.X_OK):
            raise LaunchError(
                f"VLLM_PYTHON is {named}, and there is no {path}; name the interpreter of an "
                f"environment with vllm, or install it there: {named} -m pip install vllm"
            )
        return str(path)
    beside = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    if found := shutil.which("vllm", path=beside):
        return found
    raise LaunchError(
        "no `vllm` beside this Python nor on PATH; install it in an environment of its own and set "
        "VLLM_PYTHON to that environment's bin/python, or give the URL of a server that runs already"
    )


@contextlib.contextmanager
def _serve(
    title: str, command: list[str], environment: dict[str, str], log: Path | None, limit: float
) -> Iterator[str]:
    if log is None:
        handle, name = tempfile.mkstemp(prefix=f"{title.partition(' ')[0]}-", suffix=".log")
        os.close(handle)
        log = Path(name)
    port = _free_port()
    command = [*command, "--host", "127.0.0.1", "--port", str(port)]
    log.parent.mkdir(parents=True, exist_ok=True)
    prctl = ctypes.CDLL(None).prctl
    with log.open("ab") as stream:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                start_new_session=True,
                # Sent when the thread that started the server ends, however it ends.
                preexec_fn=functools.partial(prctl, PR_SET_PDEATHSIG, signal.SIGTERM),
            )
        except OSError as error:
            raise LaunchError(f"`{shlex.join(command)}` cannot be started: {error}") from None
    try:
        _wait(title, process, port, log, limit)
        try:
            yield f"http://127.0.0.1:{port}/v1"
        except ClientError as error:
            if ending := _ending(process):
                raise LaunchError(f"`{title}` {ending} at work; {_tail(log)}") from error
            raise
    finally:
        _stop(process)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait(title: str, process: subprocess.Popen, port: int, log: Path, limit: float) -> None:
    """Return when the server answers; raises LaunchError when it ends or `limit` seconds are over."""
    from tqdm import tqdm

    deadline = time.monotonic() + limit
    pause = 1.0 if sys.stderr.isatty() else 60.0  # a log file gets a line now and then
    with tqdm(
        desc=f"{title}, log in {log}", bar_format="{desc}, loading for {elapsed}", mininterval=pause
    ) as bar:
        while True:
            ready = _answers(port)
            if ending := _ending(process):
                raise LaunchError(f"`{title}` {ending} while loading; {_tail(log)}")
            if ready:
                return
            if time.monotonic() > deadline:
                raise LaunchError(f"`{title}` was not ready after {limit:g} s; {_tail(log)}")
            bar.update()
            time.sleep(PAUSE)


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n")
            return connection.recv(12).endswith(b" 200")
    except OSError:
        return False


def _ending(process: subprocess.Popen) -> str | None:
    """How the server ended, or None. It stays a zombie until `_stop`: so long its number, which is
    the group's, cannot be given to another process."""
    told = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if told is None:
        return None
    kind = "exit code" if told.si_code == os.CLD_EXITED else "signal"
    return f"ended with {kind} {told.si_status}"


def _tail(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL:]
    return f"its log, {log}, ends:\n" + "\n".join(line[:300] for line in lines)


def _stop(process: subprocess.Popen) -> None:
    """End the server's process group, and no other: SIGTERM, time to comply, SIGKILL."""
    try:
        os.killpg(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + GRACE
        while not _ending(process) and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        deadline = time.monotonic() + GRACE
        while _lives(process.pid) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.wait()


def _lives(group: int) -> bool:
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # a process that ended meanwhile
            state, _, number = path.read_bytes().rpartition(b")")[2].split()[:3]
            if int(number) == group and state not in b"ZX":
                return True
    return False

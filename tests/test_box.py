"""A box from outside: what is laid into it, under which user, and what becomes of it at a fork."""

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from boxes import SMALL, descendants, isolated  # noqa: F401
from conftest import ROOT

from longcot import box, sandbox


def test_only_libraries_the_interpreter_and_numpy_are_laid_in():
    binds, links = box._layout()
    prefix = str(Path(sys.base_prefix).resolve())
    allowed = ("/lib", "/usr/lib", "/packages/numpy", f"{prefix}/lib", box._interpreter())
    assert all(inside.startswith(allowed) for inside in binds)
    assert all(Path(outside).exists() for outside in binds.values())
    for private in (ROOT, Path.home(), Path("/etc"), Path("/")):
        assert str(private) not in binds.values()
    assert links["/dev/stdin"] == "/proc/self/fd/0" and links["/dev/fd"] == "/proc/self/fd"


def test_the_command_gives_root_no_user_namespace_and_others_one(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    for user, expected in ((0, "CAP_SETUID"), (1000, "--unshare-user")):
        monkeypatch.setattr(os, "geteuid", lambda user=user: user)
        words = box._bubblewrap({"/a/b": "/c"}, {"/l": "m"})
        assert expected in words and ("--unshare-user" in words) == (user != 0)
        assert "/usr/bin/bwrap --die-with-parent --new-session" in " ".join(words)
        assert "--dir /a --ro-bind /c /a/b" in " ".join(words)
        assert words[-1] == "--" and "--remount-ro" in words


def test_without_bwrap_there_is_no_such_level(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(OSError, match="no `bwrap` on PATH"):
        box._bubblewrap({}, {})


AS_OTHER = """
import json, os, sys
from longcot import sandbox
found = {}
for level in sandbox.LEVELS:
    try:
        sandbox._idle[:], sandbox._level = [sandbox._start(level)], level
    except OSError as error:
        found[level] = str(error)
        continue
    limits = sandbox.Limits(processes=8, wall_seconds=3.0, cpu_seconds=2.0, memory=256 << 20)
    forks = "import os, time\\nfor n in range(20):\\n    if os.fork() == 0:\\n        time.sleep(2)\\n"
    ended = sandbox.run(forks, limits=limits)
    found[level] = [sandbox.run("import os\\nprint(os.getuid(), input())", b"x", limits).stdout.decode(),
                    ended.status, "BlockingIOError" in ended.stderr_tail]
    sandbox.close()
print(json.dumps([os.getuid(), found]))
"""


@pytest.mark.usefixtures("isolated")
def test_an_ordinary_user_has_the_same_isolation():
    if os.geteuid() != 0:
        pytest.skip("the tests above have run as an ordinary user already")
    python, setpriv = (
        shutil.which("python3", path="/usr/bin:/usr/local/bin"),
        shutil.which("setpriv"),
    )
    if not python or not setpriv:
        pytest.skip("no setpriv, or no python3 that every user can run")
    command = [setpriv, "--reuid=65534", "--regid=65534", "--clear-groups", python, "-B", "-c"]
    able = "import sys; sys.exit(sys.version_info < (3, 11)); import longcot.sandbox"
    if subprocess.run([*command, able], cwd=ROOT, capture_output=True).returncode:
        pytest.skip(f"{python} is too old, or another user cannot read this folder")
    done = subprocess.run([*command, AS_OTHER], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = ["1000 x\n", "crashed", True]
    levels = {"bubblewrap": expected, "namespaces": expected}
    if not shutil.which("bwrap"):
        levels["bubblewrap"] = "no `bwrap` on PATH"
    assert json.loads(done.stdout) == [65534, levels]


FORKED = """
import os
from longcot import sandbox
print(sandbox.run("print(1)").stdout)
pid = os.fork()
if pid == 0:
    assert not sandbox._idle
    print(sandbox.run("print(2)").stdout, flush=True)
    sandbox.close()
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
assert len(sandbox._idle) == 1
print(sandbox.run("print(3)").stdout)
"""


@pytest.mark.usefixtures("isolated")
def test_a_forked_caller_has_boxes_of_its_own():
    done = subprocess.run(
        [sys.executable, "-u", "-c", FORKED], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split() == ["b'1\\n'", "b'2\\n'", "b'3\\n'"], done.stderr
    assert done.returncode == 0 and done.stderr == ""


@pytest.mark.usefixtures("isolated")
def test_an_interrupted_run_takes_its_box_along(monkeypatch):
    before = descendants()
    assert sandbox.run("print(1)", limits=SMALL).stdout == b"1\n"

    def interrupt(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(box.Session, "_exchange", interrupt)
        held = set(box._held)
        with pytest.raises(KeyboardInterrupt):
            sandbox.run("import time\ntime.sleep(99)", limits=SMALL)
        assert sandbox._idle == [] and len(box._held) == len(held) - 1  # that box's socket
    assert len(descendants()) <= len(before)
    assert sandbox.run("print(2)", limits=SMALL).stdout == b"2\n"


@pytest.mark.usefixtures("isolated")
def test_descriptors_do_not_pile_up():
    sandbox.run("print(1)", limits=SMALL)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for program in ("print(1)", "1 / 0", "while True: print(1)", "import os\nos.fork()"):
        for _ in range(3):
            sandbox.run(program, b"x" * 99999, SMALL)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.usefixtures("isolated")
def test_runs_side_by_side_keep_their_files_apart():
    """Descriptors are numbers that another thread may get the moment they are closed."""

    def work(number: int) -> list[bytes]:
        stdin = [b"%d-%d" % (number, run) for run in range(25)]
        outcomes = sandbox.run_each("print(input())\nimport sys\nsys.stdin.read()", stdin, SMALL)
        return [outcome.stdout.strip() for outcome in outcomes] if number % 2 else [
            sandbox.run("print(input())", text, SMALL).stdout.strip() for text in stdin]  # fmt: skip

    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(work, range(6)))
    assert found == [[b"%d-%d" % (number, run) for run in range(25)] for number in range(6)]
    sandbox.close()

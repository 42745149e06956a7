"""Errors the user can mend are told apart from bugs."""

import ast
import errno
import os

import pytest
from conftest import ROOT

from longcot import errors

CLASSES = {
    name
    for name, value in vars(errors).items()
    if isinstance(value, type) and value.__module__ == errors.__name__
}
FILES = sorted(path for path in (ROOT / "longcot").glob("*.py") if path.name != "__init__.py")


def test_every_error_of_ours_is_a_user_error():
    assert len(CLASSES) >= 6
    assert all(issubclass(getattr(errors, name), errors.UserError) for name in CLASSES)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_handlers_name_what_they_catch(path):
    """A bare or sweeping handler hides bugs."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"{path}:{node.lineno}"
            assert "Exception" not in ast.dump(node.type), f"{path}:{node.lineno}"


@pytest.mark.parametrize("door", ["train.py", "eval.py"])
def test_the_doors_print_a_user_error_and_trace_all_others(door):
    tree = ast.parse((ROOT / door).read_text(encoding="utf-8"))
    caught = [ast.unparse(node.type) for node in ast.walk(tree)
              if isinstance(node, ast.ExceptHandler)]  # fmt: skip
    assert caught == []  # errors.plainly is the one place that prints, and it is tested below
    last = tree.body[-1]
    assert ast.unparse(last).splitlines()[1:] == ["    with plainly():", "        main()"]


def test_a_user_error_and_a_full_disk_are_one_line_and_a_bug_is_traced():
    with pytest.raises(SystemExit, match="^error: mend this$"), errors.plainly():
        raise errors.RecipeError("mend this")
    with pytest.raises(SystemExit, match="^error: a/b: .*; free some space"), errors.plainly():
        raise OSError(errno.ENOSPC, "No space left on device", "a/b")
    with pytest.raises(PermissionError), errors.plainly():
        raise PermissionError(errno.EACCES, "denied", "a/b")
    with pytest.raises(KeyError), errors.plainly():
        raise KeyError("a bug")


def test_a_broken_pipe_is_silent_only_where_nobody_reads_our_output(monkeypatch):
    monkeypatch.setattr(errors, "_is_unread", lambda handle: False)
    with pytest.raises(BrokenPipeError), errors.plainly():
        raise BrokenPipeError(errno.EPIPE, "another pipe")
    monkeypatch.undo()
    reader, writer = os.pipe()
    assert not errors._is_unread(writer)
    os.close(reader)
    assert errors._is_unread(writer)
    os.close(writer)

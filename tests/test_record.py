"""The record of a run: complete, atomic, honest about the tree it came from."""

import json
import shutil
import subprocess

import pytest

from longcot import record
from longcot.errors import RecipeError
from longcot.recipe import load_recipe, resolved


def test_a_record_says_what_was_run_on_what(write_recipe):
    recipe = load_recipe(write_recipe(), ["train.seed=3", "eval.seed=9"])
    made = record.start_record("small_s3", recipe)
    assert set(made) == {"run", "recipe", "overrides", "commit", "dirty", "versions", "hardware",
                         "hashes", "seed"}  # fmt: skip
    assert (made["run"], made["seed"]) == ("small_s3", 3)
    assert made["overrides"] == ["train.seed=3", "eval.seed=9"]
    assert made["recipe"] == resolved(recipe) and made["recipe"]["train"]["seed"] == 3
    assert {"python", "torch", "transformers", "trl", "peft"} <= set(made["versions"])
    assert made["hardware"]["cores"] >= 1 and 0.1 < made["hardware"]["memory_gib"] < 1e5
    untrained = write_recipe("base", train=None, lora=None, data=None, chat={"system": ""})
    assert record.start_record("b", load_recipe(untrained, ["eval.seed=9"]))["seed"] == 9


def test_a_record_written_is_the_record_read(tmp_path, write_recipe):
    made = record.start_record("small", load_recipe(write_recipe()))
    path = record.write_record(made, tmp_path / "runs")
    assert path == tmp_path / "runs" / "small.json"
    assert record.read_record("small", tmp_path / "runs") == json.loads(json.dumps(made))
    assert record.read_record("other", tmp_path / "runs") is None


def test_a_record_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = record.write_record({"run": "a", "loss": 1.0}, tmp_path)
    with pytest.raises(TypeError):
        record.write_record({"run": "a", "loss": object()}, tmp_path)
    assert record.read_record("a", tmp_path) == {"run": "a", "loss": 1.0}
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_record_is_told_with_those_there_are(tmp_path):
    for run in ("b", "a"):
        record.write_record({"run": run}, tmp_path)
    assert record.need_record("a", tmp_path) == {"run": "a"}
    with pytest.raises(RecipeError) as caught:
        record.need_record("c", tmp_path)
    assert str(caught.value) == f"no record {tmp_path}/c.json; records there: a, b"
    with pytest.raises(RecipeError, match="records there: none"):
        record.need_record("c", tmp_path / "empty")


def numbers(per_problem: str, task_hash: str = "t") -> dict:
    return {"per_problem": per_problem, "task_hash": task_hash}


def test_the_paired_difference_takes_problems_judged_in_both():
    found = record.difference(numbers("0 0 1 - 1"), numbers("1 0.5 1 1 -"))
    assert found["n"] == 3
    assert found["difference"] == pytest.approx((1 + 0.5 + 0) / 3)
    low, high = found["interval"]
    assert low <= found["difference"] <= high
    with pytest.raises(RecipeError, match="answered different problems"):
        record.difference(numbers("0 1"), numbers("0 1", "u"))


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """An own git tree with one commit; git(...) runs in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))

    def git(*arguments: str) -> str:
        who = ["-c", "user.name=n", "-c", "user.email=e@x", "-c", "commit.gpgsign=false"]
        done = subprocess.run(["git", *who, *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    git("init", "-q")
    (tmp_path / "results").mkdir()
    for name in ("code.py", "results/table.md"):
        (tmp_path / name).write_text("one\n", encoding="utf-8")
    git("add", ".")
    git("commit", "-qm", "first")
    return git


needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


@needs_git
def test_a_clean_tree_is_its_commit_and_results_do_not_make_it_dirty(tree, tmp_path):
    head = tree("rev-parse", "HEAD")
    assert record.read_commit() == (head, False)
    (tmp_path / "results/table.md").write_text("two\n", encoding="utf-8")
    (tmp_path / "untracked.txt").write_text("x", encoding="utf-8")
    assert record.read_commit() == (head, False)
    (tmp_path / "code.py").write_text("two\n", encoding="utf-8")
    assert record.read_commit() == (head, True)


def test_a_tree_without_git_is_dirty(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert record.read_commit() == ("no git", True)
    monkeypatch.setenv("PATH", str(tmp_path))  # no git program at all
    assert record.read_commit() == ("no git", True)


def test_a_key_younger_than_the_record_had_its_default(tmp_path, monkeypatch, write_recipe):
    path = write_recipe()
    monkeypatch.chdir(tmp_path)
    made = record.start_record("small", load_recipe(path))
    made["train"] = {}
    del made["recipe"]["model"]["load_in_fp8"], made["recipe"]["train"]["unchecked_layers"]
    record.write_record(made)
    assert record.open_record("small", "small", load_recipe(path))["train"] == {}
    with pytest.raises(RecipeError, match="section 'train' differs from the one small was trained"):
        record.open_record("small", "small", load_recipe(path, ["train.adam_beta2=0.9"]))

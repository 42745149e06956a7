"""Every command and path the documents name is there to be run."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "data_prep/README.md", "results/README.md"]
MADE = {"recipes/mine.yaml"}  # by the reader, with the `cp` command above its use
PRODUCTS = ("outputs/", "data/")  # by the commands themselves


def commands() -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    lines = [line.partition("#")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


def test_readme_has_its_commands():
    assert len(commands()) >= 10
    assert commands()[:2] == ["make rehearsal", "make test"]


@pytest.mark.parametrize("command", commands())
def test_command_names_things_that_exist(command):
    words = shlex.split(command)
    if words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert words[1] in targets
        return
    if words[:2] == ["python", "-m"]:
        assert (ROOT / (words[2].replace(".", "/") + ".py")).exists(), words[2]
    for word in words[1:]:
        path = word.partition("=")[2] if "=" in word else word
        if "/" in path and not path.startswith(PRODUCTS) and path not in MADE and path[0] != ".":
            assert (ROOT / path).exists(), f"{path} in: {command}"
        if path.endswith(".py"):
            assert (ROOT / path).exists(), path


@pytest.mark.parametrize("door", ["train.py", "eval.py", "eval.py score", "eval.py compare"])
def test_flags_in_readme_are_the_doors_flags(door):
    script, *words = door.split()
    done = subprocess.run(
        [sys.executable, script, *words, "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0
    for command in commands():
        if command.startswith(f"python {door} ") or f" {door} " in command:
            if door == "eval.py" and shlex.split(command)[2] in ("score", "compare"):
                continue
            for flag in re.findall(r"--[a-z-]+", command.partition(script)[2]):
                assert flag in done.stdout, f"{flag} in: {command}"


@pytest.mark.parametrize("page", PAGES)
def test_paths_in_documents_exist(page):
    text = (ROOT / page).read_text()
    quoted = re.findall(r"`([^`\s]+)`|\]\(([^)\s]+)\)", text)
    paths = {a or b for a, b in quoted}
    missing = [
        path
        for path in paths
        if re.fullmatch(r"[\w./-]+\.(py|yaml|md|sh|txt|svg|json)", path)
        and "<" not in path
        and not path.startswith(PRODUCTS)
        and path not in MADE
        and not any(
            (base / path).exists()
            for base in (ROOT, ROOT / "data_prep", ROOT / "tests", ROOT / "results")
        )
        and not path.startswith(("train.", "validation.", "test.", "manifest.", "data_card."))
    ]
    assert missing == []


def test_recipe_table_lists_every_recipe():
    table = (ROOT / "README.md").read_text().partition("## Recipes")[2]
    named = set(re.findall(r"`(\w+)`", table))
    recipes = {path.stem for path in (ROOT / "recipes").glob("*.yaml")}
    assert recipes - named == set()


def test_no_placeholder_left():
    for page in PAGES:
        found = re.findall(r"\b(?:[A-Z]+_TABLE|REHEARSAL_[A-Z]+)\b", (ROOT / page).read_text())
        assert found == [], page

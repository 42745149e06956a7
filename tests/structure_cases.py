"""For tests of data_prep.structure: training rows in every form, and the command run in process."""

import sys
from pathlib import Path

from conftest import ROOT, sharegpt, thought
from perturb_cases import STEPS

from data_prep import structure
from longcot import rows

TOKENIZER = str(ROOT / "data_prep/rehearsal_base")


def question(number: int) -> str:
    return f"How many apples are in {number} baskets of {number % 7 + 2}?"


def reply(number: int, answer: int | None = None) -> str:
    steps = [text.replace("58", str(number)) for text in STEPS[: 3 + number % 4]]
    steps += [f"So {number} baskets it is."] * (number % 3)
    boxed = number if answer is None else answer
    return thought("\n\n" + "\n\n".join(steps) + "\n\n", f"\n\nIt is \\boxed{{{boxed}}}.\n\n")


def right_row(number: int) -> dict:
    columns = {"id": f"r{number}", "source": "apples", "answer": str(number), "system": "Think."}
    written = {
        "solution": f"There are {number} of them, counted basket by basket and added up: \\boxed{{{number}}}."
    }
    return sharegpt(question(number), reply(number), **columns, **written)


def wrong_row(number: int) -> dict:
    return sharegpt(
        question(number), reply(number, number + 1), id=f"w{number}", answer=str(number)
    )


def write(path: Path, found) -> str:
    rows.write_jsonl(path, found)
    return str(path)


def run(monkeypatch, *words: object) -> None:
    """The command itself, in this process."""
    monkeypatch.setattr(sys, "argv", ["structure", *map(str, words)])
    structure.main()


def read(folder: Path, name: str) -> dict[str, dict]:
    return {row["id"]: row for _, row in rows.read_jsonl(folder / f"{name}.jsonl")}


def last(row: dict) -> str:
    return row["conversations"][-1]["value"]


def formats(manifest: dict) -> dict[str, str]:
    return {name: entry["chat.format"] for name, entry in manifest["conditions"].items()}

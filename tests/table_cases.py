"""For tests of the pages under results/: records made by hand, and a page's table read back."""

import json
from pathlib import Path

import yaml

from results import tables

STUDENT = "Qwen/Qwen2.5-32B-Instruct"
SIZES = {"math500": 500, "aime24": 30, "amc23": 40, "olympiadbench": 674}


def published() -> dict:
    return yaml.safe_load((tables.RESULTS / "published.yaml").read_text(encoding="utf-8"))


def numbers(shares: str, task_hash: str = "h", **more) -> dict:
    values = [float(s) for s in shares.split() if s != "-"]
    return {
        "accuracy": sum(values) / len(values), "interval": [0.1, 0.9], "n": len(values),
        "samples": len(values), "mean_tokens": 12.0, "statuses": {"ran_out_of_tokens": 0.25},
        "per_problem": shares, "task_hash": task_hash,
    } | more  # fmt: skip


def made(run: str, tasks: dict, **changes) -> dict:
    found = {
        "run": run, "commit": "0123456789abcdef", "dirty": False, "eval": tasks,
        "hardware": {"cores": 2, "machine": "x86_64", "memory_gib": 24.0},
        "versions": {"torch": "1", "transformers": "2", "trl": "3", "peft": "4"},
        "recipe": {"model": {"model_name_or_path": STUDENT}, "eval": {"limit": None}},
    }  # fmt: skip
    return found | changes


def write(runs: Path, run: str, tasks: dict, **changes) -> None:
    runs.mkdir(parents=True, exist_ok=True)
    (runs / f"{run}.json").write_text(json.dumps(made(run, tasks, **changes)))


def whole(wrong: dict[str, int] | None = None, **more) -> dict:
    """All four benchmarks, every problem right but the first few of some."""
    wrong = wrong or {}
    return {
        task: numbers(" ".join(["0"] * wrong.get(task, 0) + ["1"] * (n - wrong.get(task, 0))),
                      task, **more)
        for task, n in SIZES.items()
    }  # fmt: skip


def read_line(text: str, start: str) -> list[str]:
    """The cells of the one line of a table whose first cell begins so."""
    lines = [line for line in text.splitlines() if line.startswith(f"| {start}")]
    assert len(lines) == 1, (start, lines)
    return lines[0].strip("| ").split(" | ")


def widths_agree(text: str) -> bool:
    """Whether every line of each table has as many cells as its head."""
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    return bool(blocks) and all(len({line.count("|") for line in block}) == 1 for block in blocks)

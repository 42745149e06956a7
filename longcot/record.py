"""The record of a run, `results/runs/<run>.json`: what was run, on what, and what came out.

No record, no row: every table and figure under results/ is generated from these files.
"""

import os
import platform
import subprocess
from dataclasses import MISSING, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from longcot import metrics, rows
from longcot.errors import RecipeError
from longcot.recipe import Recipe, resolved

RUNS = Path("results/runs")
PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "bitsandbytes",
            "liger-kernel", "math-verify", "flash-attn", "vllm")  # fmt: skip


def start_record(run: str, recipe: Recipe) -> dict[str, Any]:
    """A record without results: run, resolved recipe, commit, versions, hardware, seed."""
    commit, dirty = read_commit()
    return {
        "run": run,
        "recipe": resolved(recipe),
        "overrides": list(recipe.overrides),
        "commit": commit,
        "dirty": dirty,
        "versions": read_versions(),
        "hardware": read_hardware(),
        "hashes": {},
        "seed": recipe.train.seed if recipe.train else recipe.eval.seed,
    }


def write_record(record: dict[str, Any], folder: Path = RUNS) -> Path:
    """Write a record under its run's name, atomically; returns the path."""
    path = folder / f"{record['run']}.json"
    rows.write_json(path, record)
    return path


def read_record(run: str, folder: Path = RUNS) -> dict[str, Any] | None:
    """The record of `run`, or None if there is none."""
    path = folder / f"{run}.json"
    return rows.read_json(path) if path.exists() else None


def need_record(run: str, folder: Path = RUNS) -> dict[str, Any]:
    """The record of `run`; raises RecipeError listing what there is when there is none."""
    found = read_record(run, folder)
    if found is None:
        known = ", ".join(sorted(path.stem for path in folder.glob("*.json"))) or "none"
        raise RecipeError(f"no record {folder}/{run}.json; records there: {known}")
    return found


def open_record(name: str, trained: str, recipe: Recipe) -> dict[str, Any]:
    """The record `trained` left by training, if it was made with this recipe, under the run's `name`
    and with who evaluates it; a fresh one for an untrained row. Raises RecipeError otherwise."""
    fresh = start_record(name, recipe)
    if engine := (read_record(name) or {}).get("engine"):
        fresh["engine"] = engine  # told again only if the server has to be started again
    if recipe.train is None:
        return fresh
    found = read_record(trained)
    if found is None:
        raise RecipeError(f"no record of {trained}; run train.py {recipe.path} first")
    check_trained(trained, found, recipe)
    machine = ("commit", "dirty", "versions", "hardware")  # top level: of training
    kept = {key: found[key] for key in ("train", "hashes", *machine)}
    return {**fresh, **kept, "evaluated": {key: fresh[key] for key in machine}}


def check_trained(trained: str, found: dict[str, Any], recipe: Recipe) -> None:
    """Raise RecipeError where the record `found` of `trained` was made by another training recipe."""
    for section, values in resolved(recipe).items():
        before = {**defaults(recipe, section), **found["recipe"].get(section, {})}
        now = rows.as_json(values)
        if section == "chat" and before.get("system") == "from_data":
            now["system"] = before["system"]  # a system prompt chosen for evaluation is no conflict
        if section != "eval" and before != now:
            raise RecipeError(
                f"{recipe.path}: section {section!r} differs from the one {trained} was trained with "
                f"({before}); give train.py and eval.py the same overrides"
            )


def defaults(recipe: Recipe, section: str) -> dict[str, Any]:
    """What keys mean that a record does not hold because they came after it."""
    of = fields(getattr(recipe, section))
    return rows.as_json({key.name: key.default for key in of if key.default is not MISSING})


def check_comparable(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """The tasks two records share; raises RecipeError where prompt, sampling or token limit differ."""
    for found in (a, b):
        if not found.get("eval"):
            raise RecipeError(
                f"compare: run {found['run']} was trained, not scored; run eval.py first"
            )
    for key in ("max_new_tokens", "temperature", "top_p", "n"):
        one, other = a["recipe"]["eval"][key], b["recipe"]["eval"][key]
        if one != other:
            raise RecipeError(f"compare: eval.{key} differs, {one} against {other}; not comparable")
    if a["hashes"]["prompt"] != b["hashes"]["prompt"]:
        raise RecipeError("compare: the two runs were asked with different prompts (hashes.prompt)")
    shared = [task for task in a["eval"] if task in b["eval"]]
    if not shared:
        raise RecipeError(
            f"compare: no task in common; {list(a['eval'])} against {list(b['eval'])}"
        )
    return shared


def difference(a: dict[str, Any], b: dict[str, Any], level: float = 0.95) -> dict[str, Any]:
    """Paired difference b - a of one task's numbers: {difference, interval, n, ...}.

    Raises RecipeError when the two were not asked the same problems.
    """
    if a["task_hash"] != b["task_hash"]:
        raise RecipeError("the two runs answered different problems (task_hash); not comparable")
    shares = [enumerate(numbers["per_problem"].split()) for numbers in (a, b)]
    one, other = ({i: float(s) for i, s in side if s != "-"} for side in shares)
    common = one.keys() & other.keys()
    return metrics.paired_difference(
        {i: one[i] for i in sorted(common)}, {i: other[i] for i in sorted(common)}, level
    )


def read_commit() -> tuple[str, bool]:
    """(commit, dirty); a tree without git counts as dirty, because nobody could get it back.

    Files under results/ are products of runs and do not make a tree dirty.
    """
    head = _git("rev-parse", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!results")
    return (head, bool(changed)) if head else ("no git", True)


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:  # git is not installed
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def read_versions() -> dict[str, str]:
    """Python's version and that of every package that can move a number."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def count_cores() -> int:
    """Cores this process may use (all of them where the system does not tell)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def read_hardware() -> dict[str, Any]:
    """Processor, cores, memory in GiB, and GPUs by name with their memory."""
    hardware: dict[str, Any] = {
        "machine": platform.machine(),
        "cores": count_cores(),
    }
    hardware["memory_gib"] = round(
        os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1
    )
    import torch

    hardware["gpus"] = [
        {"name": properties.name, "memory_gib": round(properties.total_memory / 2**30, 1)}
        for properties in map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    ]
    return hardware

"""Tokens per second side by side: ours, plain TRL, TRL at its best, Unsloth where it is installed.

python -m results.throughput                 on one GPU: cuts of 4 and 12 layers, then all 64, in 9 minutes
python -m results.throughput --layers 4,12   the cuts alone; --full adds all layers
python -m results.throughput recipes/rehearsal.yaml --layers 2,4 train.gradient_checkpointing=true
python -m results.throughput --page          results/throughput.md from the records; --check: is it stale

Weights are random, at the recipe's shapes; rows are packed once and the same for all. Every contender
is a process of its own and leaves results/throughput/<device>-<contender>-<layers>.json, what could
not run too. Rivals run the first recipe whose base they can train (no FP8).
"""

import argparse
import importlib.util
import os
import shlex
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from longcot import record, rows
from longcot.errors import LaunchError, RecipeError, plainly
from longcot.recipe import Recipe, load_recipe
from longcot.shapes import read_shapes
from results import figures
from results.throughput_page import PAGE, RECIPES, page, read_records

RESULTS = Path(__file__).parent
RECORDS = RESULTS / "throughput"
WORK = Path("outputs/throughput")
CUTS = "4,12"
RIVALS = ("trl_best", "trl_plain", "unsloth")
# Seconds a contender costs besides its steps: imports and compiling, until one has told; its weights.
STARTUP, LAYER = 40.0, 0.25
LEAST = 5  # steps: speed.WARM_UP and the two that a spread needs
LATE = 20.0  # after its deadline a child that still runs is ended


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m results.throughput",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    add = parser.add_argument
    add("words", nargs="*", metavar="RECIPE.yaml or section.key=value",
        help=f"default: {' '.join(RECIPES)}")  # fmt: skip
    add("--layers", help=f"cuts to measure; default: {CUTS}, then the whole model")
    add("--full", action="store_true", help="the whole model after the cuts of --layers")
    add("--contenders", help=f"only these, of ours, {', '.join(RIVALS)}")
    add("--steps", type=int, default=6, help="timed steps, after 3 that are not (default 6)")
    add("--budget", type=float, default=540.0, help="seconds for everything (default 540)")
    add("--records", type=Path, default=RECORDS, help=argparse.SUPPRESS)
    add("--work", type=Path, default=WORK, help=argparse.SUPPRESS)
    add("--page", action="store_true", help="measure nothing, write the page")
    add("--check", action="store_true", help="measure nothing; exit 1 if the page is stale")
    add("--child", type=Path, help=argparse.SUPPRESS)
    return parser.parse_intermixed_args()


def main() -> None:
    began = time.time()
    arguments = read_arguments()
    if arguments.child:
        run_child(rows.read_json(arguments.child))
        return
    if not arguments.page and not arguments.check:
        measure_all(arguments, began)
    written, made = arguments.records.parent / PAGE, page(read_records(arguments.records))
    if arguments.check:
        if not written.exists() or written.read_text(encoding="utf-8") != made:
            sys.exit(f"error: {written} is stale; run python -m results.throughput --page")
        return
    rows.write_atomic(written, lambda path: path.write_text(made, encoding="utf-8"))
    print(f"written: {written}")


def run_child(job: dict[str, Any]) -> None:
    """One contender, or the preparation, in this process."""
    if job["contender"] == "unsloth":
        importlib.import_module("unsloth")  # changes TRL and transformers, so it comes first
    from results import rivals

    (rivals.prepare if job["contender"] == "prepare" else rivals.measure)(job)


# ---- the parent process


def measure_all(arguments: argparse.Namespace, began: float) -> None:
    """Run every contender that fits the budget; each leaves its record as soon as it is done."""
    overrides = [word for word in arguments.words if "=" in word]
    names = [word for word in arguments.words if "=" not in word] or list(RECIPES)
    recipes = [load_recipe(name, overrides) for name in names]
    check(recipes, arguments)
    end = began + arguments.budget
    prepared = prepare(recipes[0], arguments, end)
    card = figures.find_card(prepared["device"])
    work, failed, startup = arguments.work, [], STARTUP
    for contender, recipe, layers in contenders(recipes, arguments):
        name = f"{figures.slug(prepared['device'])}-{contender}-{layers}"
        path = arguments.records / f"{name}.json"
        entry = start_entry(contender, recipe, layers, prepared["device"])
        if missing := find_missing(contender, recipe):
            entry |= {"status": "not installed", "reason": f"{', '.join(missing)} not installed"}
        elif (left := end - time.time()) < (
            least := startup + least_seconds(contender, recipe, layers, card)
        ):
            told = f"wants about {least:.0f} s, {max(0, left):.0f} s of the budget were left"
            entry |= {"status": "skipped", "reason": told}
        else:
            job = {
                "contender": contender, "recipe": recipe.path, "overrides": recipe.overrides,
                "layers": layers, "rows": str(work / "rows.jsonl"), "folder": str(work / name),
                "prepared": str(work / "prepared.json"), "record": str(work / f"{name}.json"),
                "deadline": end, "entry": entry,
            }  # fmt: skip
            entry = run_job(job, work / f"{name}.log", end) or rows.read_json(job["record"])
            if entry["status"] == "measured":  # how long it takes here before the first step
                steps = entry["steps"] + entry["warm_up"]
                startup = left - (end - time.time()) - steps * entry["seconds"][1]
        keep(path, entry)
        failed += [name] if entry["status"] == "failed" else []
        print(f"{name}: {line(entry)}", flush=True)
    if failed:
        print(f"failed: {', '.join(failed)}; logs in {work}", file=sys.stderr)


def check(recipes: list[Recipe], arguments: argparse.Namespace) -> None:
    """Raise RecipeError for recipes that cannot share rows, or a measurement that makes no sense."""
    for recipe in recipes:
        if recipe.train is None or recipe.lora is None or not recipe.data.packing:
            raise RecipeError(
                f"{recipe.path}: contenders train adapters on packed rows; a recipe with a lora and a "
                "train section and data.packing=true is wanted"
            )
    shared = {
        (r.data.max_length, read_shapes(r.model).vocabulary, r.train.use_cpu) for r in recipes
    }
    if len(shared) > 1:
        raise RecipeError(
            "recipes side by side must agree in data.max_length, vocabulary and train.use_cpu"
        )
    if arguments.steps < 2:
        raise RecipeError(f"--steps {arguments.steps}: at least 2, to tell their spread")


def contenders(
    recipes: list[Recipe], arguments: argparse.Namespace
) -> list[tuple[str, Recipe, int]]:
    """(contender, recipe, layers) in the order of their worth: small cuts first, ours first."""
    wanted = arguments.contenders.split(",") if arguments.contenders else ["ours", *RIVALS]
    if unknown := set(wanted) - {"ours", *RIVALS}:
        raise RecipeError(f"--contenders: {', '.join(sorted(unknown))} unknown")
    cuts = [int(n) if n.isdigit() else 0 for n in (arguments.layers or CUTS).split(",")]
    whole = [0] if arguments.full or not arguments.layers else []
    trainable = [recipe for recipe in recipes if not recipe.model.load_in_fp8][:1]
    found = []
    for cut in [*cuts, *whole]:
        pairs = [(f"ours_{r.name}", r) for r in recipes if "ours" in wanted]
        pairs += [(rival, r) for r in trainable for rival in RIVALS if rival in wanted]
        for contender, recipe in pairs:
            most = read_shapes(recipe.model).layers
            if not (0 < cut <= most or cut in whole):
                raise RecipeError(f"--layers {arguments.layers}: 1 to {most}, as {recipe.path} has")
            found.append((contender, recipe, cut or most))
    return list(dict.fromkeys(found))


def prepare(recipe: Recipe, arguments: argparse.Namespace, end: float) -> dict[str, Any]:
    """Rows and ceilings, made in a child: this process never holds the GPU."""
    if missing := absent(["trl", "datasets", "peft"]):
        raise LaunchError(f"{', '.join(missing)} not installed, so no contender can run")
    path = arguments.work / "prepared.json"
    path.unlink(missing_ok=True)
    job = {
        "contender": "prepare", "recipe": recipe.path, "overrides": recipe.overrides,
        "steps": arguments.steps, "rows": str(arguments.work / "rows.jsonl"), "record": str(path),
    }  # fmt: skip
    failure = run_job(job, arguments.work / "prepare.log", end)
    if not path.exists():
        raise LaunchError(f"rows and ceilings: {failure['reason'] if failure else 'no file'}")
    if failure:
        print(f"ceilings in part: {failure['reason']}", file=sys.stderr)
    return rows.read_json(path)


def run_job(job: dict[str, Any], log: Path, end: float) -> dict[str, Any] | None:
    """Run a child to its end; None, or the entry of a failure with the reason its log gives."""
    file = log.with_suffix(".job.json")
    rows.write_json(file, job)
    command = [sys.executable, "-m", "results.throughput", "--child", str(file)]
    with log.open("w", encoding="utf-8") as stream:
        try:
            code = subprocess.run(
                command, stdout=stream, stderr=subprocess.STDOUT, check=False,
                env={"CUDA_VISIBLE_DEVICES": "0", **os.environ},
                timeout=max(1.0, end + LATE - time.time()),
            ).returncode  # fmt: skip
        except subprocess.TimeoutExpired:
            return {**job.get("entry", {}), "status": "failed", "reason": "ran past the budget"}
    if code == 0:
        return None
    lines = [text for text in log.read_text(encoding="utf-8").splitlines() if text.strip()]
    told = lines[-1].removeprefix("error: ") if lines else "no output"
    reason = told if code > 0 else f"killed by signal {-code} ({told})"
    return {**job.get("entry", {}), "status": "failed", "reason": reason}


def start_entry(contender: str, recipe: Recipe, layers: int, device: str) -> dict[str, Any]:
    """The part of a record that is known before anything runs."""
    commit, dirty = record.read_commit()
    return {
        "contender": contender,
        "layers": layers,
        "recipe": recipe.path,
        "overrides": list(recipe.overrides),
        "device": device,
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": shlex.join(["python", "-m", "results.throughput", *sys.argv[1:]]),
        "commit": commit,
        "dirty": dirty,
        "versions": record.read_versions(),
        "reason": None,
    }


def find_missing(contender: str, recipe: Recipe) -> list[str]:
    """Packages that a contender needs and this machine has not."""
    needs, on_gpu = ["trl", "datasets", "peft"], not recipe.train.use_cpu
    best = contender == "trl_best" and on_gpu
    of_ours = contender.startswith("ours")
    eight_bit = best or (of_ours and "8bit" in recipe.train.optim)
    needs += ["bitsandbytes"] * (recipe.model.load_in_4bit or eight_bit)
    needs += ["liger_kernel"] * (best or (of_ours and recipe.train.use_liger_kernel))
    needs += ["unsloth"] * (contender == "unsloth")
    return absent(needs)


def absent(packages: list[str]) -> list[str]:
    """Those that cannot be imported here."""
    return [package for package in packages if not importlib.util.find_spec(package)]


def least_seconds(contender: str, recipe: Recipe, layers: int, card: Any) -> float:
    """What a contender takes at least once it is up, by the plan's prediction and a fifth."""
    shapes = replace(read_shapes(recipe.model), layers=layers)
    setup = figures.setup_for(contender, recipe, shapes)
    rate = figures.predict(shapes, setup, setup.row / 2, card)["tokens_per_second"]
    return LAYER * layers + LEAST * 1.2 * (setup.row / rate if rate else 0.0)


def keep(path: Path, entry: dict[str, Any]) -> None:
    """Write a record, but no failure or gap over figures that were measured before."""
    known = path.exists() and rows.read_json(path)["status"] == "measured"
    if entry["status"] == "measured" or not known:
        rows.write_json(path, entry)


def line(entry: dict[str, Any]) -> str:
    """A record in one line."""
    if entry["status"] != "measured":
        return f"{entry['status']}: {entry['reason']}"
    low, middle, high = entry["seconds"]
    peak = f", peak {entry['peak_bytes'] / 1e9:.1f} GB" if entry["peak_bytes"] else ""
    return (
        f"{entry['tokens_per_second']:,.0f} tokens/s, {middle:.3f} s a step [{low:.3f}, {high:.3f}], "
        f"MFU {entry['mfu']:.1%}, HFU {entry['hfu']:.1%}{peak}"
    )


if __name__ == "__main__":
    with plainly():
        main()

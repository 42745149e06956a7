"""Train and score one recipe on every condition of prepared folders; results/structure.sh calls it.

python -m results.sweep RECIPE FOLDER...            folders of data_prep.structure, each with its manifest
python -m results.sweep RECIPE FOLDER... --plan     steps, hours and cost of each run and of all; run nothing

A run is named <recipe>_<condition>, and _s<k> behind it for a folder s<k>, whose k is also its seed.
What is scored in this checkout is skipped; what was cut off goes on where it was. Runs are shared out
over slots: on GPUs a slot is a set of devices ("0,1,2,3"), on CPU one core.
"""

import argparse
import ctypes
import json
import os
import queue
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from longcot import record, rows
from longcot.errors import LaunchError, RecipeError, RowError, plainly
from longcot.recipe import Recipe, load_recipe
from longcot.serving import PR_SET_PDEATHSIG

OUTPUTS = Path("outputs")
LOGS = OUTPUTS / "logs"
prctl = ctypes.CDLL(None).prctl


@dataclass(frozen=True)
class Job:
    """One run: its name, the overrides that set it apart, and the arguments of both doors."""

    name: str
    recipe: str
    overrides: tuple[str, ...]

    def door(self, script: str, *more: str) -> list[str]:
        return [script, self.recipe, *self.overrides, "--run-name", self.name, *more]


def list_jobs(recipe: Recipe, folders: list[Path], only: list[str], extra: list[str]) -> list[Job]:
    """Every run of the sweep, a condition's seeds one after another.

    Raises RowError for a folder without manifest, RecipeError for a condition none of them holds.
    """
    manifests = {
        folder: rows.read_json(folder / "manifest.json")["conditions"] for folder in folders
    }
    names = list(dict.fromkeys(name for made in manifests.values() for name in made))
    if missing := [name for name in only if name not in names]:
        raise RecipeError(f"--only {missing[0]}: prepared are {', '.join(names)}")
    jobs = []
    for name in only or names:
        for folder, made in manifests.items():
            if name not in made:
                raise RowError(
                    f"{folder}/manifest.json: no condition {name}; prepare it, or use --only"
                )
            path = folder / f"{name}.jsonl"
            overrides = [f"data.path={path}", *extra]
            if made[name]["chat.format"] != recipe.chat.format:
                overrides.append(f"chat.format={made[name]['chat.format']}")
            run = f"{recipe.name}_{name}"
            if seed := re.fullmatch(r"s(\d+)", folder.name):
                run, overrides = f"{run}_{folder.name}", [*overrides, f"train.seed={seed[1]}"]
            jobs.append(Job(run, str(recipe.path), tuple(overrides)))
    return jobs


# ---- the plan


def print_plan(jobs: list[Job], options: list[str]) -> None:
    """Each run's own plan and their sum; generation is not in it."""
    print("| run | steps | M tokens | GPU-hours | cost |\n|---|---|---|---|---|")
    sums = {"total": 0, "tokens": 0.0, "gpu_hours": 0.0, "cost": 0.0}
    for job in jobs:
        command = [
            sys.executable,
            "train.py",
            job.recipe,
            *job.overrides,
            "--plan",
            "--json",
            *options,
        ]
        told = subprocess.run(command, capture_output=True, text=True)
        if told.returncode:
            raise LaunchError(f"{job.name}: {told.stderr.strip() or told.stdout.strip()}")
        plan = json.loads(told.stdout)
        found = {**plan, **plan["steps"]}
        for key in sums:
            sums[key] = None if None in (sums[key], found.get(key)) else sums[key] + found[key]
        print(plan_row(job.name, found), flush=True)
    print(plan_row(f"all {len(jobs)}", sums))
    print("Training alone; the hours are the plan's prediction (train.py --plan tells how).")


def plan_row(name: str, found: dict) -> str:
    hours, cost = found.get("gpu_hours"), found.get("cost")
    told = [
        "not predicted" if hours is None else f"{hours:.1f}",
        "-" if cost is None else f"{cost:.0f}",
    ]
    return f"| {name} | {found['total']:,} | {found['tokens'] / 1e6:.1f} | {' | '.join(told)} |"


# ---- the walk


def is_scored(job: Job) -> bool:
    """Whether this checkout made the run; a record that came with the clone does not count.

    Raises LaunchError where the run was trained on other rows, RecipeError where by other keys.
    """
    output, found = OUTPUTS / job.name, record.read_record(job.name)
    if not found or not (output / "model").exists():
        return False
    recipe = load_recipe(job.recipe, list(job.overrides))
    record.check_trained(job.name, found, recipe)
    if found["hashes"].get("data") != rows.hash_source(recipe.data.path, recipe.data.revision):
        raise LaunchError(
            f"{output} was trained on other rows than {recipe.data.path} holds now; remove it, or keep "
            "it under another name"
        )
    return bool(found.get("eval") and (output / "verdicts").exists())


def walk(jobs: list[Job], slots: list[dict[str, str]], launch: list[str]) -> list[str]:
    """Run every job, one at a time in each slot (its environment); returns the names that failed.

    A slot gives up after two failures in a row, so that a broken machine does not fail every run.
    """
    waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
    for job in jobs:
        waiting.put(job)
    failed: list[str] = []
    finished, started = [0], time.monotonic()
    LOGS.mkdir(parents=True, exist_ok=True)
    lock = threading.Lock()

    def work(slot: dict[str, str]) -> None:
        failures = 0
        while failures < 2 and (job := take(waiting)):
            told = train_and_score(job, slot, launch)
            with lock:
                finished[0] += 1
                minutes = (time.monotonic() - started) / 60
                print(
                    f"{finished[0]}/{len(jobs)}  {minutes:5.1f} min  {job.name}: {told}", flush=True
                )
                failures = failures + 1 if told.startswith("FAILED") else 0
                if failures:
                    failed.append(job.name)

    threads = [threading.Thread(target=work, args=(slot,)) for slot in slots]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except KeyboardInterrupt:  # the children had it too and save; nothing further is begun
        while take(waiting):
            pass
        for thread in threads:
            thread.join()
        raise
    while job := take(waiting):
        failed.append(f"{job.name} (not begun)")
    return failed


def take(waiting: "queue.SimpleQueue[Job]") -> Job | None:
    try:
        return waiting.get_nowait()
    except queue.Empty:
        return None


def train_and_score(job: Job, slot: dict[str, str], launch: list[str]) -> str:
    """Both doors as child processes, their output in outputs/logs/<run>.log; returns one line."""
    with (LOGS / f"{job.name}.log").open("w", encoding="utf-8") as log:
        for command in commands(job, for_slot(launch, slot)):
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **slot},
                # SIGTERM, at which train.py saves, when this sweep ends, however it ends.
                preexec_fn=partial(prctl, PR_SET_PDEATHSIG, signal.SIGTERM),
            )
            if done.returncode:
                return f"FAILED with {done.returncode}, {shlex.join(command[:3])}; {LOGS}/{job.name}.log"
    found = record.need_record(job.name)
    return ", ".join(f"{task} {numbers['accuracy']:.1%}" for task, numbers in found["eval"].items())


def for_slot(launch: list[str], slot: dict[str, str]) -> list[str]:
    """accelerate with as many processes as the slot has GPUs, and a port of its own beside others."""
    if Path(launch[0]).name != "accelerate" or "CUDA_VISIBLE_DEVICES" not in slot:
        return launch
    count = len(slot["CUDA_VISIBLE_DEVICES"].split(","))
    return [*launch, "--num_processes", str(count), "--main_process_port", "0"]


def commands(job: Job, launch: list[str]) -> list[list[str]]:
    """What is still to be run: training anew or from its newest checkpoint, then scoring."""
    output = OUTPUTS / job.name
    scoring = [sys.executable, *job.door("eval.py")]
    if (output / "model").exists():
        return [scoring]
    resume: list[str] = []
    if output.exists():
        from longcot.callbacks import newest_checkpoint

        if newest_checkpoint(output):
            resume = ["--resume"]
        else:
            shutil.rmtree(output)  # killed before its first checkpoint: nothing to go on from
    return [[*launch, *job.door("train.py", *resume)], scoring]


def read_slots(recipe: Recipe, asked: list[str]) -> list[dict[str, str]]:
    """The environment of each slot: a set of GPUs; on CPU one core, for the models there are small."""
    if recipe.train and recipe.train.use_cpu:
        return [{"OMP_NUM_THREADS": "1"}] * (len(asked) or record.count_cores())
    return [{"CUDA_VISIBLE_DEVICES": devices} for devices in asked] or [{}]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe")
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--only", type=lambda text: text.split(","), default=[], help="conditions")
    parser.add_argument("--set", action="append", default=[], metavar="section.key=value")
    parser.add_argument("--slots", nargs="*", default=[], metavar="GPUS", help="0,1,2,3 4,5,6,7")
    parser.add_argument("--launch", default=sys.executable, help="what starts train.py")
    parser.add_argument(
        "--plan", action="store_true", help="print the sweep's hours and cost; stop"
    )
    parser.add_argument("--price", help="of --plan: dollars a GPU-hour")
    parser.add_argument("--gpus", help="of --plan: how many, or an accelerate configuration")
    arguments = parser.parse_args()
    recipe = load_recipe(arguments.recipe, arguments.set)
    jobs = list_jobs(recipe, arguments.folders, arguments.only, arguments.set)
    if arguments.plan:
        options = [(f"--{name}", getattr(arguments, name)) for name in ("price", "gpus")]
        print_plan(jobs, [word for pair in options if pair[1] for word in pair])
        return
    waiting = [job for job in jobs if not is_scored(job)]
    print(f"{len(jobs)} runs, {len(jobs) - len(waiting)} of them scored already")
    failed = walk(waiting, read_slots(recipe, arguments.slots), shlex.split(arguments.launch))
    if failed:
        raise LaunchError(f"{len(failed)} of {len(jobs)} runs failed: {', '.join(failed)}")


if __name__ == "__main__":
    with plainly():
        main()

"""results/sweep.py: which runs, in what order, resumed how; the doors are played by small programs."""

import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from longcot import errors, record
from longcot.recipe import load_recipe
from results import sweep

ROOT = Path(__file__).parents[1]
TWIN = ROOT / "recipes" / "rehearsal_structure.yaml"
DOOR = """
import json, pathlib, sys
door, name = sys.argv[0], sys.argv[sys.argv.index("--run-name") + 1]
with open("calls.txt", "a") as calls:
    calls.write(json.dumps(sys.argv) + "\\n")
if name == "FAILS" and door == "train.py":
    sys.exit("no memory left")
output = pathlib.Path("outputs", name)
(output / ("model" if door == "train.py" else "verdicts")).mkdir(parents=True)
if name != "FAILS":
    from longcot import record, rows
    from longcot.recipe import load_recipe, resolved
    recipe = load_recipe(sys.argv[1], [word for word in sys.argv[2:] if "=" in word])
    kept = {"run": name, "recipe": resolved(recipe), "hashes": {"data": rows.hash_file(recipe.data.path)}}
    record.write_record(kept | ({"eval": {"test": {"accuracy": 0.25}}} if door == "eval.py" else {}))
"""


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A folder with two prepared seeds and doors that only note what they were called with."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for seed in (0, 1):
        made = {"correct": "thought_solution", "delete100": "plain"}
        text = {"conditions": {name: {"chat.format": form} for name, form in made.items()}}
        (tmp_path / f"s{seed}").mkdir()
        (tmp_path / f"s{seed}" / "manifest.json").write_text(json.dumps(text))
        for name in made:
            (tmp_path / f"s{seed}" / f"{name}.jsonl").write_text(f"{name} {seed}")
    for door in ("train.py", "eval.py"):
        (tmp_path / door).write_text(DOOR)
    return tmp_path


def jobs_of(desk: Path, only=(), extra=()) -> list[sweep.Job]:
    return sweep.list_jobs(load_recipe(TWIN), [desk / "s0", desk / "s1"], list(only), list(extra))


def play(jobs: list[sweep.Job], slots: int = 1) -> list[str]:
    return sweep.walk(jobs, [{"OMP_NUM_THREADS": "1"}] * slots, [sys.executable])


def calls() -> list[list[str]]:
    return [json.loads(line) for line in Path("calls.txt").read_text().splitlines()]


def test_a_run_is_told_by_its_condition_and_seed(desk):
    jobs = jobs_of(desk)
    assert [job.name for job in jobs] == [
        "rehearsal_structure_correct_s0",
        "rehearsal_structure_correct_s1",
        "rehearsal_structure_delete100_s0",
        "rehearsal_structure_delete100_s1",
    ]
    assert jobs[1].overrides == (f"data.path={desk}/s1/correct.jsonl", "train.seed=1")
    assert "chat.format=plain" in jobs[2].overrides and "chat.format=plain" not in jobs[0].overrides


def test_a_folder_without_a_seed_keeps_the_recipes(desk):
    (desk / "s0").rename(desk / "structure")
    job = sweep.list_jobs(load_recipe(TWIN), [desk / "structure"], ["correct"], [])[0]
    assert job.name == "rehearsal_structure_correct"
    assert job.overrides == (f"data.path={desk}/structure/correct.jsonl",)


def test_overrides_of_the_recipe_reach_the_runs(desk):
    (job,) = jobs_of(desk, ["correct"], ["train.max_steps=2"])[:1]
    assert "train.max_steps=2" in job.door("train.py")
    load_recipe(job.recipe, job.overrides)  # the loader takes them all


def test_an_unprepared_condition_is_refused(desk):
    with pytest.raises(
        errors.RecipeError, match="--only shuffel33: prepared are correct, delete100"
    ):
        jobs_of(desk, ["shuffel33"])
    (desk / "s1" / "manifest.json").write_text('{"conditions": {}}')
    with pytest.raises(errors.RowError, match=r"s1/manifest.json: no condition correct"):
        jobs_of(desk)
    (desk / "s1" / "manifest.json").unlink()
    with pytest.raises(errors.RowError, match="no such file"):
        jobs_of(desk)


@pytest.mark.parametrize("slots", [1, 3])
def test_every_run_is_trained_then_scored_once(desk, capsys, slots):
    jobs = jobs_of(desk)
    assert play(jobs, slots) == []
    made = calls()
    assert Counter((c[0], c[c.index("--run-name") + 1]) for c in made) == {
        (door, job.name): 1 for job in jobs for door in ("train.py", "eval.py")
    }
    for job in jobs:
        doors = [c[0] for c in made if job.name in c]
        assert doors == ["train.py", "eval.py"]
        assert sweep.is_scored(job)
    told = capsys.readouterr().out
    assert "4/4" in told and told.count("test 25.0%") == 4


def test_a_failed_run_is_named_and_the_others_go_on(desk, capsys):
    jobs = jobs_of(desk)
    jobs.insert(1, sweep.Job("FAILS", str(TWIN), ()))
    assert play(jobs, 2) == ["FAILS"]
    assert "FAILS: FAILED with 1" in capsys.readouterr().out
    assert "no memory left" in (sweep.LOGS / "FAILS.log").read_text()
    assert not any(c[0] == "eval.py" and "FAILS" in c for c in calls())
    assert all(sweep.is_scored(job) for job in jobs if job.name != "FAILS")


def test_what_was_cut_off_goes_on_where_it_was(desk, monkeypatch):
    job = jobs_of(desk)[0]
    output = sweep.OUTPUTS / job.name
    train, score = sweep.commands(job, ["python"])
    assert train[-1] == job.name and score[1] == "eval.py"
    output.mkdir(parents=True)
    (output / "half.tmp").write_text("")
    assert sweep.commands(job, ["python"])[0] == train and not output.exists()
    (output / "checkpoint-5").mkdir(parents=True)
    monkeypatch.setattr(
        "longcot.callbacks.newest_checkpoint", lambda output: output / "checkpoint-5"
    )
    assert sweep.commands(job, ["python"])[0] == [*train, "--resume"]
    (output / "model").mkdir()
    assert sweep.commands(job, ["python"]) == [score]


def test_a_record_that_came_with_the_clone_is_not_this_checkouts(desk):
    job = jobs_of(desk)[0]
    play([job])
    assert sweep.is_scored(job)
    (sweep.OUTPUTS / job.name / "verdicts").rmdir()
    assert not sweep.is_scored(job)


def test_a_run_of_other_data_or_keys_is_not_taken_for_this_one(desk):
    job = jobs_of(desk)[0]
    play([job])
    (other,) = jobs_of(desk, ["correct"], ["train.learning_rate=1e-3"])[:1]
    with pytest.raises(
        errors.RecipeError, match="section 'train' differs from the one .*correct_s0"
    ):
        sweep.is_scored(other)
    Path(job.overrides[0].removeprefix("data.path=")).write_text("other rows")
    with pytest.raises(errors.LaunchError, match="correct_s0 was trained on other rows"):
        sweep.is_scored(job)


def test_a_slot_gives_up_after_two_failures_in_a_row(desk, capsys):
    failing = [sweep.Job("FAILS", str(TWIN), ())] * 2
    jobs = jobs_of(desk)
    assert play([jobs[0], *failing, jobs[1]]) == ["FAILS", "FAILS", f"{jobs[1].name} (not begun)"]
    assert sweep.is_scored(jobs[0]) and not sweep.is_scored(jobs[1])


def test_children_end_with_the_sweep(desk):
    """A sweep that is killed leaves no training behind, which a second start would collide with."""
    (desk / "train.py").write_text(
        "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    )
    code = (
        "import sys; from pathlib import Path; from results import sweep\n"
        "sweep.walk([sweep.Job('LONG', 'r.yaml', ())], [{}], [sys.executable])"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    log = desk / sweep.LOGS / "LONG.log"
    wait_for(lambda: log.exists() and log.read_text().strip())
    child = int(log.read_text())
    parent.kill()
    parent.wait()
    wait_for(lambda: not Path(f"/proc/{child}/cmdline").exists() or is_zombie(child))


def is_zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def wait_for(happened, limit: float = 60.0) -> None:
    end = time.monotonic() + limit
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def test_accelerate_is_given_the_slots_own_processes_and_port():
    launch = ["accelerate", "launch", "--config_file", "8gpu.yaml"]
    slot = {"CUDA_VISIBLE_DEVICES": "4,5,6,7"}
    assert sweep.for_slot(launch, slot)[4:] == ["--num_processes", "4", "--main_process_port", "0"]
    assert sweep.for_slot(launch, {}) == launch
    assert sweep.for_slot(["python"], slot) == ["python"]


def test_slots_are_gpus_or_cores():
    cpu = load_recipe(TWIN)
    assert sweep.read_slots(cpu, []) == [{"OMP_NUM_THREADS": "1"}] * record.count_cores()
    assert len(sweep.read_slots(cpu, ["a", "b", "c"])) == 3
    gpu = load_recipe(ROOT / "recipes" / "lora32b.yaml")
    assert sweep.read_slots(gpu, []) == [{}]
    assert sweep.read_slots(gpu, ["0,1", "2,3"]) == [
        {"CUDA_VISIBLE_DEVICES": "0,1"},
        {"CUDA_VISIBLE_DEVICES": "2,3"},
    ]


def test_the_plan_adds_up(capsys, monkeypatch):
    told = iter([("30", 2e6, 1.5, 3.0), ("12", 1e6, 0.5, 1.0)])

    def run(command, **_):
        assert command[1:3] == ["train.py", "r.yaml"] and command[-2:] == ["--price", "2"]
        steps, tokens, hours, cost = next(told)
        plan = {"steps": {"total": int(steps)}, "tokens": tokens, "gpu_hours": hours, "cost": cost}
        return type("Done", (), {"returncode": 0, "stdout": json.dumps(plan), "stderr": ""})

    monkeypatch.setattr(sweep.subprocess, "run", run)
    sweep.print_plan([sweep.Job(n, "r.yaml", ()) for n in ("a", "b")], ["--price", "2"])
    out = capsys.readouterr().out
    assert "| a | 30 | 2.0 | 1.5 | 3 |" in out and "| all 2 | 42 | 3.0 | 2.0 | 4 |" in out


@pytest.mark.slow
def test_the_plan_of_real_runs(desk, capsys, monkeypatch):
    from data_prep.rehearsal_structure import write_rehearsal_structure

    write_rehearsal_structure(desk / "source", 40, 0)
    for seed in (0, 1):
        (desk / f"s{seed}" / "correct.jsonl").write_bytes(
            (desk / "source/train.jsonl").read_bytes()
        )
    monkeypatch.chdir(ROOT)
    sweep.print_plan(jobs_of(desk, ["correct"]), [])
    lines = capsys.readouterr().out.splitlines()
    one, other, both = (int(line.split("|")[2].replace(",", "")) for line in lines[2:5])
    assert one == other and both == one + other > 0
    assert "not predicted" in lines[2]


def test_the_story_names_what_exists():
    """The recipes and modules that results/structure.sh calls are there."""
    text = (ROOT / "results" / "structure.sh").read_text(encoding="utf-8")
    recipes = set(re.findall(r"recipes/[\w/]+\.yaml", text))
    modules = {name.replace(".", "/") + ".py" for name in re.findall(r"python -m ([\w.]*\w)", text)}
    assert {"recipes/structure32b.yaml", "recipes/rehearsal_structure.yaml"} <= recipes
    assert {"data_prep/structure.py", "results/sweep.py", "results/tables.py"} <= modules
    assert [name for name in recipes | modules if not (ROOT / name).exists()] == []

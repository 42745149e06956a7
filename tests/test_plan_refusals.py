"""What a plan refuses: each a way to be told numbers of a run that would never start."""

import subprocess
import sys

import pytest
from conftest import ROOT

from longcot.errors import LaunchError, ModelError, RecipeError, RowError
from longcot.plan import make_plan
from longcot.recipe import load_recipe

LORA, REHEARSAL = "recipes/lora32b.yaml", "recipes/rehearsal.yaml"


@pytest.mark.parametrize(
    ("override", "error", "told"),
    [
        ("train.unchecked_layers=65", RecipeError,
         r"lora32b\.yaml: train\.unchecked_layers is 65, and the model has 64 layers"),
        ("lora.target_modules=[q_proj,v_prj]", ModelError, 'v_prj.; did you mean "v_proj"'),
        ("data.path=data/none.jsonl", RowError, r"data/none\.jsonl: no such file"),
        ("data.max_length=100", RowError, r"above data\.max_length 100 \(assumed"),
    ],
)  # fmt: skip
def test_a_recipe_that_could_not_be_trained(override, error, told):
    with pytest.raises(error, match=told):
        make_plan(load_recipe(ROOT / LORA, [override]))


def test_as_many_unchecked_layers_as_there_are_is_no_error():
    assert make_plan(load_recipe(ROOT / LORA, ["train.unchecked_layers=64"])).setup.unchecked == 64


def train(*words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "train.py", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((LORA, "--plan", "--gpus", "\u00b2"), "--gpus \u00b2: a number is wanted"),
        ((LORA, "--plan", "--gpus", LORA), "has no distributed_type; accelerate's settings"),
        ((LORA, "--plan", "--gpus", "recipes/hardware/cpu.yaml"),
         "train.use_cpu is false, and the launcher's settings are for the CPU"),
        ((REHEARSAL, "--plan", "--gpus", "recipes/hardware/8gpu_ddp.yaml"),
         "train.use_cpu is true, and the launcher's settings are for GPUs"),
        ((LORA, "--json"), "--json: only with --plan"),
        ((LORA, "--gpus", "8", "--price", "2"), "--gpus, --price: only with --plan"),
    ],
)  # fmt: skip
def test_a_command_line_that_contradicts_itself(words, told):
    done = train(*words)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("error: ") and told in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("reader", ["head -1", "true"])
def test_a_reader_that_leaves_early_is_no_error(reader):
    script = f"{sys.executable} train.py {LORA} --plan | {reader}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr == "" and done.returncode in (0, 141)  # 0: all was written before it left


def test_a_file_that_contradicts_nothing_is_taken():
    for recipe, file in ((REHEARSAL, "cpu"), (REHEARSAL, "1gpu"), (LORA, "1gpu")):
        gpus = f"recipes/hardware/{file}.yaml"
        done = train(recipe, "--plan", "--gpus", gpus, "data.path=owner/rows")
        assert done.returncode == 0, done.stderr


def test_several_wrong_things_are_told_one_at_a_time():
    with pytest.raises(LaunchError, match="--gpus 0"):
        make_plan(load_recipe(ROOT / LORA, ["train.unchecked_layers=65"]), gpus=0)

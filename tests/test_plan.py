"""Accumulation and step counts, worked out by hand; whole plans of the repository's recipes."""

import argparse
import dataclasses
import json
import subprocess
import sys

import pytest
from conftest import ROOT

from longcot.errors import LaunchError, RecipeError
from longcot.plan import add_options, describe, make_plan, plan_steps, relief
from longcot.recipe import load_recipe
from longcot.sharding import Launcher, read_launcher


@pytest.fixture
def plan(write_recipe):
    """plan(batch, per_device, processes, sequences, samples, epochs, max_steps) -> Steps."""

    def make(
        batch, per_device, processes=1, sequences=100, samples=1.0, epochs=1.0, max_steps=None
    ):
        train = load_recipe(write_recipe()).train
        train = dataclasses.replace(
            train,
            global_batch_size=batch,
            per_device_train_batch_size=per_device,
            num_train_epochs=epochs,
            max_steps=max_steps,
        )
        return plan_steps(
            train, processes=processes, sequences=sequences, samples_per_sequence=samples
        )

    return make


@pytest.mark.parametrize(
    ("given", "accumulation", "sequences", "total"),
    [
        # batch, per device, processes, rows
        ((8, 1, 1, 80), 8, 8, 10),
        ((8, 8, 1, 80), 1, 8, 10),
        ((96, 1, 8, 17000), 12, 96, 178),  # 17000 / 96 = 177.08
        ((96, 4, 8, 17000), 3, 96, 178),
        ((4, 1, 1, 9), 4, 4, 3),
        ((4, 2, 1, 9), 2, 4, 3),
    ],
)
def test_without_packing_the_batch_is_met_exactly(plan, given, accumulation, sequences, total):
    steps = plan(*given)
    assert (steps.accumulation, steps.sequences, steps.total) == (accumulation, sequences, total)
    assert steps.samples == given[0]


def test_epochs_and_max_steps(plan):
    assert plan(8, 1, 1, 80, epochs=3.0).total == 30
    assert plan(8, 1, 1, 80, epochs=1.25).total == 13
    assert plan(8, 1, 1, 80, epochs=3.0, max_steps=7).total == 7


@pytest.mark.parametrize(
    ("batch", "per_device", "processes", "remedy"),
    [
        (96, 5, 8, "use 1, 2, 3, 4, 6, 12 per device"),
        (4, 3, 1, "use 1, 2, 4 per device"),
        (4, 8, 1, "use 1, 2, 4 per device"),
        (7, 1, 2, "use a multiple of 2, the number of processes, as global_batch_size"),
    ],
)
def test_a_batch_that_does_not_divide_is_refused_with_what_does(
    plan, batch, per_device, processes, remedy
):
    with pytest.raises(RecipeError) as caught:
        plan(batch, per_device, processes)
    assert str(caught.value) == (
        f"train.global_batch_size {batch} is not divisible by {processes} processes x "
        f"per_device_train_batch_size {per_device}; {remedy}"
    )


def test_with_packing_the_nearest_number_of_sequences_carries_the_samples(plan):
    steps = plan(96, 1, 8, sequences=1000, samples=2.5)  # 96 / (8 x 2.5) = 4.8
    assert (steps.accumulation, steps.sequences, steps.samples) == (5, 40, 100.0)
    assert steps.total == 25  # 1000 sequences in 125 waves of 8, 5 waves a step
    assert str(steps) == "25 optimizer steps of 100.0 samples (40 sequences, accumulation 5)"


def test_with_packing_a_batch_far_from_the_stated_one_is_refused(plan):
    with pytest.raises(RecipeError) as caught:
        plan(96, 1, 8, samples=20.0)  # one wave already carries 160
    assert "train.global_batch_size 96 cannot be met: 8 processes x 1 packed sequences" in str(
        caught.value
    )
    assert "make 160" in str(caught.value) and "global_batch_size=160" in str(caught.value)
    assert plan(128, 1, 8, samples=20.0).accumulation == 1  # 160 is just a quarter too many


def test_the_step_count_is_the_trainers(plan, tmp_path):
    """transformers rounds an epoch's last, smaller step up; so do we."""
    import torch
    from transformers import Trainer, TrainingArguments

    for batch, per_device, rows, epochs in [(4, 1, 9, 1.6), (8, 2, 33, 2.0), (6, 3, 6, 1.0)]:
        steps = plan(batch, per_device, 1, rows, epochs=epochs)
        arguments = TrainingArguments(
            output_dir=str(tmp_path),
            per_device_train_batch_size=per_device,
            gradient_accumulation_steps=steps.accumulation,
            num_train_epochs=epochs,
            use_cpu=True,
        )
        trainer = Trainer(model=torch.nn.Linear(1, 1), args=arguments)
        loader = range(-(-rows // per_device))
        total = trainer.set_initial_training_values(arguments, loader)[-1]
        assert steps.total == total


# ---- a whole plan


def planned(name="qlora32b", *overrides, **options):
    return make_plan(load_recipe(ROOT / f"recipes/{name}.yaml", overrides), **options)


def test_qlora_of_32b_on_one_h100():
    """17k rows, three epochs, on the card of the issue, at a measured speed."""
    found = planned(tokens_per_second=2800, price=2.99)
    assert found.fits and found.memory.total < 72e9
    assert found.shapes.total == 32_763_876_352 and found.trained == 536_870_912
    assert found.tokens == pytest.approx(3 * 16401 * 6000, rel=0.001)
    assert found.hours == pytest.approx(found.tokens / 2800 / 3600)
    assert found.cost == pytest.approx(found.hours * 2.99)
    assert found.hours == pytest.approx(29.3, abs=0.1) and not found.predicted
    assert found.steps.total == pytest.approx(3 * 16401 / 96, rel=0.02)


def test_speed_is_predicted_when_none_is_given():
    found = planned()
    assert found.predicted and 1500 < found.rate < 4000
    assert found.price == 2.99
    eight = planned("lora32b", gpus=8)
    assert eight.launcher == Launcher(kind="fsdp2", processes=8)
    assert eight.hours == pytest.approx(eight.tokens / eight.rate / 8 / 3600)
    assert eight.cost == pytest.approx(8 * eight.hours * 2.99)


def test_the_work_stands_beside_that_of_stock_peft():
    """The gate of the 32B recipes, by formula; tests/test_recompute_flops.py counts it."""
    found = planned("lora32b", gpus=8)
    ours, stock = found.work.executed / found.work.plain, found.work.stock / found.work.plain
    assert ours <= 1.36 and 1.40 <= stock <= 1.52 and ours <= stock - 0.1
    line = next(line for line in found.text().splitlines() if "GFLOP/token" in line)
    assert f"{ours:.2f} x no checkpointing" in line
    assert f"stock TRL and PEFT execute {stock:.2f} x" in line
    assert json.loads(found.json())["work"]["stock_to_plain"] == pytest.approx(stock)


def test_given_lengths_decide_rows_steps_and_tokens():
    found = planned(rows=[8000, 8000, 8000, 20000], tokens_per_second=1)
    assert (len(found.rows.kept), found.rows.over_long, found.rows.sequences) == (3, 1, 2)
    assert found.tokens == 72_000 and found.hours == 20
    few = planned("qlora32b", "train.max_steps=2", rows=[8000] * 1000)
    assert few.steps.total == 2 and few.tokens == 2 * few.steps.samples * 8000


@pytest.mark.parametrize(
    ("name", "kind"), [("qlora32b", "ddp"), ("lora7b", "ddp"), ("lora32b", "fsdp2")]
)
def test_several_gpus_hold_the_model_whole_where_it_fits(name, kind):
    assert planned(name, gpus=8).launcher.kind == kind


def test_a_hardware_file_decides(tmp_path):
    away = Launcher(kind="zero3", processes=8, offload_parameters=True, offload_optimizer=True)
    found = planned("full32b", launcher=away)
    assert found.fits and found.memory.host > 500e9 and found.tried == ()
    sharded = Launcher(kind="fsdp2", processes=8)
    assert not planned("full32b", "train.activation_offloading=false", launcher=sharded).fits


def test_without_one_the_first_way_that_fits_is_taken_and_its_file_named():
    """Full fine-tuning of 32B on eight GPUs does not fit FSDP2; the authors' ZeRO-3 does."""
    found = planned("full32b", gpus=8)
    assert found.fits and str(found.launcher) == "ZeRO-3, parameters and optimizer on the host"
    text = found.text().splitlines()
    assert text[0].endswith(f"by {found.launcher}")
    assert text[1].startswith("  data parallel does not: ")
    assert text[2].startswith("  FSDP2 does not: 100.") and "activation_offloading=true" in text[2]
    launch = "accelerate launch --config_file recipes/hardware/8gpu_zero3.yaml train.py "
    assert f"{launch}{found.recipe.path}" in found.text()
    assert json.loads(found.json())["tried"] == list(found.tried)
    file = read_launcher(ROOT / "recipes/hardware/8gpu_zero3.yaml")
    assert planned("full32b", launcher=file).memory == found.memory


def test_a_plan_refuses_what_cannot_run():
    with pytest.raises(LaunchError, match="4-bit base cannot be sharded"):
        planned("qlora32b", launcher=Launcher(kind="zero3", processes=8))
    with pytest.raises(RecipeError, match="has no train section"):
        planned("base32b")
    with pytest.raises(LaunchError, match="--gpus 0: must be above zero"):
        planned(gpus=0)
    with pytest.raises(LaunchError, match="--tokens-per-second"):
        planned(tokens_per_second=-1.0)
    with pytest.raises(LaunchError, match="--price"):
        planned(price=float("nan"))
    with pytest.raises(LaunchError, match="train.use_cpu=false"):
        planned(gpu="cpu")
    with pytest.raises(LaunchError, match="train.use_cpu=true"):
        planned("rehearsal", gpu="h100")
    with pytest.raises(RecipeError, match="cannot be met"):  # 8 x 64 sequences of 2.7 rows
        planned(gpus=512)


def test_the_rehearsal_is_planned_for_this_machine():
    found = planned("rehearsal", "data.path=owner/rows")
    assert found.gpu.name == "cpu" and found.fits and found.rate is None and found.cost is None


def command_line(*words):
    parser = argparse.ArgumentParser()
    add_options(parser)
    return parser.parse_args(words)


def test_the_doors_options(tmp_path):
    recipe = load_recipe(ROOT / "recipes/qlora32b.yaml")
    assert describe(recipe, command_line("--plan")) == make_plan(recipe).text()
    words = (
        "--gpus",
        "4",
        "--gpu",
        "h200",
        "--price",
        "3.5",
        "--tokens-per-second",
        "2500",
        "--json",
    )
    told = json.loads(describe(recipe, command_line("--plan", *words)))
    assert (told["launcher"]["processes"], told["gpu"]["name"]) == (4, "h200")
    assert (told["price"], told["tokens_per_second"], told["predicted"]) == (3.5, 2500, False)
    file = ROOT / "recipes/hardware/8gpu_ddp.yaml"
    told = json.loads(describe(recipe, command_line("--gpus", str(file), "--json")))
    assert told["launcher"]["source"] == str(file) and told["launcher"]["processes"] == 8
    with pytest.raises(LaunchError, match="--gpus -1: a number is wanted"):
        describe(recipe, command_line("--gpus=-1"))
    with pytest.raises(LaunchError, match="no such file"):
        describe(recipe, command_line("--gpus", str(tmp_path / "none.yaml")))


def test_relief_never_fails(monkeypatch):
    assert relief(load_recipe(ROOT / "recipes/qlora32b.yaml")).startswith("set train.")
    lost = load_recipe(ROOT / "recipes/qlora32b.yaml", ["model.model_name_or_path=no/where"])
    assert "data.max_length" in relief(lost)


def test_a_plan_needs_no_torch():
    """It is asked for before anything is installed on a GPU machine, and answers in a second."""
    code = ("import sys; from longcot.recipe import load_recipe; from longcot.plan import make_plan;"
            "print(make_plan(load_recipe('recipes/qlora32b.yaml')).text());"
            "assert not {'torch', 'transformers', 'trl', 'datasets'} & set(sys.modules)")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("fits: ")


@pytest.mark.slow
def test_work_counted_on_the_meta_device_is_the_formulas():
    formula, counted = planned(), planned(count=True)
    assert counted.counted and not formula.counted
    assert counted.work.executed == pytest.approx(formula.work.executed, rel=0.01)
    assert "FlopCounterMode" in counted.text() and "(formula)" in formula.text()

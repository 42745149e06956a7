"""The contenders as they run: same rows, same weights, same losses, in processes of their own."""

import json
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from conftest import ROOT, recipe_text
from datasets import Dataset

from longcot import speed
from longcot.recipe import load_recipe
from longcot.shapes import read_shapes
from results import rivals, throughput

CONFIG = {"model_type": "qwen2", "num_hidden_layers": 2, "hidden_size": 64, "vocab_size": 320,
          "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2,
          "tie_word_embeddings": False, "max_position_embeddings": 512}  # fmt: skip


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A folder with a tiny model's config and recipes for it."""
    folder = tmp_path_factory.mktemp("throughput")
    (folder / "tiny").mkdir()
    (folder / "tiny" / "config.json").write_text(json.dumps(CONFIG))

    def write(name: str, model: dict, **train) -> None:
        text = recipe_text(
            model={"model_name_or_path": str(folder / "tiny"), **model},
            data={"packing": True, "max_length": 256},
            train={"gradient_checkpointing": True, "learning_rate": 1e-2, **train},
        )
        (folder / f"{name}.yaml").write_text(text)

    write("plain", {})
    write("fused", {}, use_liger_kernel=True)  # which no CPU can do
    write("nf4", {"load_in_4bit": True}, selective_checkpointing=True)
    write("fp8", {"load_in_fp8": True})
    gpu = {"dtype": "bfloat16", "attn_implementation": "auto", "load_in_4bit": True}
    write("cuda", gpu, use_cpu=False, use_liger_kernel=True, selective_checkpointing=True)
    return folder


def run(desk, *words: str):
    command = [sys.executable, "-m", "results.throughput", *words]
    folders = ["--records", str(desk / "results" / "throughput"), "--work", str(desk / "work")]
    return subprocess.run(
        [*command, *folders, "--budget", "3000"],
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip


def record_of(desk, name: str) -> dict:
    return json.loads((desk / "results" / "throughput" / f"{name}.json").read_text())


@pytest.fixture(scope="module")
def done(desk):
    """One command over two recipes; the second cannot run here."""
    return run(desk, str(desk / "plain.yaml"), str(desk / "fused.yaml"), "--layers", "2",
               "--steps", "2")  # fmt: skip


@pytest.mark.slow
def test_all_contenders_train_the_same_thing(desk, done):
    assert done.returncode == 0, done.stderr
    found = {
        name: record_of(desk, f"cpu-{name}-2") for name in ("ours_plain", "trl_best", "trl_plain")
    }
    for record in found.values():
        assert record["status"] == "measured" and record["device"] == "cpu"
        assert len(record["losses"]) == 5 and record["steps"] == 2 and record["warm_up"] == 3
        assert record["losses"] == pytest.approx(found["ours_plain"]["losses"], rel=1e-5)
        assert record["rows"] == found["ours_plain"]["rows"] and record["rows"]["count"] == 5
        assert 0 < record["mfu"] < record["hfu"] and record["command"] and record["date"]
        assert len(set(record["losses"])) == 5
    ran = {name: record["ran"] for name, record in found.items()}
    assert [ran[name]["attention_kept"] for name in found] == [0, 2, 0]
    assert [ran[name]["branch_first"] for name in found] == [True, False, False]
    assert all(
        one["layers_checkpointed"] == 2 and one["attention"] == "sdpa" for one in ran.values()
    )


@pytest.mark.slow
def test_one_that_fails_says_why_and_the_rest_goes_on(desk, done):
    fused, absent = record_of(desk, "cpu-ours_fused-2"), record_of(desk, "cpu-unsloth-2")
    assert fused["status"] == "failed" and "use_liger_kernel needs a GPU" in fused["reason"]
    assert absent["status"] == "not installed" and "unsloth" in absent["reason"]
    assert "failed: cpu-ours_fused-2" in done.stderr
    page = (desk / "results" / "throughput.md").read_text()
    assert "failed: train.use_liger_kernel needs a GPU" in page


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_every_contender_runs_on_a_gpu(desk):
    found = run(desk, str(desk / "cuda.yaml"), "--layers", "2", "--steps", "2")
    assert found.returncode == 0 and "failed" not in found.stderr, found.stdout
    name = throughput.figures.slug(torch.cuda.get_device_name())
    first = record_of(desk, f"{name}-ours_cuda-2")
    for rival in ("trl_best", "trl_plain"):
        record = record_of(desk, f"{name}-{rival}-2")
        assert record["losses"][0] == pytest.approx(first["losses"][0], rel=1e-2)
        assert record["peak_bytes"] > 0


# ---- one process, for what needs no clean one


def losses(desk, name: str, make) -> list[float]:
    """What a contender logs in two steps over two fixed rows."""
    recipe = load_recipe(desk / f"{name}.yaml", [])
    recipe = replace(
        recipe, train=replace(recipe.train, max_steps=2, global_batch_size=1, logging_steps=1)
    )
    dataset = Dataset.from_list(rivals.draw_rows(320, 256, 2, 0))
    trainer = make(recipe, read_shapes(recipe.model), dataset, desk / "work")
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.slow
def test_an_nf4_base_is_the_same_for_all(desk):
    ours = losses(desk, "nf4", rivals.ours)
    for make in (rivals.trl_best, rivals.trl_plain):
        assert losses(desk, "nf4", make)[0] == pytest.approx(ours[0], rel=1e-6)
    assert ours[0] == pytest.approx(losses(desk, "fp8", rivals.ours)[0], rel=1e-2)


def test_rows_are_full_and_their_documents_are_as_long_as_real_ones():
    drawn = rivals.draw_rows(320, 16384, 6, 1)
    sizes = [size for row in drawn for size in row["seq_lengths"]]
    assert len(drawn) == 6 and all(len(row["input_ids"]) > 0.95 * 16384 for row in drawn)
    assert all(sum(row["seq_lengths"]) == len(row["input_ids"]) for row in drawn)
    assert 7500 < sum(n * n for n in sizes) / sum(sizes) < 11500  # 8,800 of the whole set
    assert drawn == rivals.draw_rows(320, 16384, 6, 1) and max(drawn[0]["input_ids"]) < 320


def test_a_saved_base_is_read_back_as_it_was(desk, tmp_path):
    from transformers import AutoModelForCausalLM

    recipe = load_recipe(desk / "nf4.yaml", [])
    built = speed.build(recipe, read_shapes(recipe.model), "cpu")
    rivals.save_base(built, recipe, tmp_path / "base")
    read = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    assert type(read.model.layers[0].mlp.up_proj).__name__ == "Linear4bit"
    ids = torch.arange(64)[None]
    assert torch.equal(built(input_ids=ids).logits, read(input_ids=ids).logits)


def test_a_deadline_ends_training_after_two_timed_steps():
    watch, control = speed.Watch("cpu"), type("Control", (), {"should_training_stop": False})
    deadline = rivals.Deadline(watch, time.time())
    watch.seconds = [1.0]
    deadline.on_step_end(None, None, control)
    assert not control.should_training_stop
    watch.seconds = [1.0, 1.0]
    deadline.on_step_end(None, None, control)
    assert control.should_training_stop
    assert throughput.LEAST == speed.WARM_UP + 2

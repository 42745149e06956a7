"""What to change where a recipe does not fit: every suggestion is tried before it is made."""

import dataclasses

import pytest
from conftest import ROOT
from memory_cases import shapes_of

from longcot import advice, memory
from longcot.advice import advise, choose, relieve, setup_of, spend
from longcot.hardware import find_gpu
from longcot.recipe import load_recipe
from longcot.shapes import KNOWN
from longcot.sharding import Launcher

QWEN_32B = shapes_of(KNOWN["Qwen/Qwen2.5-32B"])
QWEN_7B = shapes_of(KNOWN["Qwen/Qwen2.5-7B"])
H100, SMALL_CARD = find_gpu("h100"), find_gpu("rtx4090")
ONE, EIGHT = Launcher(), Launcher(kind="fsdp2", processes=8)
ROW = 16384


def recipe(name="lora32b", *overrides):
    return load_recipe(ROOT / f"recipes/{name}.yaml", overrides)


PLAIN = ("train.optim=adamw_torch_fused", "train.use_liger_kernel=false",
         "train.selective_checkpointing=false", "train.unchecked_layers=0",
         "train.activation_offloading=false")  # fmt: skip


def total(asked, launcher=ONE, shapes=QWEN_32B) -> float:
    return memory.estimate(shapes, setup_of(asked, launcher, ROW)).total


# ---- a recipe as a setup


def test_a_recipe_is_read_into_a_setup():
    setup = setup_of(recipe("qlora32b", *PLAIN), ONE, ROW)
    assert (setup.base, setup.autocast, setup.tokens, setup.row) == ("nf4", True, ROW, ROW)
    assert (setup.checkpointing, setup.fused, setup.cuda) == (True, False, True)
    assert setup.attention == "flash" and not setup.masked
    assert setup_of(recipe("full32b"), ONE, ROW).base == "float32"  # trained in float32


@pytest.mark.parametrize(
    ("override", "field", "value"),
    [
        ("model.load_in_fp8=true", "base", "fp8"),
        ("train.use_liger_kernel=true", "fused", True),
        ("train.selective_checkpointing=true", "selective", True),
        ("train.unchecked_layers=3", "unchecked", 3),
        ("train.activation_offloading=true", "offload", True),
        ("train.gradient_checkpointing=false", "checkpointing", False),
        ("model.attn_implementation=torch_varlen", "attention", "flash"),
        ("model.attn_implementation=sdpa", "masked", True),
        ("data.max_length=8192", "tokens", 8192),
    ],
)
def test_every_key_that_costs_memory_is_read(override, field, value):
    assert getattr(setup_of(recipe("lora32b", *PLAIN, override), ONE, ROW), field) == value


def test_without_packing_the_longest_row_counts(write_recipe):
    asked = load_recipe(
        write_recipe(data={"packing": False}, train={"per_device_train_batch_size": 2})
    )
    setup = setup_of(asked, ONE, 100)
    assert (setup.row, setup.tokens, setup.masked) == (100, 200, True)  # padded to one length
    assert not setup.cuda and not setup.autocast


# ---- what to change


def test_what_fits_needs_no_advice():
    assert advise(recipe("qlora32b"), ONE, H100, ROW, QWEN_32B) is None


@pytest.mark.parametrize(
    ("name", "gpu", "launcher", "shapes"),
    [
        ("lora32b", H100, ONE, QWEN_32B),
        ("lora7b", SMALL_CARD, ONE, QWEN_7B),
        ("full32b", H100, EIGHT, QWEN_32B),
        ("qlora32b", find_gpu("l40s"), ONE, QWEN_32B),
    ],
)
def test_suggestions_make_it_fit(name, gpu, launcher, shapes):
    asked = recipe(name, *PLAIN)
    assert total(asked, launcher, shapes) > gpu.usable
    found = advise(asked, launcher, gpu, ROW, shapes)
    assert found and found.changes
    changed = recipe(name, *PLAIN, *found.changes)  # through the loader, as a user would
    assert total(changed, launcher, shapes) <= gpu.usable
    assert f"{total(changed, launcher, shapes) / 1e9:,.1f} GB" in found.note


def test_no_suggested_change_is_idle():
    """Without any one of them it would not fit."""
    asked = recipe("lora7b", *PLAIN)
    changes = advise(asked, ONE, SMALL_CARD, ROW, QWEN_7B).changes
    assert len(changes) > 1
    for left_out in changes:
        fewer = [change for change in changes if change != left_out]
        assert total(recipe("lora7b", *PLAIN, *fewer), shapes=QWEN_7B) > SMALL_CARD.usable


def test_what_moves_only_time_is_suggested_before_what_moves_numbers():
    found = advise(recipe("lora32b", *PLAIN), ONE, H100, ROW, QWEN_32B)
    assert "train.activation_offloading=true" in found.changes
    assert not any("load_in" in change or "max_length" in change for change in found.changes)
    slow = advise(
        recipe("lora32b", *PLAIN, "train.gradient_checkpointing=false"), EIGHT, H100, ROW, QWEN_32B
    )
    assert slow.changes == ("train.gradient_checkpointing=true",)


def test_dropping_rows_is_the_last_resort_and_said():
    found = advise(recipe("lora32b", *PLAIN), ONE, find_gpu("rtx5090"), ROW, QWEN_32B)
    assert any(change.startswith("data.max_length=") for change in found.changes)
    assert "longer rows are dropped" in found.note
    assert "model.load_in_4bit=true" in found.changes


def test_suggestions_keep_the_rules_of_pairs_and_schema():
    """FSDP2 takes neither 8-bit Adam nor a 4-bit base; offloading and unchecked layers exclude."""
    asked = recipe("full32b", *PLAIN)
    found = advise(asked, EIGHT, find_gpu("a100-40gb"), ROW, QWEN_32B)
    assert not any("8bit" in change or "4bit" in change for change in found.changes)
    lora = advise(recipe("lora32b", *PLAIN), EIGHT, SMALL_CARD, ROW, QWEN_32B)
    assert not any("8bit" in change or "load_in" in change for change in lora.changes)


def test_other_ways_are_more_gpus_and_another_one():
    found = advise(recipe("lora32b", *PLAIN), ONE, H100, ROW, QWEN_32B)
    two = dataclasses.replace(EIGHT, processes=2)
    assert found.others[0].startswith("2 x H100 SXM 80 GB, FSDP2: ")
    assert f"{total(recipe('lora32b', *PLAIN), two) / 1e9:.1f} GB each" in found.others[0]
    name = found.others[-1].rpartition("--gpu ")[2]
    assert total(recipe("lora32b", *PLAIN)) <= find_gpu(name).usable
    host = next(
        way
        for way in advise(recipe("full32b", *PLAIN), ONE, H100, ROW, QWEN_32B).others
        if "host" in way
    )
    assert "ZeRO-3" in host and "524 GB of host memory" in host


def test_where_nothing_helps_it_is_said(monkeypatch):
    tiny = dataclasses.replace(SMALL_CARD, mib=2000)
    found = advise(recipe("full32b", *PLAIN), ONE, tiny, ROW, QWEN_32B)
    assert found.changes == ()
    monkeypatch.setattr(advice, "GPUS", {"tiny": tiny})
    assert advise(recipe("full32b", *PLAIN), ONE, tiny, ROW, QWEN_32B).others == ()


# ---- how so many GPUs share the work


@pytest.mark.parametrize(
    ("name", "gpus", "kind", "tried"),
    [
        ("qlora32b", 8, "ddp", []),
        ("lora32b", 8, "fsdp2", ["data parallel"]),
        ("full32b", 8, "zero3", ["data parallel", "FSDP2"]),
        ("full32b", 16, "fsdp2", ["data parallel"]),
        ("lora32b", 2, "fsdp2", ["data parallel"]),
    ],
)
def test_the_first_way_that_fits_is_chosen(name, gpus, kind, tried):
    way, told = choose(recipe(name), gpus, H100, ROW, QWEN_32B)
    assert (way.kind, way.processes, way.nodes) == (kind, gpus, 1 + (gpus > 8))
    assert total(recipe(name), way) <= H100.usable
    assert [line.partition(" does not: ")[0] for line in told] == tried


def test_where_no_way_fits_the_plan_still_has_one():
    way, told = choose(recipe("full32b"), 8, dataclasses.replace(H100, mib=20000), ROW, QWEN_32B)
    assert (way.kind, told) == ("fsdp2", ())
    way, told = choose(recipe("qlora32b"), 2, SMALL_CARD, ROW, QWEN_32B)
    assert (way.kind, told) == ("ddp", ())


# ---- after all it did not fit, or there is room to spare


def test_relief_saves_a_fifth():
    asked = recipe("qlora32b", *PLAIN)
    text = relieve(asked, ONE, H100, ROW, QWEN_32B)
    changes = text.removeprefix("set ").partition(" (")[0].split()
    saved = total(asked) - total(recipe("qlora32b", *PLAIN, *changes))
    assert saved > 0.2 * total(asked) and f"{saved / 1e9:,.1f} GB less" in text


def test_relief_without_a_way_says_so(monkeypatch):
    monkeypatch.setattr(advice, "_possible", lambda recipe, gpu: iter(()))
    assert "use a larger GPU" in relieve(recipe("qlora32b"), ONE, H100, ROW, QWEN_32B)


def test_spare_memory_is_spent_on_attention_first():
    changes, setup = spend(recipe("qlora32b", *PLAIN), ONE, H100, ROW, QWEN_32B)
    assert changes[0] == "train.selective_checkpointing=true"
    assert changes[1] == f"train.unchecked_layers={setup.unchecked}" and setup.unchecked >= 2
    spent = total(recipe("qlora32b", *PLAIN, *changes))
    assert 0.85 * H100.usable < spent <= advice.NARROW * H100.usable


def test_nothing_is_spent_where_nothing_is_recomputed_or_there_is_no_room():
    for overrides in (
        ("train.gradient_checkpointing=false",),
        ("train.activation_offloading=true",),
    ):
        assert spend(recipe("qlora32b", *PLAIN, *overrides), ONE, H100, ROW, QWEN_32B)[0] == ()
    assert spend(recipe("qlora32b", *PLAIN), ONE, find_gpu("l40s"), ROW, QWEN_32B)[0] == ()
    zero = Launcher(kind="zero3", processes=8)  # reentrant checkpoints keep nothing
    found, _ = spend(recipe("lora32b", *PLAIN), zero, H100, ROW, QWEN_32B)
    assert not any("selective" in change for change in found)

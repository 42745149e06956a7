"""The bytes of the plan against bytes that models really allocate, and against hand-made tables."""

import dataclasses

import pytest
import torch
from memory_cases import (
    LORA,
    SMALL,
    build,
    forward,
    held,
    kept_bytes,
    optimizer_for,
    peak_at_true_shapes,
    peak_bytes,
    setup_for,
    shapes_of,
)

from longcot import memory
from longcot.memory import NF4, Setup, estimate, trainable
from longcot.shapes import KNOWN
from longcot.sharding import Launcher

STATIC = ("weights", "adapters", "gradients", "optimizer")
MIXED = {"base": "bfloat16", "autocast": True}
FUSED = {"fused": True, "fused_lora": True}
ON_GPU = {"attention": "flash", "cuda": True}


def moving(found: memory.Memory) -> float:
    return found.total - sum(found.kinds[kind] for kind in STATIC)


@pytest.fixture
def narrow_head(monkeypatch):
    """A head whose tile is small, so that the layers are the worst moment, as at true sizes."""
    monkeypatch.setattr("trl.trainer.utils._CHUNKED_LOGPROB_CHUNK_SIZE", 64)
    monkeypatch.setattr(memory, "TILE_WORDS", 64)


# ---- against allocated bytes


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [True, False], ids=["checkpointed", "unchecked"])
@pytest.mark.parametrize(
    "changes",
    [{}, {"lora": None}, MIXED, {"lora": None, "autocast": True}, {"masked": True}],
    ids=["lora", "full", "lora-mixed", "full-mixed", "lora-masked"],
)
def test_a_step_on_cpu_allocates_what_is_estimated(changes, checkpointing, narrow_head):
    """Small Qwen2, every allocation of a real step counted: within a tenth, in all and on the move."""
    setup = setup_for(checkpointing=checkpointing, **changes)
    model = build(setup)
    optimizer = optimizer_for(model, setup)
    step(model, setup, optimizer)  # gradients and states come to life
    there = held(model, optimizer)
    found = estimate(shapes_of(SMALL), setup)
    for kind in STATIC:
        assert found.kinds[kind] == pytest.approx(there[kind], rel=0.01), kind
    allocated = peak_bytes(lambda: step(model, setup, optimizer))
    assert moving(found) == pytest.approx(allocated, rel=0.1)
    assert found.total == pytest.approx(allocated + sum(there.values()), rel=0.1)
    assert found.moment in ("a rerun layer", "last layer", "loss")


def step(model, setup, optimizer) -> None:
    forward(model, setup).backward()
    optimizer.step()


@pytest.mark.parametrize("changes", [{}, {"lora": None}], ids=["lora", "full"])
def test_the_head_with_its_own_tile(changes):
    """TRL's head as it is: on CPU its tile outweighs a small model's layers."""
    setup, config = setup_for(**changes), {**SMALL, "vocab_size": 4096}
    model = build(setup, config)
    forward(model, setup).backward()
    allocated = peak_bytes(lambda: forward(model, setup).backward())
    found = estimate(shapes_of(config), setup)
    assert found.moment == "loss"
    assert moving(found) == pytest.approx(allocated, rel=0.05)


@pytest.mark.parametrize(
    "changes",
    [
        {"checkpointing": False},
        {"checkpointing": False, "lora": None},
        {"checkpointing": False, **MIXED},
        {},
        {"unchecked": 2},
    ],
    ids=["lora", "full", "lora-mixed", "checkpointed", "partly"],
)
def test_what_autograd_keeps_for_a_layer(changes, narrow_head):
    """saved_tensors_hooks on 6 and on 3 layers: their difference is three layers'."""
    kept, counted = {}, {}
    for layers in (3, 6):
        config = {**SMALL, "num_hidden_layers": layers}
        setup = setup_for(tokens=256, row=256, **changes)
        kept[layers] = kept_bytes(build(setup, config), setup)
        kinds = estimate(shapes_of(config), setup).kinds
        counted[layers] = kinds["layer inputs"] + kinds["unchecked layers"]
    if "unchecked" in changes:  # two unchecked layers in each; at the worst moment they may be gone
        counted = {layers: layers * 256 * 4 * 160 for layers in (3, 6)}
    assert counted[6] - counted[3] == pytest.approx(kept[6] - kept[3], rel=0.05)


WIDE = {**KNOWN["Qwen/Qwen2.5-32B"], "num_hidden_layers": 3, "vocab_size": 1024}
WIDE = {key: value for key, value in WIDE.items() if value is not None}


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        MIXED,
        {**MIXED, "checkpointing": False},
        {**MIXED, "branch_first": False, "cast_inputs": True},
        {**MIXED, "cast_inputs": True},
        {**MIXED, "unchecked": 1},
        {"lora": None, "autocast": True},
    ],
    ids=["lora", "unchecked", "plain-peft", "copied", "partly", "full"],
)
def test_layers_of_32b_at_16k_tokens(changes):
    """Three layers at Qwen2.5-32B's widths on fake tensors, each storage followed: within 5%."""
    lora = dataclasses.replace(LORA, r=64)
    setup = setup_for(**{"lora": lora, "tokens": 16384, "row": 16384, **changes})
    peak = peak_at_true_shapes(setup, WIDE)
    found = estimate(shapes_of(WIDE), setup)
    assert found.total - found.kinds["optimizer"] == pytest.approx(peak, rel=0.05)


# ---- against the table of performance.md, section 2, in GB

TABLE = {  # tokens: base: eager + fp32 Adam, fused + 8-bit, + inputs offloaded, + attention kept
    8192: {"nf4": (41, 33, 28, 39), "fp8": (56, 48, 43, 54), "bfloat16": (87, 79, 74, 85)},
    16384: {"nf4": (51, 41, 31, 52), "fp8": (66, 56, 46, 67), "bfloat16": (96, 87, 77, 98)},
    32768: {"nf4": (70, 57, 36, 79), "fp8": (85, 72, 51, 94), "bfloat16": (116, 103, 82, None)},
}
COLUMNS = (
    {"optim": "adamw_torch_fused", "branch_first": False, "cast_inputs": True},
    FUSED,
    {**FUSED, "offload": True},
    {**FUSED, "selective": True},
)
QWEN_32B = shapes_of(KNOWN["Qwen/Qwen2.5-32B"])


def one_gpu(tokens=16384, **changes) -> Setup:
    lora = dataclasses.replace(LORA, r=64)
    settings = {**MIXED, **ON_GPU, "optim": "adamw_8bit", "lora": lora, **changes}
    return setup_for(tokens=tokens, row=tokens, **settings)


@pytest.mark.parametrize(
    ("tokens", "base", "column", "expected"),
    [
        (tokens, base, column, expected)
        for tokens, bases in TABLE.items()
        for base, row in bases.items()
        for column, expected in enumerate(row)
        if expected
    ],
)
def test_lora_of_32b_on_one_gpu(tokens, base, column, expected):
    found = estimate(QWEN_32B, one_gpu(tokens, base=base, **COLUMNS[column]))
    assert found.total / 1e9 == pytest.approx(expected, rel=0.1)


# ---- by hand


def test_static_bytes_of_32b():
    kinds = estimate(QWEN_32B, one_gpu(base="nf4")).kinds
    assert kinds["weights"] / 1e9 == pytest.approx(19.2, abs=0.1)
    assert pytest.approx(0.5159, abs=1e-4) == NF4
    adapters = trainable(QWEN_32B, one_gpu())
    assert adapters == 536_870_912
    assert kinds["adapters"] == kinds["gradients"] == 4 * adapters
    assert kinds["optimizer"] == pytest.approx(2.03 * adapters, rel=0.01)
    assert estimate(QWEN_32B, one_gpu()).kinds["weights"] == 2 * QWEN_32B.total
    assert kinds["layer inputs"] == 64 * 16384 * 5120 * 2


def test_sharding_divides_what_lies_still():
    alone = estimate(QWEN_32B, one_gpu())
    eight = one_gpu(launcher=Launcher(kind="fsdp2", processes=8))
    found = estimate(QWEN_32B, eight)
    for kind in STATIC:
        assert found.kinds[kind] == pytest.approx(alone.kinds[kind] / 8), kind
    assert found.kinds["layer inputs"] == alone.kinds["layer inputs"]
    assert found.kinds["gathered"] == 2 * 2 * QWEN_32B.linear / 64  # two layers in bfloat16
    copies = estimate(QWEN_32B, one_gpu(launcher=Launcher(kind="ddp", processes=8)))
    assert copies.kinds["gradients"] == 2 * alone.kinds["gradients"]  # and their buckets
    assert copies.kinds["weights"] == alone.kinds["weights"]


def test_the_loss_of_a_sharded_model_gathers_the_head():
    """At short rows the loss is the worst moment; the head is whole there, and two layers are."""
    found = estimate(QWEN_32B, one_gpu(64, launcher=Launcher(kind="fsdp2", processes=8)))
    assert found.moment == "loss"
    assert found.kinds["loss"] == pytest.approx(2 * 152064 * 5120, rel=0.01)


def test_full_fine_tuning_under_zero3_with_and_without_the_host():
    """16 bytes a parameter: 2 weight, 2 gradient, 4 master, 8 Adam."""
    full = {"lora": None, "base": "float32", "optim": "adamw_torch"}
    zero = Launcher(kind="zero3", processes=8)
    found = estimate(QWEN_32B, one_gpu(**full, launcher=zero))
    assert sum(found.kinds[kind] for kind in STATIC) == pytest.approx(16 * QWEN_32B.total / 8)
    assert found.host == 0
    away = dataclasses.replace(zero, offload_parameters=True, offload_optimizer=True)
    offloaded = estimate(QWEN_32B, one_gpu(**full, launcher=away))
    assert sum(offloaded.kinds[kind] for kind in STATIC) == 0
    assert offloaded.host == pytest.approx(16 * QWEN_32B.total)  # eight processes, one node
    two = dataclasses.replace(away, processes=16, nodes=2)
    assert estimate(QWEN_32B, one_gpu(**full, launcher=two)).host == pytest.approx(
        offloaded.host / 2
    )


def test_kept_attention_costs_one_hidden_state_a_layer():
    plain, kept = one_gpu(base="nf4"), one_gpu(base="nf4", selective=True)
    more = estimate(QWEN_32B, kept).kinds["attention outputs"]
    assert more == pytest.approx(estimate(QWEN_32B, plain).kinds["layer inputs"], rel=0.02)


def test_the_first_unchecked_layer_costs_least():
    """The last layer's whole set is there anyway when its backward pass begins."""
    totals = [estimate(QWEN_32B, one_gpu(base="nf4", unchecked=k)).total for k in range(4)]
    first, second, third = (after - before for before, after in zip(totals, totals[1:]))
    assert first < second / 2 and second == pytest.approx(third)


def test_a_longer_row_a_mask_and_eager_attention_cost_more():
    short, long = one_gpu(8192), one_gpu(16384)
    assert estimate(QWEN_32B, long).total > estimate(QWEN_32B, short).total
    for attention in ("sdpa", "eager"):
        masked = dataclasses.replace(short, attention=attention, masked=True)
        assert estimate(QWEN_32B, masked).total > estimate(QWEN_32B, short).total
    assert estimate(QWEN_32B, masked).total > 83e9  # 40 heads x 8,192 squared, in float32


def test_cpu_runs_have_no_workspace():
    assert estimate(QWEN_32B, one_gpu()).kinds["workspace"] == 2e9
    assert estimate(QWEN_32B, setup_for(lora=LORA)).kinds["workspace"] == 0
    assert torch.get_default_dtype() == torch.float32  # the cases above put it back

"""Work and predicted speed against a count on the meta device and against worked-out tables."""

import dataclasses

import pytest
from memory_cases import LORA, setup_for, shapes_of

from longcot.flops import count_on_meta, count_work, seconds_per_token
from longcot.hardware import find_gpu
from longcot.shapes import KNOWN
from longcot.sharding import Launcher

QWEN_32B = shapes_of(KNOWN["Qwen/Qwen2.5-32B"])
H100 = find_gpu("h100")
HEAD = 1.557  # GFLOP/token: TRL's head computes its logits again, which the tables leave out
STOCK = {"base": "nf4", "autocast": True, "attention": "flash", "cuda": True, "tokens": 16384,
         "row": 16384, "lora": dataclasses.replace(LORA, r=64), "branch_first": False}  # fmt: skip
FUSED = {"fused": True, "fused_lora": True}
FULL = {"lora": None, "base": "float32"}


def setup(**changes):
    return setup_for(**{**STOCK, **changes})


@pytest.mark.parametrize(
    ("length", "model", "plain", "selective", "whole", "early"),
    [
        (6400, 143.8, 145.9, 209.3, 213.5, 191.2),
        (8800, 148.5, 151.4, 214.9, 220.7, 196.8),
        (10800, 152.3, 155.9, 219.4, 226.4, 201.3),
        (16384, 163.4, 168.7, 232.2, 243.0, 214.1),
    ],
)
def test_work_of_lora_on_32b(length, model, plain, selective, whole, early):
    """performance.md, section 2; GFLOP per token at a length-weighted mean document."""

    def work(**changes):
        found = count_work(QWEN_32B, setup(**changes), length)
        return {k: v / 1e9 for k, v in dataclasses.asdict(found).items()}

    assert work()["model"] == pytest.approx(model, rel=0.002)
    assert work()["plain"] - HEAD == pytest.approx(plain, rel=0.002)
    assert work()["executed"] - HEAD == pytest.approx(whole, rel=0.002)
    assert work(selective=True)["executed"] - HEAD == pytest.approx(selective, rel=0.002)
    kept = {"selective": True, "branch_first": True}
    assert work(**kept)["executed"] - HEAD == pytest.approx(early, rel=0.002)
    assert work()["stock"] == work(**kept, unchecked=9)["stock"] == work()["executed"]
    unchecked = work(checkpointing=False)
    assert unchecked["executed"] == unchecked["stock"] == work()["plain"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"selective": True},
        {"selective": True, "branch_first": True},
        {"selective": True, "branch_first": True, "unchecked": 10},
        {"checkpointing": False},
        FULL,
    ],
    ids=["stock", "selective", "early", "partly", "unchecked", "full"],
)
@pytest.mark.parametrize(
    "name", ["Qwen/Qwen2.5-32B", "meta-llama/Llama-3.1-8B", "google/gemma-2-9b"]
)
def test_the_formulas_are_what_flopcountermode_counts(name, changes):
    shapes, asked = shapes_of(KNOWN[name]), setup(**changes)
    counted, formula = (count(shapes, asked, 5461) for count in (count_on_meta, count_work))
    for part in ("model", "plain", "executed", "stock"):
        assert getattr(formula, part) == pytest.approx(getattr(counted, part), rel=0.005), part


def test_masked_attention_executes_every_pair_of_a_row():
    causal = count_work(QWEN_32B, setup(), 6000)
    masked = count_work(QWEN_32B, setup(attention="sdpa", masked=True), 6000)
    assert masked.model == causal.model
    assert masked.attention / causal.attention == pytest.approx(2 * 16384 / 6000)


TIMES = [  # tokens per second of performance.md's time model, each step on top of the one before
    (2150, {}, None),
    (2420, FUSED, None),
    (2530, {**FUSED, "selective": True}, None),
    (2710, {**FUSED, "selective": True, "branch_first": True}, None),
    (2810, {**FUSED, "selective": True, "branch_first": True, "unchecked": 10}, None),
    (2990, {**FUSED, "selective": True, "branch_first": True, "unchecked": 10}, 500),
    (3750, {"base": "fp8", **FUSED, "selective": True, "branch_first": True}, None),
    (4140, {"base": "fp8", **FUSED, "selective": True, "branch_first": True, "unchecked": 5},
     500),
]  # fmt: skip


@pytest.mark.parametrize(("expected", "changes", "attention"), TIMES)
def test_predicted_speed_on_an_h100(expected, changes, attention):
    asked = setup(**changes)
    work = count_work(QWEN_32B, asked, 8800)
    seconds = seconds_per_token(QWEN_32B, asked, work, H100, attention)
    assert 1 / seconds == pytest.approx(expected, rel=0.02)


def speed(gpu="h100", **changes) -> float:
    asked = setup(**changes)
    return 1 / seconds_per_token(QWEN_32B, asked, count_work(QWEN_32B, asked, 8800), find_gpu(gpu))


def test_slower_gpus_are_slower():
    assert speed("a100") < speed("h100-pcie") < speed("h100") < speed("b200")


def test_sharding_costs_where_rows_are_too_short_to_hide_it():
    """65 GB, twice a pass, over NVLink, PCIe or a network, behind the products or not."""

    def sharded(gpu="h100", row=16384, processes=8, nodes=1) -> float:
        launcher = Launcher(kind="fsdp2", processes=processes, nodes=nodes)
        return speed(gpu, base="bfloat16", tokens=row, row=row, launcher=launcher)

    alone = speed(base="bfloat16")
    assert sharded() == pytest.approx(0.95 * alone)  # hidden; several processes wait for each other
    assert sharded(row=256) < alone / 2
    assert sharded(row=2048, processes=16, nodes=2) < alone / 2 < sharded(row=2048)


def test_fp8_is_faster_only_where_the_gpu_multiplies_it():
    assert speed(base="fp8") > 1.2 * speed(base="bfloat16")
    assert speed("a100", base="fp8") == pytest.approx(speed("a100", base="bfloat16"))


def test_nothing_is_predicted_for_a_cpu_or_float32():
    work = count_work(QWEN_32B, setup(), 8800)
    assert seconds_per_token(QWEN_32B, setup(), work, find_gpu("cpu")) is None
    plain = setup(base="float32", autocast=False)
    assert seconds_per_token(QWEN_32B, plain, work, H100) is None

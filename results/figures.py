"""What a timed contender of results.throughput comes to, and what `--plan` predicts for it.

Plain arithmetic, nothing loaded: the page uses it for what was not run, too.
"""

import statistics
from dataclasses import replace
from typing import Any

from longcot.advice import setup_of
from longcot.flops import count_work, seconds_per_token
from longcot.hardware import GPUS, Gpu
from longcot.memory import Setup, estimate
from longcot.recipe import Recipe
from longcot.shapes import Shapes
from longcot.sharding import Launcher

TOLERANCE = 0.1  # a prediction further off is a miss, which wants an explanation


def setup_for(contender: str, recipe: Recipe, shapes: Shapes, ran: dict | None = None) -> Setup:
    """How a contender trains, as `memory` and `flops` see it; `ran`: as what it really used says."""
    setup = setup_of(recipe, Launcher(), recipe.data.max_length)
    cuda = setup.cuda
    rival = replace(
        setup, checkpointing=True, unchecked=0, offload=False, branch_first=False, cast_inputs=True
    )
    eight_bit = "adamw_8bit" if cuda else "adamw_torch_fused"
    setup = {
        "trl_plain": replace(
            rival, attention="sdpa", masked=True, selective=False, fused=False,
            optim="adamw_torch_fused",
        ),
        "trl_best": replace(
            rival, attention="flash" if cuda else "sdpa", masked=not cuda, selective=True,
            fused=cuda, optim=eight_bit,
        ),
        "unsloth": replace(
            rival, attention="flash", masked=False, selective=False, offload=True, fused=True,
            fused_lora=True, optim=eight_bit,
        ),
    }.get(contender, setup)  # fmt: skip
    if ran is None or contender == "unsloth":  # whose layers are its own
        return setup
    checked = ran["layers_checkpointed"]
    return replace(
        setup,
        checkpointing=checked > 0,
        unchecked=shapes.layers - checked if checked else 0,
        selective=ran["attention_kept"] > 0,
        fused=ran["liger"],
        branch_first=ran["branch_first"],
        attention=ran["attention"] if ran["attention"] in ("sdpa", "eager") else "flash",
        masked=ran["attention"] in ("sdpa", "eager"),
        optim=ran["optimizer"],
    )


def predict(shapes: Shapes, setup: Setup, length: float, gpu: Gpu | None) -> dict[str, Any]:
    """Tokens/s (None where no rate is known), and bytes that torch allocates at the worst moment.

    `length`: the length-weighted mean document. The plan's total adds `workspace`, which torch does
    not count.
    """
    work, memory = count_work(shapes, setup, length), estimate(shapes, setup)
    seconds = seconds_per_token(shapes, setup, work, gpu) if gpu else None
    return {
        "tokens_per_second": 1 / seconds if seconds else None,
        "peak_bytes": memory.total - memory.kinds["workspace"],
        "plan_total_bytes": memory.total,
    }


def find_card(device: str) -> Gpu | None:
    """The GPU of the table whose name is in what CUDA calls the device; of several the longest."""
    told = device.lower()
    found = [g for g in GPUS.values() if all(part in told for part in g.name.split("-"))]
    return max(found, key=lambda gpu: len(gpu.name), default=None)


def slug(device: str) -> str:
    """The device as it stands in file names."""
    card = find_card(device)
    return card.name if card else "-".join(device.lower().split())


def weighted(documents: list[int]) -> float:
    """The length of the document that a mean token lies in."""
    return sum(n * n for n in documents) / sum(documents)


def tell(
    contender: str,
    recipe: Recipe,
    shapes: Shapes,
    *,
    seconds: list[float],
    history: list[dict],
    peak: tuple[int, int],
    ran: dict[str, Any],
    prepared: dict[str, Any],
) -> dict[str, Any]:
    """The figures of a finished contender; `history`: one log entry a step, warm-up included.

    MFU = model FLOP/token x tokens/s / the card's bfloat16 rate, HFU the same with executed FLOP
    (`longcot.flops`, the language-model head whole); of the floor: the time that the FLOP without
    recomputation take at the rate of a large product measured just before, over the time taken.
    """
    device, ceilings = prepared["device"], prepared["ceilings"]
    length, card = weighted(prepared["rows"]["documents"]), find_card(device)
    counts = [0, *(entry["num_tokens"] for entry in history)]
    tokens = [after - before for before, after in zip(counts, counts[1:], strict=False)]
    timed = tokens[-len(seconds) :]
    rates = [count / taken for count, taken in zip(timed, seconds, strict=True)]
    rate = statistics.median(rates)
    setup = setup_for(contender, recipe, shapes, ran)
    work = count_work(shapes, setup, length)
    top = card.bf16 * 1e12 if card else ceilings["gemm_flops"]
    return {
        "device": device,
        "steps": len(seconds),
        "warm_up": len(tokens) - len(seconds),
        "tokens_per_step": statistics.mean(timed),
        "seconds": statistics.quantiles(seconds, n=4),
        "tokens_per_second": rate,
        "tokens_per_second_quartiles": statistics.quantiles(rates, n=4),
        "model_flops_per_token": work.model,
        "executed_flops_per_token": work.executed,
        "peak_flops": top,
        "mfu": work.model * rate / top,
        "hfu": work.executed * rate / top,
        "floor_share": floor_seconds(shapes, setup, length, ceilings) * rate,
        "peak_bytes": peak[0] or None,
        "reserved_bytes": peak[1] or None,
        "predicted": predict(shapes, setup, length, card),
        "explained": {},
        "losses": [entry["loss"] for entry in history],
        "ran": ran,
        "ceilings": ceilings,
        "rows": {
            "weighted_length": length,
            **{key: prepared["rows"][key] for key in ("count", "tokens", "sha256")},
        },
    }


def floor_seconds(shapes: Shapes, setup: Setup, length: float, ceilings: dict) -> float:
    """Seconds a token takes at least: nothing computed twice or masked away, every FLOP at the rate
    measured for a large product, the frozen products of an FP8 base at FP8's."""
    least = replace(
        setup, checkpointing=False, unchecked=0, selective=False, offload=False,
        attention="flash", masked=False,
    )  # fmt: skip
    work = count_work(shapes, least, length)
    rate = ceilings["gemm_flops"]
    frozen = ceilings.get("fp8_flops", rate) if setup.base == "fp8" else rate
    return work.frozen / frozen + (work.plain - work.frozen) / rate


def misses(record: dict[str, Any]) -> dict[str, float]:
    """Measured over predicted, less one, of every figure that lies further off than TOLERANCE."""
    return {key: off for key, off in deviations(record).items() if abs(off) > TOLERANCE}


def deviations(record: dict[str, Any]) -> dict[str, float]:
    """Measured over predicted, less one, where there are both."""
    predicted = record.get("predicted") or {}
    return {
        key: record[key] / predicted[key] - 1
        for key in ("tokens_per_second", "peak_bytes")
        if record.get(key) and predicted.get(key)
    }

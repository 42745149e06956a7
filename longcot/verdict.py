"""A plan as text, the verdict first, and as plain data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from longcot.advice import NARROW

if TYPE_CHECKING:
    from longcot.plan import Plan

BASES = {
    "nf4": "NF4, double quantised; embedding and head bfloat16",
    "fp8": "FP8; embedding and head bfloat16",
    "bfloat16": "bfloat16",
    "float32": "float32",
}
SMALL = 2e9  # bytes below which a plan is told in MB


def lines(plan: Plan) -> Iterator[str]:
    """The plan for reading: verdict, memory by kind, the run."""
    memory, gpu = plan.memory, plan.gpu
    unit, scale = ("MB", 1e6) if memory.total < SMALL else ("GB", 1e9)

    def row(kind: str, size: float, note: str) -> str:
        return f"  {kind:18}{size / scale:>9,.1f}  {note}".rstrip()

    yield from _verdict(plan)
    where = f"{plan.launcher.processes} x {gpu.title}" if gpu.bf16 else gpu.title
    each = " for each GPU" if plan.launcher.processes > 1 else ""
    yield ""
    yield f"{plan.recipe.name} on {where}, {plan.launcher}"
    yield f"memory{each} at its worst moment, {memory.moment}, in {unit}"
    notes = _notes(plan)
    for kind, size in memory.kinds.items():
        if size >= scale / 20:
            yield row(kind, size, notes.get(kind, ""))
    yield row("total", memory.total, f"of {gpu.usable / scale:,.1f} usable")
    if memory.host:
        yield row("host memory", memory.host, "on each node")
    if plan.room:
        gain = f" (predicted {plan.gain - 1:.0%} faster)" if plan.gain else ""
        yield f"  room for {' '.join(plan.room)}{gain}"
    yield "run"
    yield from (f"  {name:12}{value}" for name, value in _run(plan))


def _verdict(plan: Plan) -> list[str]:
    needed, usable = plan.memory.total, plan.gpu.usable
    total = f"{needed / 1e9:,.1f} of {usable / 1e9:,.1f} GB"
    if plan.advice is None:
        narrow = needed > NARROW * usable
        how = f", by {plan.launcher}" * bool(plan.tried)
        text = f"fits: {total}{how}" + ", narrowly (these counts are good to a tenth)" * narrow
        return [text, *(f"  {way}" for way in plan.tried)]
    changes, others = plan.advice.changes, [f"  or {way}" for way in plan.advice.others]
    if changes:
        return [f"does not fit: {total}; set {' '.join(changes)} ({plan.advice.note})", *others]
    return [f"does not fit: {total}, and no key of the recipe mends that", *others]


def _notes(plan: Plan) -> dict[str, str]:
    setup, shapes = plan.setup, plan.shapes
    checked = setup.checked(shapes)
    piece = f", 1/{setup.launcher.shards} of them" * (setup.launcher.shards > 1)
    return {
        "weights": BASES[setup.base] + piece,
        "gathered": "whole layers, in bfloat16, while they run",
        "adapters": f"{plan.trained:,} parameters{piece}" * (setup.lora is not None),
        "gradients": "and the buckets they are exchanged in" * (setup.launcher.kind == "ddp"),
        "optimizer": plan.recipe.train.optim,
        "layer inputs": f"{checked} checkpointed layers, {setup.tokens:,} tokens",
        "attention outputs": "kept instead of computed again",
        "unchecked layers": f"{shapes.layers - checked} layers, {setup.tokens:,} tokens",
        "one layer": "what its second forward and its backward pass have at once",
        "cast weights": "trained weights in bfloat16, as autocast keeps them",
        "loss": "hidden states, their gradient, a tile of logits",
        "workspace": "CUDA context, libraries, fragmentation: assumed",
    }


def _run(plan: Plan) -> Iterator[tuple[str, str]]:
    rows, work = plan.rows, plan.work
    total = plan.shapes.total + (plan.trained if plan.setup.lora else 0)
    share = f"{plan.trained:,} trained ({plan.trained / total:.1%})"
    yield "parameters", f"{total:,}, {share}; {plan.shapes.source}"
    packed = f" in {rows.sequences:,} packed sequences" * plan.recipe.data.packing
    yield "rows", f"{len(rows.kept):,}{packed}, {rows.mean:,.0f} tokens each; {rows.source}"
    if rows.over_long:
        dropped = rows.over_long / (rows.over_long + len(rows.kept))
        yield "dropped", f"{rows.over_long:,} rows above data.max_length ({dropped:.1%})"
    yield "steps", str(plan.steps)
    if command := plan.gpu.bf16 and plan.launcher.command:
        words = " ".join((plan.recipe.path, *plan.recipe.overrides))
        yield "launch", f"accelerate launch {command} train.py {words}"
    yield "tokens", f"{plan.tokens / 1e6:,.1f} M in {plan.recipe.train.num_train_epochs:g} epochs"
    how = "FlopCounterMode, meta device" if plan.counted else "formula"
    yield (
        "work",
        (
            f"{work.executed / 1e9:,.4g} GFLOP/token executed, {work.model / 1e9:,.4g} of the model: "
            f"{work.executed / work.model:.2f} x; {work.executed / work.plain:.2f} x no checkpointing, "
            f"where stock TRL and PEFT execute {work.stock / work.plain:.2f} x ({how})"
        ),
    )
    if plan.rate is None or plan.hours is None or plan.cost is None:
        yield "speed", "nothing to predict it from; measure, then give it with --tokens-per-second"
        return
    used = f", MFU {work.model * plan.rate / plan.gpu.bf16 / 1e12:.0%}" if plan.gpu.bf16 else ""
    word = "predicted" if plan.predicted else "given"
    host = ", without the host's part" * (plan.predicted and bool(plan.memory.host))
    yield "speed", f"{plan.rate:,.0f} tokens/s on each GPU, {word}{host}{used}"
    yield "time", f"{plan.hours:,.1f} h, {plan.hours * plan.launcher.processes:,.1f} GPU-hours"
    yield "cost", f"${plan.cost:,.0f} at ${plan.price:.2f} per GPU-hour"


def facts(plan: Plan) -> dict[str, Any]:
    """The plan as plain data: bytes, FLOP per token, hours, dollars."""
    rows, work, shapes = plan.rows, plan.work, plan.shapes
    return {
        "verdict": _verdict(plan),
        "fits": plan.fits,
        "recipe": plan.recipe.path,
        "overrides": plan.recipe.overrides,
        "gpu": asdict(plan.gpu) | {"usable": plan.gpu.usable},
        "launcher": asdict(plan.launcher) | {"command": plan.launcher.command},
        "tried": plan.tried,
        "shapes": asdict(shapes) | {"biases": sorted(shapes.biases)},
        "parameters": {"base": shapes.total, "trained": plan.trained},
        "memory": asdict(plan.memory) | {"total": plan.memory.total},
        "advice": asdict(plan.advice) if plan.advice else None,
        "room_for": {"changes": plan.room, "gain": plan.gain},
        "rows": {
            "kept": len(rows.kept),
            "over_long": rows.over_long,
            "sequences": rows.sequences,
            "tokens": rows.tokens,
            "mean": rows.mean,
            "weighted_mean": rows.weighted,
            "longest": rows.longest,
            "source": rows.source,
        },
        "steps": asdict(plan.steps),
        "tokens": plan.tokens,
        "work": asdict(work)
        | {
            "executed_to_model": work.executed / work.model,
            "executed_to_plain": work.executed / work.plain,
            "stock_to_plain": work.stock / work.plain,
            "counted": plan.counted,
        },
        "tokens_per_second": plan.rate,
        "predicted": plan.predicted,
        "hours": plan.hours,
        "gpu_hours": plan.hours * plan.launcher.processes if plan.hours else None,
        "price": plan.price,
        "cost": plan.cost,
    }

"""Floating-point operations of a training step, per token, and the time they are predicted to take.

Formulas of a decoder's matrix products; a multiplication and an addition are two. The tests hold them
against `recompute.count_flops`, which counts the same step with FlopCounterMode on the meta device.
The time model is a prediction, with the rates an H100 is expected to sustain; `--benchmark` measures.
"""

from dataclasses import dataclass, replace
from functools import partial

from longcot.hardware import Gpu
from longcot.memory import NF4, Setup, trainable
from longcot.shapes import Shapes

# Shares of the data sheet's rates that long products, and elementwise passes, are taken to sustain.
PRODUCTS, FP8_PRODUCTS, MEMORY = 680 / 989, 1200 / 1979, 3.0 / 3.35
# Bytes that elementwise work moves, as passes over every linear's bfloat16 input and output: eager
# layers under full recomputation; what liger's fused ones save of it, what LoRA inside the products
# would; and rounding activations to FP8.
EAGER, LIGER, FUSED_LORA, ROUNDING = 16.2, 4.6, 4.6, 2.8
RERUN_SHARE = 0.3  # of that traffic belongs to the second forward pass
UNPACKING = 0.6  # of the memory's rate that NF4 kernels reach
BETWEEN_NODES = 50  # GB/s to another node
BALANCE = 0.95  # of several processes: exchanges, and the slowest of them; their rows cost the same


@dataclass(frozen=True)
class Work:
    """FLOP per token of one training step."""

    model: float  # the useful part: what MFU counts, attention's backward as twice its forward
    plain: float  # executed without checkpointing
    executed: float  # executed with this recipe's checkpointing
    stock: float  # executed by plain TRL and PEFT, whose checkpointed layers all run again in full
    attention: float  # the part of `executed` that attention's kernels do
    frozen: float  # the part of `executed` that multiplies a frozen base's linears


def count_work(shapes: Shapes, setup: Setup, length: float) -> Work:
    """FLOP per token where tokens lie in documents of the length-weighted mean `length`.

    TRL's head computes its logits again in the backward pass, so its product is executed three
    times, four when it is trained. Masked attention (sdpa or eager on packed rows) computes every
    pair of a row; the model's share counts causal pairs within documents only.
    """
    full = setup.lora is None
    linear, head = 2.0 * shapes.linear, 2.0 * shapes.vocabulary * shapes.hidden
    adapters = 0.0 if full else 2.0 * trainable(shapes, setup)
    useful = 2.0 * shapes.layers * shapes.query * length
    attention = useful
    if setup.masked or setup.attention == "eager":
        attention = 4.0 * shapes.layers * shapes.query * setup.row
    passes = 3 if full else 2
    products = passes * (linear + head) + 3 * adapters
    plain = products + head + 3.5 * attention
    share = setup.checked(shapes) / shapes.layers
    last = 2.0 * shapes.layers * shapes.hidden * shapes.intermediate
    # The last product need not run again, unless a norm behind it wants its result.
    stops = setup.branch_first and setup.launcher.kind != "zero3"  # reentrant there
    rerun_linear = linear - last * ((full or stops) and shapes.norms == 2)
    rerun_attention = 0.0 if setup.selective else attention
    again = linear - last * (full and shapes.norms == 2) + adapters + attention
    rerun = share * (rerun_linear + adapters + rerun_attention)
    return Work(
        model=products + 3 * useful,
        plain=plain,
        executed=plain + rerun,
        stock=plain + again * setup.checkpointing,
        attention=3.5 * attention + share * rerun_attention,
        frozen=0.0 if full else 2 * linear + share * rerun_linear,
    )


def count_on_meta(shapes: Shapes, setup: Setup, length: float) -> Work:
    """`count_work` with its four sums counted by FlopCounterMode; imports torch, takes seconds."""
    from transformers import AutoConfig

    from longcot.recompute import count_flops

    document = max(1, round(length))
    count = partial(
        count_flops,
        AutoConfig.for_model(**shapes.config),
        [document] * max(1, round(setup.row / document)),
        rank=setup.lora.r if setup.lora else None,
        target_modules=setup.lora.target_modules if setup.lora else "all-linear",
        checkpointing=setup.checkpointing,
    )
    found = count(
        branch_first=setup.branch_first, attention_kept=setup.selective, unchecked=setup.unchecked
    )
    stock = count(branch_first=False, attention_kept=False)
    formula = count_work(shapes, setup, length)
    return replace(
        formula,
        model=found.model,
        plain=found.plain,
        executed=found.executed,
        stock=stock.executed,
    )


def seconds_per_token(
    shapes: Shapes, setup: Setup, work: Work, gpu: Gpu, attention: float | None = None
) -> float | None:
    """Predicted seconds of one GPU per token, or None where nothing is known (CPU, float32).

    `attention` is the TFLOP/s of its kernel; default: a FlashAttention-2 class one.
    """
    if not gpu.bf16 or setup.item != 2:
        return None
    rate, memory = gpu.bf16 * PRODUCTS * 1e12, gpu.bandwidth * MEMORY * 1e12
    fp8 = setup.base == "fp8" and gpu.fp8
    frozen_rate = gpu.fp8 * FP8_PRODUCTS * 1e12 if fp8 else rate
    seconds = work.frozen / frozen_rate
    seconds += (work.executed - work.frozen - work.attention) / rate
    seconds += work.attention / ((attention or gpu.bf16 * gpu.attention) * 1e12)
    widths = 2.0 * shapes.layers * sum(a + b for a, b in shapes.linears.values())
    share = setup.checked(shapes) / shapes.layers
    moved = EAGER - LIGER * setup.fused - FUSED_LORA * setup.fused_lora
    moved *= 1 - RERUN_SHARE * (1 - share)
    seconds += widths * (moved + (ROUNDING if fp8 else 0)) / memory
    if setup.base == "nf4":  # read, and written in bfloat16, once for every pass over the layers
        passes = 2 + share
        seconds += shapes.linear * (NF4 + 2) * passes / (UNPACKING * memory) / setup.tokens
    seconds = max(seconds, _exchange(shapes, setup, gpu))
    return seconds / (BALANCE if setup.launcher.processes > 1 else 1)


def _exchange(shapes: Shapes, setup: Setup, gpu: Gpu) -> float:
    """Seconds per token of gathering sharded layers, twice a pass; hidden behind work if shorter."""
    if setup.launcher.shards == 1:
        return 0.0
    link = min(gpu.link, BETWEEN_NODES) if setup.launcher.nodes > 1 else gpu.link
    sent = 2.0 * shapes.total * (3 if setup.lora is None else 2)
    pieces = setup.launcher.shards
    return sent * (pieces - 1) / pieces / (0.7 * link * 1e9) / setup.tokens

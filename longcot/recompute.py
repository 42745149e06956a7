"""Less recomputation under activation checkpointing, and a count of what a step really executes.

Checkpointing keeps a layer's input and runs the layer again in the backward pass. Three things
shorten that second run: the LoRA branch before the frozen product in `down_proj` (`lora_first`),
attention outputs kept (`keep_attention`), and layers not checkpointed at all (`leave_unchecked`).
Gradients stay those of plain PEFT. `count_flops` measures each on the meta device, without weights.

Where even the layers' inputs are too large, TRL's `activation_offloading` moves exactly them to
pinned host memory on a stream of its own; nothing is added to it here.
"""

import copy
import functools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)
from torch.utils.flop_counter import FlopCounterMode
from transformers import AttentionInterface, AutoModel, TrainerCallback
from transformers.modeling_layers import GradientCheckpointingLayer

from longcot import attention
from longcot.errors import LaunchError

# The last product of a layer: the only one whose result the layer's own backward does not need.
LAST = "down_proj"
# Names of the attention kernels' operators: SDPA's, torch's varlen_attn, flash-attn built or hub.
ATTENTION = ("_scaled_dot_product_", "_flash_attention_forward", "varlen_attn", "flash_attn")


# ---- the LoRA branch first


class _BranchFirst:
    """Over a PEFT layer: the same sum, its two terms computed in the other order.

    PEFT runs the frozen product first, so checkpointing has to run it again to reach what the
    branch's products save. In this order the last saved tensor precedes the frozen product, and
    non-reentrant checkpointing stops before it.
    """

    def forward(self: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        names = [name for name in self.active_adapters if name in self.lora_A]
        if self.disable_adapters or self.merged or self.lora_variant or kwargs or len(names) != 1:
            return super().forward(x, *args, **kwargs)  # pyright: ignore[reportAttributeAccessIssue]
        down, up = self.lora_A[names[0]], self.lora_B[names[0]]
        given = self._cast_input_dtype(x, down.weight.dtype)
        branch = up(down(self.lora_dropout[names[0]](given))) * self.scaling[names[0]]
        result = self.base_layer(x, *args)
        return (result + branch).to(result.dtype)


@functools.cache
def _over(kind: type) -> type:
    return type(f"BranchFirst{kind.__name__}", (_BranchFirst, kind), {})


def lora_first(model: torch.nn.Module) -> int:
    """Run the LoRA branch of every `down_proj` before its frozen product; returns how many.

    For any PEFT layer over a linear base, quantised ones too. Weights, names and files stay as they
    are. PEFT's `_register_custom_module` would not do: it goes by the base's type, not its name.
    """
    layers = [
        module
        for name, module in model.named_modules()
        if name.rpartition(".")[2] == LAST
        and isinstance(module, LoraLayer)
        and isinstance(module.get_base_layer(), torch.nn.Linear)
        and not isinstance(module, _BranchFirst)
    ]
    for layer in layers:
        layer.__class__ = _over(type(layer))
    return len(layers)


def _dropouts(layer: LoraLayer) -> list[torch.nn.Dropout]:
    return [d for d in layer.lora_dropout.values() if isinstance(d, torch.nn.Dropout)]


def keep_inputs(model: torch.nn.Module) -> int:
    """Hand adapters their inputs as they are; returns how many. For training under autocast alone.

    PEFT copies an input to the adapter's float32 first, and autocast rounds the copy back: the same
    numbers, but each adapter then keeps one of its own. The switch is PEFT's (its
    `helpers.disable_input_dtype_casting`); 4-bit layers do not cast under autocast anyway. Adapters
    with dropout are left alone: it would scale in bfloat16.
    """
    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    layers = [layer for layer in layers if not any(d.p for d in _dropouts(layer))]
    for layer in layers:
        layer.cast_input_dtype_enabled = False
    return len(layers)


# ---- what checkpointing keeps


def _policy(context: Any, operator: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    name = str(operator)
    kept = any(part in name for part in ATTENTION)
    return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE


def _checkpointed(model: torch.nn.Module) -> list[Any]:
    layers: list[Any] = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]
    if not layers or not any(layer.gradient_checkpointing for layer in layers):
        raise LaunchError(
            f"no layer of {type(model).__name__} is checkpointed, so nothing is recomputed that "
            "could be kept; set train.gradient_checkpointing=true"
        )
    return layers


def keep_attention(model: torch.nn.Module) -> None:
    """Keep attention outputs of checkpointed layers instead of computing them again.

    One hidden state of memory per layer and token. Call it once checkpointing is on. TRL 1.16 has
    the same as `gradient_checkpointing_kwargs={"selective": True}`, but its policy misses
    varlen_attn, and with PEFT on transformers 5.23 its wrapper is never called. Raises LaunchError
    under reentrant checkpointing, which DeepSpeed ZeRO-3 forces on adapters.
    """
    contexts = functools.partial(create_selective_checkpoint_contexts, _policy)
    for layer in _checkpointed(model):
        function = layer._gradient_checkpointing_func
        if getattr(function, "keywords", {}).get("use_reentrant", True):
            raise LaunchError(
                "attention outputs can be kept by non-reentrant checkpointing only; leave them out, "
                "or use FSDP2 instead of DeepSpeed ZeRO-3"
            )
        layer._gradient_checkpointing_func = functools.partial(function, context_fn=contexts)


def leave_unchecked(model: torch.nn.Module, count: int) -> None:
    """Leave the last `count` layers without checkpointing.

    The last ones, because the backward pass frees theirs before any layer is run again: a set of
    activations less at the peak than with layers anywhere else, so the first one costs no memory.
    """
    layers = _checkpointed(model)
    if not 0 <= count <= len(layers):
        raise LaunchError(f"{count} layers cannot be left unchecked: the model has {len(layers)}")
    for layer in layers[len(layers) - count :]:
        layer.gradient_checkpointing = False


class Recompute(TrainerCallback):
    """Apply the two above when training starts, after the Trainer has turned checkpointing on."""

    def __init__(self, *, attention_kept: bool, unchecked: int) -> None:
        self.attention_kept, self.unchecked = attention_kept, unchecked

    def on_train_begin(
        self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any
    ) -> None:
        if self.unchecked and getattr(args, "activation_offloading", False):
            raise LaunchError(
                "activation offloading would move every tensor of an unchecked layer over the bus; "
                "set one of the two to zero"
            )
        if self.attention_kept:
            keep_attention(model)
        if self.unchecked:
            leave_unchecked(model, self.unchecked)


# ---- counting

# torch_varlen under a name without a mask function: transformers then builds none, whatever the
# model's family; on the meta device it could not look at positions.
COUNTED = f"{attention.NAME}_counted"


@dataclass(frozen=True)
class Flops:
    """FLOP per token of one training step; a multiplication and an addition are two."""

    executed: float  # with the recomputation asked for
    plain: float  # the same step without checkpointing
    model: float  # the useful part, which MFU counts: attention's backward is twice its forward


def count_flops(
    config: Any,
    documents: Sequence[int],
    *,
    rank: int | None,
    target_modules: str | Sequence[str] = "all-linear",
    checkpointing: bool = True,
    branch_first: bool = True,
    attention_kept: bool = True,
    unchecked: int = 0,
) -> Flops:
    """Count a step at true shapes on the meta device: seconds, no weights, no GPU.

    `config` is a transformers config; `documents` the tokens of the packed documents; `rank` None is
    full fine-tuning. Two layers are run and extrapolated. Attention is counted as a flash kernel
    executes it, causal and within documents, its backward at 2.5 times the forward. The LM head is
    added as TRL's fused head runs it: its logits are computed again in the backward pass.
    """
    run = functools.partial(_layer, config, tuple(documents), rank, target_modules)
    plain = run(False, False, False)
    checked = run(True, branch_first, attention_kept) if checkpointing else plain
    text = config.get_text_config()
    layers, tokens = text.num_hidden_layers, sum(documents)
    product = 2 * text.hidden_size * text.vocab_size
    head = product * (4 if rank is None else 3)
    forward = plain["torch_attn._varlen_attn"]
    return Flops(
        executed=head
        + ((layers - unchecked) * checked.total() + unchecked * plain.total()) / tokens,
        plain=head + layers * plain.total() / tokens,
        model=head - product + layers * (plain.total() - forward / 2) / tokens,
    )


def _layer(
    config: Any,
    documents: tuple[int, ...],
    rank: int | None,
    target_modules: str | Sequence[str],
    checkpointing: bool,
    branch_first: bool,
    attention_kept: bool,
) -> Counter[str]:
    """FLOP of one layer's forward and backward pass over `documents`, by operator."""
    model, kinds = _build(config, rank, target_modules)
    if branch_first:
        lora_first(model)
    if checkpointing:
        function = functools.partial(checkpoint, use_reentrant=False, preserve_rng_state=False)
        model._set_gradient_checkpointing(True, function)  # as Trainer has it, but for the RNG
        if attention_kept:
            keep_attention(model)
    with torch.device("meta"):
        batch = {
            "input_ids": torch.empty(1, sum(documents), dtype=torch.long),
            "cu_seq_lens_q": torch.empty(len(documents) + 1, dtype=torch.int32),
            "max_length_q": max(documents),
        }
    formulas = {
        torch.ops.torch_attn._varlen_attn: functools.partial(_forward_flops, documents),
        torch.ops.torch_attn._varlen_attn_backward: functools.partial(_backward_flops, documents),
    }
    with FlopCounterMode(display=False, custom_mapping=formulas) as counter:
        model(**batch, use_cache=False).last_hidden_state.sum().backward()
    counts = counter.get_flop_counts()["Global"]
    return Counter({str(operator): count / len(kinds) for operator, count in counts.items()})


def _build(
    config: Any, rank: int | None, target_modules: str | Sequence[str]
) -> tuple[Any, list[str]]:
    """Two layers of the model on the meta device, LoRA on top, and the kinds of their attention."""
    config = copy.deepcopy(config.get_text_config())
    kinds = (getattr(config, "layer_types", None) or ["full_attention"] * 2)[:2]
    config.num_hidden_layers, config.layer_types = len(kinds), kinds
    config.attn_logit_softcapping = None  # elementwise, and no kernel here computes it
    attention.choose(attention.NAME, "meta")
    AttentionInterface.register(COUNTED, attention.attend)
    with torch.device("meta"):
        model = AutoModel.from_config(config, attn_implementation=COUNTED, dtype=torch.bfloat16)
        if rank is not None:
            model.enable_input_require_grads()
            targets = target_modules if isinstance(target_modules, str) else list(target_modules)
            model = get_peft_model(model, LoraConfig(r=rank, target_modules=targets))
    return model.train(), kinds


def _pairs(documents: Sequence[int], window: int) -> int:
    """Query-key pairs of causal attention; `window` is the kernel's: keys behind, -1 for all."""
    widths = [length if window < 0 else min(length, window + 1) for length in documents]
    return sum(
        width * (width + 1) // 2 + (length - width) * width
        for length, width in zip(documents, widths, strict=True)
    )


def _forward_flops(documents: Sequence[int], query: Any, *rest: Any, **kwargs: Any) -> int:
    """Two products of 2 FLOP for each pair, head and channel; shapes as varlen_attn takes them."""
    _, heads, width = query
    return 4 * heads * width * _pairs(documents, rest[8][0])


def _backward_flops(documents: Sequence[int], gradient: Any, *rest: Any, **kwargs: Any) -> int:
    """Five products: the scores again, and the gradients of scores, values, queries, keys."""
    _, heads, width = gradient
    return 10 * heads * width * _pairs(documents, rest[12][0])

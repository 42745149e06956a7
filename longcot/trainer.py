"""What train.py asks of TRL's SFTTrainer: settings, proofs before the first step, the record's part."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer

from longcot import recompute
from longcot.advice import setup_of
from longcot.balance import Waves, count_costs
from longcot.errors import LaunchError, ModelError, RecipeError
from longcot.launch import check_wrapping
from longcot.models import packing_leak
from longcot.recipe import Recipe
from longcot.shapes import read_shapes
from longcot.sharding import launcher_here

# Bytes of optimizer state for each trained number.
OPTIMIZER_BYTES = {
    "adamw_torch": 8,
    "adamw_torch_fused": 8,
    "adamw_8bit": 2,
    "paged_adamw_8bit": 0,  # may leave the GPU
}


def settings(recipe: Recipe, output: Path, accumulation: int) -> SFTConfig:
    """The recipe as TRL's settings. Rows come encoded and packed, so TRL prepares nothing."""
    train, data = recipe.train, recipe.data
    if train is None or data is None:
        raise RecipeError(f"{recipe.path}: has no train section")
    return SFTConfig(
        output_dir=str(output),
        run_name=output.name,
        dataset_kwargs={"skip_prepare_dataset": True},
        packing=data.packing,
        max_length=data.max_length,
        per_device_train_batch_size=train.per_device_train_batch_size,
        gradient_accumulation_steps=accumulation,
        num_train_epochs=train.num_train_epochs,
        max_steps=train.max_steps or -1,
        learning_rate=train.learning_rate,
        lr_scheduler_type=train.lr_scheduler_type,
        warmup_steps=train.warmup_steps,
        weight_decay=train.weight_decay,
        adam_beta2=train.adam_beta2,
        max_grad_norm=train.max_grad_norm,
        optim=train.optim,
        seed=train.seed,
        use_cpu=train.use_cpu,
        bf16=recipe.model.dtype == "bfloat16" and not train.use_cpu,
        gradient_checkpointing=train.gradient_checkpointing,
        activation_offloading=train.activation_offloading,
        logging_steps=train.logging_steps,
        save_steps=train.save_steps,
        save_total_limit=train.save_total_limit,
        report_to=train.report_to,
        disable_tqdm=True,  # callbacks.Progress prints one line per logged step instead
        dataloader_pin_memory=not train.use_cpu,
    )


def fuse(model: Any, recipe: Recipe) -> None:
    """Put liger-kernel's RMSNorm, RoPE and SwiGLU into a loaded model, as the recipe asks.

    Its fused cross-entropy stays out: TRL has its own fused head. Raises LaunchError without a GPU.
    """
    if not recipe.train.use_liger_kernel:
        return
    if not torch.cuda.is_available():
        raise LaunchError("train.use_liger_kernel needs a GPU; set it to false on this machine")
    from liger_kernel.transformers import _apply_liger_kernel_to_instance

    _apply_liger_kernel_to_instance(
        model, rope=True, rms_norm=True, swiglu=True, cross_entropy=False,
        fused_linear_cross_entropy=False,
    )  # fmt: skip


def shorten_recomputation(recipe: Recipe, trainer: Any) -> None:
    """Have checkpointing run less a second time, and adapters keep less (`longcot.recompute`).

    Gradients stay the same. Sharded adapters are gathered in bfloat16, so PEFT casts nothing there.
    """
    train = recipe.train
    if trainer.args.bf16 and not (trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled):
        recompute.keep_inputs(trainer.model)
    if not train.gradient_checkpointing:
        return
    if recipe.lora:
        recompute.lora_first(trainer.model)
    trainer.add_callback(
        recompute.Recompute(
            attention_kept=train.selective_checkpointing, unchecked=train.unchecked_layers
        )
    )


def balance(recipe: Recipe, trainer: Any, processes: int) -> None:
    """Have packed rows of nearly equal cost run side by side on several processes (`balance.Waves`).

    Rows of a model whose work cannot be counted keep the Trainer's random order.
    """
    if processes == 1 or not recipe.data.packing:
        return
    try:
        rows = list(trainer.train_dataset["seq_lengths"])
        setup = setup_of(recipe, launcher_here(), max(map(sum, rows)))
        costs = count_costs(read_shapes(recipe.model), setup, rows)
    except ModelError:
        return
    width = processes * recipe.train.per_device_train_batch_size
    trainer.add_callback(SideBySide(Waves(costs, width, recipe.train.seed)))


class SideBySide(TrainerCallback):
    """Hand an order of rows to the loader, which deals them to the processes one after the other.

    Through accelerate's `set_sampler`, after which a resumed epoch is told its number; a sampler
    from the Trainer's own hook is not, once accelerate skips what was trained before.
    """

    def __init__(self, order: Waves) -> None:
        self.order = order

    def on_train_begin(
        self, args: Any, state: Any, control: Any, train_dataloader: Any = None, **kwargs: Any
    ) -> None:
        train_dataloader.set_sampler(self.order)


def check_isolation(recipe: Recipe, trainer: SFTTrainer) -> None:
    """Prove on this very model, collator and attention that packed rows do not see each other."""
    if not recipe.data.packing or trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled:
        return  # there the weights are in pieces until training starts
    leak = packing_leak(trainer.model, trainer.data_collator, trainer.args.bf16)
    limit = 1e-3 if recipe.model.dtype == "float32" else 5e-2
    if not leak < limit:
        raise RecipeError(
            f"packed rows see each other with attn_implementation={recipe.model.attn_implementation} "
            f"(logits move by {leak:.0%}); use sdpa or flash_attention_2, or set data.packing=false"
        )


class AsLaunched(TrainerCallback):
    """Before the first step, refuse a run that is not spread as its launcher was asked to."""

    def __init__(self, trainer: SFTTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        check_wrapping(self.trainer.model_wrapped, launcher_here())


class LongestFirst(TrainerCallback):
    """Before the first step, one forward and backward pass over the longest rows: what does not fit
    is told now, not at step 900.

    Optimizer states come to life at the first step only, so their memory is held meanwhile. Random
    states and gradients are as before; DeepSpeed, which counts backward passes, is left out.
    """

    def __init__(self, trainer: SFTTrainer, advice: Callable[[], str]) -> None:
        self.trainer, self.advice = trainer, advice

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        trainer = self.trainer
        if trainer.is_deepspeed_enabled or args.device.type != "cuda":
            return
        try:
            try_longest(trainer)
        except torch.OutOfMemoryError as error:
            first = str(error).partition(". ")[0]
            raise LaunchError(
                f"the longest row does not fit on this GPU ({first}); {self.advice()}"
            ) from None


def try_longest(trainer: Any) -> int:
    """Run the longest rows of the training set once, forward and backward; returns their tokens."""
    rows: Any = trainer.train_dataset
    model: Any = trainer.model_wrapped
    args = trainer.args
    lengths = [len(ids) for ids in rows["input_ids"]]
    size = args.per_device_train_batch_size
    longest = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)[:size]
    longest += longest[-1:] * (size - len(longest))  # fewer rows than a batch holds
    batch = trainer._prepare_inputs(trainer.data_collator([rows[i] for i in longest]))
    devices = [args.device] if args.device.type == "cuda" else []
    model.train()
    with torch.random.fork_rng(devices):
        held = torch.empty(_optimizer_bytes(trainer), dtype=torch.uint8, device=args.device)
        with trainer.compute_loss_context_manager():
            output = model(**batch, use_cache=False, fused_lm_head=True)  # as TRL's loss does
            loss = -output.log_probs.mean()
        trainer.accelerator.backward(loss)
        del held
    trainer.model.zero_grad(set_to_none=True)
    return sum(lengths[i] for i in longest)


def _optimizer_bytes(trainer: Any) -> int:
    """Bytes of optimizer state that the first step will add to this process's device: of its own
    shards only (FSDP2), and none where a resumed run has them already or they lie on the host."""
    here = launcher_here()
    resumed = trainer.optimizer is not None and trainer.optimizer.state
    if here.offload_parameters or here.offload_optimizer or resumed:
        return 0
    own = (
        getattr(parameter, "to_local", lambda parameter=parameter: parameter)()
        for parameter in trainer.model.parameters()
        if parameter.requires_grad
    )
    return sum(part.numel() for part in own) * OPTIMIZER_BYTES[trainer.args.optim]


def summary(
    report: Any, samples: float, history: list[dict], trainer: SFTTrainer, seconds: float
) -> dict[str, Any]:
    """The record's `train` part; `report` is the rows', `samples` those of one optimizer step."""
    losses = [entry["loss"] for entry in history if "loss" in entry]
    return {
        "steps": trainer.state.global_step,
        "processes": trainer.accelerator.num_processes,
        "distributed_type": str(trainer.accelerator.distributed_type).rpartition(".")[2],
        "samples": len(report.lengths),
        "samples_per_step": round(samples, 2),
        "tokens": round(report.tokens * (trainer.state.epoch or 0)),
        "learned_tokens_per_epoch": report.learned_tokens,
        "packing_efficiency": round(report.packing_efficiency, 4),
        "over_long": dict(report.over_long),
        "malformed": dict(report.malformed),
        "first_loss": losses[0],
        "loss": losses[-1],
        "seconds": round(seconds, 1),
    }

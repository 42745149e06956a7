"""The contenders of results.throughput: each builds its trainer, one process runs one of them.

All get the same random weights (`speed.build`, one seed), the same rows, seed, schedule and adapters;
what they make of it is theirs. The loop is always TRL's. The parent process, which loads none of
this, is results/throughput.py.
"""

import importlib
import importlib.util
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import TrainerCallback
from transformers.modeling_layers import GradientCheckpointingLayer
from trl import SFTConfig, SFTTrainer, pack_dataset

from longcot import callbacks, launch, lengths, models, recompute, rows, speed
from longcot import trainer as setup
from longcot.fp8 import has_fp8
from longcot.recipe import Recipe, load_recipe
from longcot.shapes import Shapes, read_shapes
from results import figures

POOL = 30  # documents drawn for each row that is kept: packing many leaves hardly a gap


def prepare(job: dict[str, Any]) -> None:
    """Write the rows that every contender trains on, then what this device can do at most."""
    recipe = load_recipe(job["recipe"], job["overrides"])
    launch.check_device(recipe)
    shapes, train = read_shapes(recipe.model), recipe.train
    wanted = speed.WARM_UP + job["steps"]
    drawn = draw_rows(shapes.vocabulary, recipe.data.max_length, wanted, train.seed)
    rows.write_jsonl(job["rows"], drawn)
    device = "cpu" if train.use_cpu else "cuda"
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "rows": {
            "count": len(drawn),
            "tokens": sum(len(row["input_ids"]) for row in drawn),
            "documents": [size for row in drawn for size in row["seq_lengths"]],
            "sha256": rows.hash_file(job["rows"]),
        },
        "ceilings": speed.measure_ceilings(device),
    }
    rows.write_json(job["record"], found)
    if device == "cuda":  # a second time, should a kernel be missing here
        found["ceilings"] |= measure_products(shapes, recipe.data.max_length)
        rows.write_json(job["record"], found)


def draw_rows(vocabulary: int, size: int, wanted: int, seed: int) -> list[Any]:
    """`wanted` full rows of `size` random tokens, their documents as long as real ones.

    Lengths are the assumed ones (mean 6,000 where `size` is 16,384), scaled to the row; rows are taken
    evenly from a packed pool, since best-fit packing puts the long documents first.
    """
    scale = size / lengths.LONGEST
    generator = torch.Generator().manual_seed(seed)
    documents = []
    for length in lengths.assumed(POOL * wanted):
        count = (max(2, round(length * scale)),)
        ids = torch.randint(vocabulary, count, generator=generator, dtype=torch.int32).numpy()
        documents.append({"input_ids": ids, "labels": ids})
    packed: Any = pack_dataset(Dataset.from_list(documents), size, "bfd")
    full = [row for row in packed if len(row["input_ids"]) > 0.95 * size]
    return [full[i * len(full) // wanted] for i in range(wanted)]


def measure_products(shapes: Shapes, tokens: int) -> dict[str, float]:
    """FLOP/s of the model's own products over a row, bfloat16 and FP8, weighted by their work."""
    from triton.testing import do_bench

    def rate(multiply: Any, dtype: torch.dtype) -> float:
        work = seconds = 0.0
        for inner, outer in shapes.linears.values():
            x = torch.randn(tokens, inner, device="cuda", dtype=torch.bfloat16).to(dtype)
            w = torch.randn(outer, inner, device="cuda", dtype=torch.bfloat16).to(dtype)
            milliseconds: Any = do_bench(lambda x=x, w=w: multiply(x, w.t()), return_mode="median")
            work, seconds = work + 2.0 * tokens * inner * outer, seconds + milliseconds / 1e3
        return work / seconds

    found = {"model_gemm_flops": rate(torch.mm, torch.bfloat16)}
    if has_fp8(torch.device("cuda")):
        one = torch.ones((), device="cuda")
        found["fp8_flops"] = rate(
            lambda x, w: torch._scaled_mm(
                x, w, one, one, out_dtype=torch.bfloat16, use_fast_accum=True
            ),
            torch.float8_e4m3fn,
        )
    return found


def measure(job: dict[str, Any]) -> None:
    """Run one contender's steps and write its record."""
    recipe = load_recipe(job["recipe"], job["overrides"])
    launch.check_device(recipe)
    launch.quiet_libraries()
    prepared = rows.read_json(job["prepared"])
    dataset = Dataset.from_list([row for _, row in rows.read_jsonl(job["rows"])])
    given: Any = recipe.train
    train = replace(
        given, max_steps=len(dataset), global_batch_size=1, per_device_train_batch_size=1,
        logging_steps=1, report_to="none",
    )  # fmt: skip
    recipe = replace(recipe, train=train)
    shapes = replace(read_shapes(recipe.model), layers=job["layers"])
    watch = speed.Watch("cpu" if train.use_cpu else "cuda")
    make = {"trl_plain": trl_plain, "trl_best": trl_best, "unsloth": unsloth}
    trainer = make.get(job["contender"], ours)(recipe, shapes, dataset, Path(job["folder"]))
    trainer.add_callback(watch)
    trainer.add_callback(Deadline(watch, job["deadline"]))
    trainer.remove_callback(callbacks.PrinterCallback)
    trainer.train()
    found = figures.tell(
        job["contender"],
        recipe,
        shapes,
        seconds=watch.seconds,
        history=[entry for entry in trainer.state.log_history if "loss" in entry],
        peak=(watch.peak, torch.cuda.max_memory_reserved() if watch.cuda else 0),
        ran=what_ran(trainer),
        prepared=prepared,
    )
    rows.write_json(job["record"], {**job["entry"], **found, "status": "measured"})


class Deadline(TrainerCallback):
    """Stop while the figures can still be written; two timed steps are the least."""

    def __init__(self, watch: speed.Watch, at: float) -> None:
        self.watch, self.at = watch, at

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        seconds = self.watch.seconds
        if len(seconds) >= 2 and time.time() + seconds[-1] > self.at:
            control.should_training_stop = True


# ---- the contenders


def ours(recipe: Recipe, shapes: Shapes, dataset: Dataset, folder: Path) -> SFTTrainer:
    """What train.py makes of the recipe."""
    arguments = setup.settings(recipe, folder, 1)
    arguments.save_strategy = "no"
    model = speed.build(recipe, shapes, arguments.device.type)
    setup.fuse(model, recipe)
    trainer = _trainer(model, arguments, dataset, models.lora_config(recipe))
    models.raise_adapters(trainer.model)
    setup.shorten_recomputation(recipe, trainer)
    return trainer


def trl_plain(recipe: Recipe, shapes: Shapes, dataset: Dataset, folder: Path) -> SFTTrainer:
    """A script as TRL's guides write it: packing, QLoRA, checkpointing, sdpa, TRL's own defaults."""
    arguments = SFTConfig(**_shared(recipe, folder))
    model = speed.build(_attending(recipe, "sdpa"), shapes, arguments.device.type)
    return _trainer(model, arguments, dataset, models.lora_config(recipe))


def trl_best(recipe: Recipe, shapes: Shapes, dataset: Dataset, folder: Path) -> SFTTrainer:
    """Every option of TRL 1.16 that makes this job faster or smaller.

    Its fused head is always on; its own fused cross-entropy of liger-kernel it refuses. Hub kernels
    need the network; `every_n_layers` leaves half of the layers unchecked at least, too much for 64.
    """
    options: dict[str, Any] = {"gradient_checkpointing_kwargs": {"use_reentrant": False}}
    if not recipe.train.use_cpu:
        options |= {"optim": "adamw_8bit", "use_liger_kernel": True}
    arguments = SFTConfig(**_shared(recipe, folder), **options)
    model = speed.build(_attending(recipe, "auto"), shapes, arguments.device.type)
    trainer = _trainer(model, arguments, dataset, models.lora_config(recipe))
    # TRL's own {"selective": True} does not know torch's varlen kernel, and with PEFT on transformers 5.23
    # it is refused, or without effect beside use_reentrant: ours is lent, lest a slip decide.
    trainer.add_callback(recompute.Recompute(attention_kept=True, unchecked=0))
    return trainer


def unsloth(recipe: Recipe, shapes: Shapes, dataset: Dataset, folder: Path) -> Any:
    """Unsloth's own loader, adapters and checkpointing on the same weights, saved for it first."""
    fast: Any = importlib.import_module("unsloth").FastLanguageModel
    base = folder / "base"
    save_base(speed.build(recipe, shapes, "cuda"), recipe, base)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    lora: Any = recipe.lora
    model, _ = fast.from_pretrained(
        str(base),
        max_seq_length=recipe.data.max_length,
        dtype=torch.bfloat16,
        load_in_4bit=recipe.model.load_in_4bit,
    )
    model = fast.get_peft_model(
        model,
        r=lora.r,
        lora_alpha=lora.lora_alpha,
        lora_dropout=0,
        target_modules=list(shapes.linears),
        use_gradient_checkpointing="unsloth",
        random_state=recipe.train.seed,
    )
    arguments = SFTConfig(**_shared(recipe, folder), optim="adamw_8bit")
    return _trainer(model, arguments, dataset, None)


def _shared(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """What a rival's script takes from the recipe; all else is its own choice or TRL's default."""
    train, data = recipe.train, recipe.data
    return {
        "output_dir": str(folder),
        "dataset_kwargs": {"skip_prepare_dataset": True},
        "packing": True,
        "max_length": data.max_length,
        "per_device_train_batch_size": 1,
        "gradient_checkpointing": True,
        "max_steps": train.max_steps,
        "learning_rate": train.learning_rate,
        "lr_scheduler_type": train.lr_scheduler_type,
        "warmup_steps": train.warmup_steps,
        "weight_decay": train.weight_decay,
        "adam_beta2": train.adam_beta2,
        "max_grad_norm": train.max_grad_norm,
        "seed": train.seed,
        "use_cpu": train.use_cpu,
        "bf16": recipe.model.dtype == "bfloat16" and not train.use_cpu,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": not train.use_cpu,
    }


def _trainer(model: Any, arguments: SFTConfig, dataset: Dataset, adapter: Any) -> SFTTrainer:
    return SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=dataset,
        processing_class=speed.stand_in_tokenizer(),
        peft_config=adapter,
    )


def _attending(recipe: Recipe, how: str) -> Recipe:
    return replace(recipe, model=replace(recipe.model, attn_implementation=how))


def save_base(model: Any, recipe: Recipe, folder: Path) -> None:
    """A model of `speed.build` as a checkpoint that transformers loads, NF4 codes as they are."""
    from huggingface_hub import save_torch_state_dict
    from transformers import BitsAndBytesConfig

    if recipe.model.load_in_4bit:
        model.config.quantization_config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=recipe.model.dtype,
        ).to_dict()
    folder.mkdir(parents=True, exist_ok=True)
    model.config.save_pretrained(folder)
    save_torch_state_dict(model.state_dict(), folder)
    speed.stand_in_tokenizer().save_pretrained(folder)


def what_ran(trainer: Any) -> dict[str, Any]:
    """What the trainer really used, read off the model after training; settings may be ignored."""
    model = trainer.model
    layers: Sequence[Any] = [
        m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)
    ]
    checked = [layer for layer in layers if layer.gradient_checkpointing]
    functions = [getattr(layer._gradient_checkpointing_func, "keywords", {}) for layer in checked]
    linear = next(m.base_layer for m in model.modules() if hasattr(m, "base_layer"))
    adapters = [p for p in model.parameters() if p.requires_grad]
    return {
        "attention": model.config._attn_implementation,
        "base": type(linear).__name__,
        "adapters": str(adapters[0].dtype).removeprefix("torch."),
        "optimizer": str(trainer.args.optim).rpartition(".")[2].lower(),
        "layers_checkpointed": len(checked),
        "attention_kept": sum("context_fn" in keywords for keywords in functions),
        "liger": any("liger" in str(getattr(m.forward, "__module__", "")) for m in model.modules()),
        "branch_first": any("BranchFirst" in type(m).__name__ for m in model.modules()),
    }

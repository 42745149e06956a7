"""Train a few steps on random weights at a recipe's true shapes, beside what the device can do.

`train.py RECIPE --benchmark 10` downloads nothing: weights are drawn layer by layer straight on the
device, rows have random tokens and lengths as real ones have (mean 6,000, packed to `max_length`).
"""

import importlib
import random
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, TrainerCallback
from trl import SFTTrainer, pack_dataset

from longcot import attention, callbacks, lengths, models, plan, record, rows
from longcot import trainer as setup
from longcot.errors import RecipeError
from longcot.flops import count_work
from longcot.fp8 import Fp8Linear
from longcot.hardware import GPUS
from longcot.memory import estimate
from longcot.recipe import Recipe
from longcot.shapes import Shapes, read_shapes

WARM_UP = 3  # steps that are not timed
DEVIATION = 0.02  # of random weights


def run(recipe: Recipe, steps: int, output: Path, layers: int | None = None) -> dict[str, Any]:
    """Time `steps` optimizer steps of one sequence each and write what came out to `output`.

    tokens/s are real tokens; MFU = model FLOP/token x tokens/s / peak, HFU the same with executed
    FLOP (`plan`); `ceilings` are measured here and now. `layers` cuts the model, for a slope.
    """
    if steps < 2:
        raise RecipeError(f"--benchmark {steps}: at least 2 steps, to tell their spread")
    shapes = read_shapes(recipe.model)
    shapes = replace(shapes, layers=layers or shapes.layers)
    device = "cpu" if recipe.train.use_cpu else "cuda"
    ceilings = measure_ceilings(device)
    dataset = draw_rows(recipe, shapes.vocabulary, WARM_UP + steps)
    train: Any = recipe.train
    small = replace(train, max_steps=WARM_UP + steps, global_batch_size=1, report_to="none")
    recipe = replace(recipe, train=small)
    arguments = setup.settings(recipe, output.parent / output.stem, 1)
    arguments.save_strategy = "no"
    watch = Watch(device)
    model = build(recipe, shapes, device)
    setup.fuse(model, recipe)
    trainer = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=dataset,
        processing_class=stand_in_tokenizer(),
        peft_config=models.lora_config(recipe),
        callbacks=[watch],
    )
    trainer.remove_callback(callbacks.PrinterCallback)
    models.raise_adapters(trainer.model)
    setup.shorten_recomputation(recipe, trainer)
    trainer.train()
    found = tell(recipe, shapes, watch, dataset, ceilings, trainer.state.log_history)
    rows.write_json(output, found)
    return found


def tell(
    recipe: Recipe,
    shapes: Shapes,
    watch: "Watch",
    dataset: Any,
    ceilings: dict,
    history: list[dict],
) -> dict[str, Any]:
    """The figures of a finished benchmark."""
    sizes = [size for row in dataset["seq_lengths"] for size in row]
    tokens = sum(sizes) / len(dataset)
    low, middle, high = statistics.quantiles(watch.seconds, n=4)
    rate = tokens / middle
    made = plan.make_plan(recipe, rows=sizes, tokens_per_second=rate)
    work = count_work(shapes, made.setup, made.rows.weighted)  # of the model as it was cut
    card = next((g for g in GPUS.values() if g.name in watch.name.lower()), None)
    peak = card.bf16 * 1e12 if card else ceilings["gemm_flops"]
    model, executed = work.model, work.executed
    return {
        "recipe": recipe.path,
        "overrides": recipe.overrides,
        "layers": shapes.layers,
        "device": watch.name,
        "versions": record.read_versions(),
        "steps": len(watch.seconds),
        "seconds": [low, middle, high],
        "tokens_per_step": tokens,
        "tokens_per_second": rate,
        "mfu": model * rate / peak,
        "hfu": executed * rate / peak,
        "peak_flops": peak,
        "share_of_measured_gemm": executed * rate / ceilings["gemm_flops"],
        "peak_bytes": watch.peak,
        "predicted_bytes": estimate(shapes, made.setup).total,
        "ceilings": ceilings,
        "losses": [entry["loss"] for entry in history if "loss" in entry],
    }


def line(found: dict[str, Any]) -> str:
    """The figures in two lines."""
    low, middle, high = found["seconds"]
    return (
        f"{found['tokens_per_second']:,.0f} tokens/s on {found['device']}, {found['layers']} layers: "
        f"{middle:.3f} s a step [{low:.3f}, {high:.3f}], {found['steps']} steps of "
        f"{found['tokens_per_step']:,.0f} tokens\n"
        f"MFU {found['mfu']:.1%}, HFU {found['hfu']:.1%} of {found['peak_flops'] / 1e12:,.2f} TFLOP/s; "
        f"{found['share_of_measured_gemm']:.1%} of the product measured here; "
        f"peak {found['peak_bytes'] / 1e9:.1f} GB, planned {found['predicted_bytes'] / 1e9:.1f}"
    )


class Watch(TrainerCallback):
    """Seconds of every step after the warm-up, and the most memory that was in use."""

    def __init__(self, device: str) -> None:
        self.cuda, self.seconds, self.began = device == "cuda", list[float](), 0.0
        self.name = torch.cuda.get_device_name() if self.cuda else "cpu"
        self.peak = 0

    def _now(self) -> float:
        if self.cuda:
            torch.cuda.synchronize()
        return time.perf_counter()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.began = self._now()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        seconds = self._now() - self.began
        if state.global_step > WARM_UP:
            self.seconds.append(seconds)
        if self.cuda:
            self.peak = torch.cuda.max_memory_allocated()


def measure_ceilings(device: str, times: int = 20) -> dict[str, float]:
    """FLOP/s of a large bfloat16 product (float32 on CPU) and bytes/s of a copy: medians of `times`."""
    size, dtype = (8192, torch.bfloat16) if device == "cuda" else (1024, torch.float32)
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    source = torch.empty(2**30 if device == "cuda" else 2**26, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)

    def seconds(work: Any) -> float:
        taken = []
        for _ in range(times + 3):
            if device == "cuda":
                torch.cuda.synchronize()
            began = time.perf_counter()
            work()
            if device == "cuda":
                torch.cuda.synchronize()
            taken.append(time.perf_counter() - began)
        return statistics.median(taken[3:])

    product = seconds(lambda: torch.mm(a, b))
    copy = seconds(lambda: target.copy_(source))
    return {"gemm_flops": 2 * size**3 / product, "copy_bytes": 2 * source.numel() / copy}


def draw_rows(recipe: Recipe, vocabulary: int, wanted: int) -> Any:
    """`wanted` training sequences at least, of random tokens in documents of real lengths."""
    from datasets import Dataset

    size = recipe.data.max_length
    generator = torch.Generator().manual_seed(recipe.train.seed)
    documents, filled = [], 0
    drawn = lengths.assumed(100 * wanted)  # ascending
    random.Random(recipe.train.seed).shuffle(drawn)
    for length in drawn:
        if filled >= (wanted + 1) * size:
            break
        ids = torch.randint(vocabulary, (min(length, size),), generator=generator).tolist()
        documents.append({"input_ids": ids, "labels": ids})
        filled += len(ids)
    return pack_dataset(Dataset.from_list(documents), size, "bfd")


def stand_in_tokenizer() -> Any:
    """What the trainer wants to see; rows come encoded, so it encodes nothing."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(WordLevel({"<pad>": 0, "<eos>": 1}, unk_token="<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>")


@torch.no_grad()
def build(recipe: Recipe, shapes: Shapes, device: str) -> Any:
    """A model of these shapes with random weights, its linears as the recipe stores them; no more
    than one matrix is held twice. The same seed draws the same weights whatever the storage."""
    model, train = recipe.model, recipe.train
    written = {**shapes.config, "num_hidden_layers": shapes.layers}
    if kinds := written.get("layer_types"):
        written["layer_types"] = kinds[: shapes.layers]
    config = AutoConfig.for_model(**written)
    dtype = torch.float32 if recipe.lora is None else getattr(torch, model.dtype)
    with torch.device("meta"):
        made = AutoModelForCausalLM.from_config(
            config,
            dtype=dtype,
            attn_implementation=attention.choose(model.attn_implementation, device),
        )
    head = made.get_output_embeddings()
    generator = torch.Generator(device).manual_seed(train.seed)
    for name, module in list(made.named_modules()):
        if type(module) is nn.Linear and module is not head:
            made.set_submodule(name, _linear(module, recipe, device, dtype, generator))
    for name, parameter in list(made.named_parameters()):
        if parameter.is_meta:
            value = torch.empty(parameter.shape, dtype=dtype, device=device)
            norm = parameter.dim() == 1
            value = value.fill_(1) if norm else value.normal_(0, DEVIATION, generator=generator)
            owner, _, leaf = name.rpartition(".")
            setattr(made.get_submodule(owner), leaf, nn.Parameter(value))
    made.tie_weights()
    rotary = made.model.rotary_emb  # its buffers are computed, not loaded: meta left them empty
    made.model.rotary_emb = type(rotary)(config=config).to(device)
    made.is_loaded_in_4bit = model.load_in_4bit
    return made


def _linear(
    like: nn.Linear, recipe: Recipe, device: str, dtype: torch.dtype, generator: torch.Generator
) -> nn.Module:
    shape = like.out_features, like.in_features
    weight = torch.empty(shape, dtype=dtype, device=device).normal_(
        0, DEVIATION, generator=generator
    )
    bias = None if like.bias is None else torch.zeros(shape[0], dtype=dtype, device=device)
    if recipe.model.load_in_fp8:
        return Fp8Linear.from_weight(weight, bias)
    if recipe.model.load_in_4bit:
        bitsandbytes: Any = importlib.import_module("bitsandbytes")
        packed = bitsandbytes.nn.Linear4bit(
            shape[1], shape[0], bias=bias is not None, compute_dtype=dtype, quant_type="nf4"
        )
        packed.weight = bitsandbytes.nn.Params4bit(
            weight, requires_grad=False, quant_type="nf4", compress_statistics=True
        )
        if bias is not None:
            packed.bias = nn.Parameter(bias)
        return packed.to(device)
    made = nn.Linear(shape[1], shape[0], bias=bias is not None, device="meta", dtype=dtype)
    made.weight = nn.Parameter(weight)
    if bias is not None:
        made.bias = nn.Parameter(bias)
    return made

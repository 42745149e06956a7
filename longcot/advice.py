"""What a recipe asks of a GPU's memory, and which keys to change where it asks too much."""

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from longcot.errors import LaunchError, RecipeError
from longcot.hardware import GPUS, Gpu
from longcot.memory import Memory, Setup, estimate
from longcot.recipe import Recipe, load_recipe
from longcot.shapes import Shapes
from longcot.sharding import Launcher, check_pairs

NARROW = 0.9  # of the usable memory: the counts are good to a tenth
TOGETHER = 5  # keys changed at once, at most
COUNTS = (2, 4, 8, 16, 32, 64)
WAYS = (
    Launcher(kind="fsdp2"),
    Launcher(kind="zero3", offload_parameters=True, offload_optimizer=True),
)


def setup_of(recipe: Recipe, launcher: Launcher, longest: int) -> Setup:
    """How a recipe trains, as `memory` and `flops` see it; `longest`: tokens of its longest sequence."""
    model, train, data = recipe.model, recipe.train, recipe.data
    asked = model.attn_implementation
    attention = asked if asked in ("eager", "sdpa") else "flash"
    if train.use_cpu and asked == "auto":
        attention = "sdpa"
    row = min(longest, data.max_length)
    padded = data.packing or train.per_device_train_batch_size > 1
    base = "nf4" if model.load_in_4bit else "fp8" if model.load_in_fp8 else model.dtype
    return Setup(
        lora=recipe.lora,
        base=base if recipe.lora else "float32",
        autocast=model.dtype == "bfloat16" and not train.use_cpu,
        optim=train.optim,
        launcher=launcher,
        tokens=row * train.per_device_train_batch_size,
        row=row,
        attention=attention,
        masked=attention == "eager" or (attention == "sdpa" and padded),
        cuda=not train.use_cpu,
        checkpointing=train.gradient_checkpointing,
        selective=train.selective_checkpointing,
        unchecked=train.unchecked_layers,
        offload=train.activation_offloading,
        fused=train.use_liger_kernel,
        branch_first=train.gradient_checkpointing,
        cast_inputs=bool(recipe.lora and recipe.lora.lora_dropout),
    )


def choose(
    recipe: Recipe, gpus: int, gpu: Gpu, longest: int, shapes: Shapes
) -> tuple[Launcher, tuple[str, ...]]:
    """How so many GPUs best share the work: the first way that fits, and what the ones before need.

    Whole models before shards, shards on the GPUs before those on the host; where none fits, FSDP2,
    or whole models for what cannot be sharded.
    """
    nodes = math.ceil(gpus / 8)
    plain, *sharded = (
        dataclasses.replace(way, processes=gpus, nodes=nodes)
        for way in (Launcher(kind="ddp"), *WAYS)
    )
    tried = []
    for way in (plain, *sharded):
        needed = _needed(recipe, way, longest, shapes)
        if needed and needed.total <= gpu.usable:
            return way, tuple(tried)
        if needed:
            changes, total = (), 0.0
            if way.kind != "ddp":
                changes, total = _search(recipe, way, gpu, longest, shapes, gpu.usable)
            note = f"({total / 1e9:,.1f} GB{', narrowly' * (total > NARROW * gpu.usable)})"
            other = f"; {' '.join(changes)} would make it fit {note}" * bool(changes)
            tried.append(f"{way} does not: {needed.total / 1e9:,.1f} GB{other}")
    model = recipe.model
    whole = recipe.train.use_cpu or model.load_in_4bit or model.load_in_fp8
    return (plain if whole else sharded[0]), ()


@dataclass(frozen=True)
class Advice:
    """What makes a recipe fit: overrides, checked to do so, and other ways; empty: none found."""

    changes: tuple[str, ...]
    note: str  # what it comes to
    others: tuple[str, ...]


def advise(
    recipe: Recipe, launcher: Launcher, gpu: Gpu, longest: int, shapes: Shapes
) -> Advice | None:
    """The least change that makes the recipe fit this GPU, or None where it fits as it is.

    Keys that move nothing but time come before those that change numbers, and those before dropping
    rows. Every suggestion went through the recipe's own schema, `check_pairs` and the estimate.
    """
    if estimate(shapes, setup_of(recipe, launcher, longest)).total <= gpu.usable:
        return None
    changes, total = _search(recipe, launcher, gpu, longest, shapes, gpu.usable)
    note = f"{total / 1e9:,.1f} GB" + ", narrowly" * (total > NARROW * gpu.usable)
    if any(change.startswith("data.max_length") for change in changes):
        note += "; longer rows are dropped"
    return Advice(changes, note, tuple(_others(recipe, gpu, longest, shapes)))


def relieve(recipe: Recipe, launcher: Launcher, gpu: Gpu, longest: int, shapes: Shapes) -> str:
    """What to set where a run that should have fitted did not: a fifth less, by the estimate."""
    before = estimate(shapes, setup_of(recipe, launcher, longest)).total
    changes, total = _search(recipe, launcher, gpu, longest, shapes, 0.8 * before)
    if not changes:
        return "no key of the recipe saves a fifth of it; use a larger GPU, or more of them"
    return f"set {' '.join(changes)} (estimated {(before - total) / 1e9:,.1f} GB less)"


def spend(
    recipe: Recipe, launcher: Launcher, gpu: Gpu, longest: int, shapes: Shapes
) -> tuple[tuple[str, ...], Setup]:
    """What spare memory buys, a tenth left over: attention outputs kept, then layers not run twice.

    Attention first: it saves about twice the work for a byte. Returns overrides, none where there is
    no room or nothing is recomputed, and the setup they make.
    """
    setup = setup_of(recipe, launcher, longest)
    changes = []
    if not setup.checkpointing or setup.offload or not setup.cuda:
        return (), setup

    def fits(changed: Setup) -> bool:
        return estimate(shapes, changed).total <= NARROW * gpu.usable

    keeps = dataclasses.replace(setup, selective=True)
    reentrant = launcher.kind == "zero3" and recipe.lora
    if setup.attention != "eager" and not setup.selective and not reentrant and fits(keeps):
        changes.append("train.selective_checkpointing=true")
        setup = keeps
    for count in range(shapes.layers, setup.unchecked, -1):
        more = dataclasses.replace(setup, unchecked=count)
        if fits(more):
            return (*changes, f"train.unchecked_layers={count}"), more
    return tuple(changes), setup


def _search(
    recipe: Recipe, launcher: Launcher, gpu: Gpu, longest: int, shapes: Shapes, room: float
) -> tuple[tuple[str, ...], float]:
    """The least unwelcome changes that need no more than `room` bytes, and what they need."""
    possible = list(_possible(recipe, gpu))
    sets = [c for size in range(1, TOGETHER + 1) for c in combinations(possible, size)]
    for chosen in sorted(sets, key=lambda changes: sum(cost for _, _, cost in changes)):
        if len({key for key, _, _ in chosen}) < len(chosen):
            continue
        needed = _needed(_changed(recipe, chosen), launcher, longest, shapes)
        changes = tuple(f"{key}={value}" for key, value, _ in chosen)
        if needed and needed.total <= room and _accepted(recipe, changes):
            return changes, needed.total
    return (), 0.0


def _possible(recipe: Recipe, gpu: Gpu) -> Iterator[tuple[str, str, float]]:
    """(key, value, how unwelcome) of every change that may save memory."""
    model, train, data = recipe.model, recipe.train, recipe.data
    if not train.gradient_checkpointing:
        yield "train.gradient_checkpointing", "true", 1
    if model.attn_implementation in ("eager", "sdpa") and not train.use_cpu:
        yield "model.attn_implementation", "auto", 1
    if train.per_device_train_batch_size > 1:
        yield "train.per_device_train_batch_size", "1", 1
    if train.unchecked_layers:
        yield "train.unchecked_layers", "0", 1
    if train.selective_checkpointing:
        yield "train.selective_checkpointing", "false", 1
    if not train.use_liger_kernel and not train.use_cpu:
        yield "train.use_liger_kernel", "true", 1
    if "8bit" not in train.optim and not train.use_cpu:
        yield "train.optim", "adamw_8bit", 1.5
    if not train.activation_offloading and not train.use_cpu:
        yield "train.activation_offloading", "true", 2
    if recipe.lora and not model.load_in_4bit and not model.load_in_fp8 and not train.use_cpu:
        if gpu.fp8:
            yield "model.load_in_fp8", "true", 4
        yield "model.load_in_4bit", "true", 5
    for share, cost in ((2, 8), (4, 16), (8, 32)):
        yield "data.max_length", str(data.max_length // share), cost


def _changed(recipe: Recipe, changes: tuple[tuple[str, str, float], ...]) -> Recipe:
    for key, value, _ in changes:
        section, leaf = key.split(".")
        new = {"true": True, "false": False}.get(value, int(value) if value.isdigit() else value)
        part: Any = dataclasses.replace(getattr(recipe, section), **{leaf: new})
        recipe = dataclasses.replace(recipe, **{section: part})
    return recipe


def _needed(recipe: Recipe, launcher: Launcher, longest: int, shapes: Shapes) -> Memory | None:
    try:
        check_pairs(recipe, launcher)
    except LaunchError:
        return None
    return estimate(shapes, setup_of(recipe, launcher, longest))


def _accepted(recipe: Recipe, changes: tuple[str, ...]) -> bool:
    """Whether the recipe's own schema and rules take these overrides."""
    try:
        load_recipe(recipe.path, (*recipe.overrides, *changes))
    except RecipeError:
        return False
    return True


def _others(recipe: Recipe, gpu: Gpu, longest: int, shapes: Shapes) -> Iterator[str]:
    """The same recipe on more GPUs of the kind, sharded or offloaded, or on one of another kind."""
    if not gpu.bf16:
        return
    enough = COUNTS[-1] + 1
    for way in WAYS:
        for count in COUNTS:
            launcher = dataclasses.replace(way, processes=count, nodes=-(-count // 8))
            needed = _needed(recipe, launcher, longest, shapes)
            if count < enough and needed and needed.total <= gpu.usable:
                enough = count
                host = f", {needed.host / 1e9:,.0f} GB of host memory" * bool(needed.host)
                yield f"{count} x {gpu.title}, {launcher}: {needed.total / 1e9:.1f} GB each{host}"
    alone = _needed(recipe, Launcher(), longest, shapes)
    larger = [g for g in GPUS.values() if alone and alone.total <= g.usable]
    if larger:
        cheapest = min(larger, key=lambda g: g.price)
        yield f"1 x {cheapest.title}: --gpu {cheapest.name}"

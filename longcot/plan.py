"""A run before it starts: does it fit, how many steps, how long, what does it cost, what to change.

`train.py RECIPE --plan` prints it, without weights, GPU or torch: shapes come from the config, bytes
from `memory`, work from `flops`, row lengths from the data where it lies on this disk. Speeds are
predictions until `--benchmark` has measured one; give that with --tokens-per-second.
"""

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from longcot import lengths, verdict
from longcot.advice import Advice, advise, choose, relieve, setup_of, spend
from longcot.errors import LaunchError, ModelError, RecipeError
from longcot.flops import Work, count_on_meta, count_work, seconds_per_token
from longcot.hardware import GPUS, Gpu, find_gpu
from longcot.launch import quiet_libraries
from longcot.memory import Memory, Setup, estimate, trainable
from longcot.recipe import Recipe, Train
from longcot.shapes import Shapes, read_shapes
from longcot.sharding import Launcher, check_pairs, launcher_here, read_launcher


@dataclass(frozen=True)
class Steps:
    """How the stated batch is reached; `samples` is what a full optimizer step really carries."""

    accumulation: int  # forward passes per process in one optimizer step
    sequences: int  # sequences (packed or not) in one optimizer step, all processes
    samples: float  # training samples in one optimizer step, on average
    total: int  # optimizer steps of the whole run

    def __str__(self) -> str:
        return (
            f"{self.total:,} optimizer steps of {self.samples:.1f} samples "
            f"({self.sequences} sequences, accumulation {self.accumulation})"
        )


def plan_steps(
    train: Train, *, processes: int, sequences: int, samples_per_sequence: float
) -> Steps:
    """Derive gradient accumulation from `global_batch_size`, which counts samples as the papers do.

    `sequences` is the length of the (packed) training set. Without packing the batch must divide
    exactly; with packing the nearest whole number of sequences is taken, and a result more than a
    quarter away from the stated batch raises RecipeError.
    """
    wave = processes * train.per_device_train_batch_size
    wanted = train.global_batch_size
    if samples_per_sequence == 1:
        if wanted % wave:
            fitting = [d for d in range(1, wanted + 1) if wanted % (d * processes) == 0]
            remedy = f"use {', '.join(map(str, fitting))} per device" if fitting else (
                f"use a multiple of {processes}, the number of processes, as global_batch_size"
            )  # fmt: skip
            raise RecipeError(
                f"train.global_batch_size {wanted} is not divisible by {processes} processes x "
                f"per_device_train_batch_size {train.per_device_train_batch_size}; {remedy}"
            )
        accumulation = wanted // wave
    else:
        accumulation = max(1, round(wanted / samples_per_sequence / wave))
        real = accumulation * wave * samples_per_sequence
        if abs(real - wanted) > wanted / 4:
            raise RecipeError(
                f"train.global_batch_size {wanted} cannot be met: {processes} processes x "
                f"{train.per_device_train_batch_size} packed sequences of {samples_per_sequence:.1f} "
                f"samples make {real:.0f}; use fewer processes, a smaller data.max_length, or "
                f"global_batch_size={real:.0f}"
            )
    batches = math.ceil(sequences / wave)
    per_epoch = math.ceil(batches / accumulation)
    total = train.max_steps or math.ceil(per_epoch * train.num_train_epochs)
    return Steps(
        accumulation, accumulation * wave, accumulation * wave * samples_per_sequence, total
    )


@dataclass(frozen=True)
class Plan:
    """What `make_plan` found; `text` is for reading, `json` for programs."""

    recipe: Recipe
    gpu: Gpu
    launcher: Launcher
    tried: tuple[str, ...]  # simpler ways to share the work, and what they would need: none fits
    shapes: Shapes
    setup: Setup
    memory: Memory
    rows: lengths.Lengths
    steps: Steps
    work: Work
    rate: (
        float | None
    )  # tokens per second of one GPU; None: not given and nothing to predict it from
    predicted: bool
    counted: bool  # `work` by FlopCounterMode, not by formula
    price: float  # dollars per GPU-hour
    advice: Advice | None  # None: it fits
    room: tuple[str, ...]  # overrides that spend spare memory on speed
    gain: float | None  # how many times as fast these are predicted to be

    @property
    def fits(self) -> bool:
        """Whether the worst moment fits what the GPU lets a run use."""
        return self.advice is None

    @property
    def tokens(self) -> float:
        """Tokens of the whole run."""
        train = self.recipe.train
        if train.max_steps:
            return self.steps.total * self.steps.samples * self.rows.mean
        return self.rows.tokens * train.num_train_epochs

    @property
    def trained(self) -> int:
        """Parameters that are trained."""
        return trainable(self.shapes, self.setup)

    @property
    def hours(self) -> float | None:
        """Hours by the clock."""
        return self.tokens / self.rate / self.launcher.processes / 3600 if self.rate else None

    @property
    def cost(self) -> float | None:
        """Dollars of all GPUs."""
        return self.hours * self.launcher.processes * self.price if self.hours else None

    def text(self) -> str:
        """The plan as a table, the verdict first."""
        return "\n".join(verdict.lines(self))

    def json(self) -> str:
        """The plan as one JSON object; bytes, seconds, dollars, FLOP."""
        return json.dumps(verdict.facts(self), indent=1)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `--plan`, for a door's command line."""
    group = parser.add_argument_group("plan")
    add = group.add_argument
    add("--plan", action="store_true", help="memory, steps, hours, cost; loads nothing; stop")
    add("--gpus", default="1", help="how many, or an accelerate file (recipes/hardware/*.yaml)")
    add("--gpu", help=f"which: {', '.join(GPUS)}, cpu; default: h100, cpu for a CPU recipe")
    add("--price", type=float, help="dollars per GPU-hour; default: a list price")
    add("--tokens-per-second", type=float, help="of one GPU, as measured; default: predicted")
    add("--count", action="store_true", help="count FLOP on the meta device (imports torch)")
    add("--json", action="store_true", help="the plan as JSON")


def check_options(options: argparse.Namespace) -> None:
    """Raise LaunchError for an option of `--plan` that was given without it: it would do nothing."""
    parser = argparse.ArgumentParser()
    add_options(parser)
    unset = vars(parser.parse_args([]))
    given = [f"--{key.replace('_', '-')}" for key in unset if getattr(options, key) != unset[key]]
    if given and not options.plan:
        raise LaunchError(f"{', '.join(given)}: only with --plan; add it, or leave this out")


def describe(recipe: Recipe, options: argparse.Namespace) -> str:
    """The plan that a door's command line asks for, as text or JSON."""
    launcher, gpus = None, options.gpus
    if gpus.endswith((".yaml", ".yml")):
        launcher, gpus = read_launcher(gpus), "1"
    elif not (gpus.isascii() and gpus.isdigit()):
        raise LaunchError(f"--gpus {gpus}: a number is wanted, or an accelerate file (.yaml)")
    if options.count:
        quiet_libraries()
    plan = make_plan(
        recipe,
        gpus=int(gpus),
        gpu=options.gpu,
        price=options.price,
        tokens_per_second=options.tokens_per_second,
        launcher=launcher,
        count=options.count,
    )
    return plan.json() if options.json else plan.text()


def relief(recipe: Recipe, gpu: str = "h100") -> str:
    """What to set where a row ran out of memory although the plan said it fits; never fails."""
    try:
        shapes = read_shapes(recipe.model)
        return relieve(recipe, launcher_here(), find_gpu(gpu), recipe.data.max_length, shapes)
    except ModelError:
        return "set train.gradient_checkpointing=true, a smaller data.max_length, or use more GPUs"


def make_plan(
    recipe: Recipe,
    *,
    gpus: int = 1,
    gpu: str | None = None,
    price: float | None = None,
    rows: Sequence[int] | None = None,
    tokens_per_second: float | None = None,
    launcher: Launcher | None = None,
    count: bool = False,
) -> Plan:
    """Plan a recipe on `gpus` GPUs of a kind (default h100, or `cpu` for a CPU recipe).

    `rows`: token lengths, else from the recipe's data or assumed. `tokens_per_second`: of one GPU,
    else predicted. `launcher`: how the GPUs share the work, else what started this process, else
    the first of whole models, FSDP2 and ZeRO-3 with the host's memory that fits. `count`: FLOP by
    FlopCounterMode on the meta device, not by formula; imports torch. Raises LaunchError for a
    recipe and launcher that cannot go together, ModelError, RecipeError and RowError for their own.
    """
    if recipe.train is None:
        raise RecipeError(f"{recipe.path}: has no train section, so there is no run to plan")
    card = _card(recipe, gpu)
    _check_numbers({"--gpus": gpus, "--tokens-per-second": tokens_per_second, "--price": price})
    shapes = _shapes(recipe)
    if launcher:
        check_pairs(recipe, launcher)  # told before rows are read
    found = lengths.measure(recipe, rows)
    launcher, tried = (launcher, ()) if launcher else _launcher(recipe, gpus, card, shapes, found)
    check_pairs(recipe, launcher)
    found = lengths.packed_for(found, recipe, launcher.processes)
    setup = setup_of(recipe, launcher, found.longest)
    work = (count_on_meta if count else count_work)(shapes, setup, found.weighted)
    seconds = seconds_per_token(shapes, setup, work, card)
    advice = advise(recipe, launcher, card, found.longest, shapes)
    room, quicker = ((), setup) if advice else spend(recipe, launcher, card, found.longest, shapes)
    after = seconds_per_token(shapes, quicker, count_work(shapes, quicker, found.weighted), card)
    return Plan(
        recipe=recipe,
        gpu=card,
        launcher=launcher,
        tried=tried,
        shapes=shapes,
        setup=setup,
        memory=estimate(shapes, setup),
        rows=found,
        steps=plan_steps(
            recipe.train,
            processes=launcher.processes,
            sequences=found.sequences,
            samples_per_sequence=found.samples_per_sequence,
        ),
        work=work,
        rate=tokens_per_second or (1 / seconds if seconds else None),
        predicted=tokens_per_second is None,
        counted=count,
        price=card.price if price is None else price,
        advice=advice,
        room=room,
        gain=seconds / after if room and seconds and after else None,
    )


def _shapes(recipe: Recipe) -> Shapes:
    shapes, unchecked = read_shapes(recipe.model), recipe.train.unchecked_layers
    if unchecked > shapes.layers:
        raise RecipeError(
            f"{recipe.path}: train.unchecked_layers is {unchecked}, and the model has {shapes.layers} "
            "layers"
        )
    return shapes


def _card(recipe: Recipe, gpu: str | None) -> Gpu:
    on_cpu = recipe.train.use_cpu
    card = find_gpu(gpu or ("cpu" if on_cpu else "h100"))
    if on_cpu != (card.name == "cpu"):
        raise LaunchError(
            f"--gpu {card.name}: {recipe.path} has train.use_cpu={str(on_cpu).lower()}"
        )
    return card


def _check_numbers(given: dict[str, float | None]) -> None:
    for name, value in given.items():
        free = name == "--price"  # a machine of one's own costs nothing
        if value is not None and not (0 < value < math.inf or (free and value == 0)):
            raise LaunchError(f"{name} {value}: must be {'at least' if free else 'above'} zero")


def _launcher(
    recipe: Recipe, gpus: int, gpu: Gpu, shapes: Shapes, rows: lengths.Lengths
) -> tuple[Launcher, tuple[str, ...]]:
    here = launcher_here()
    if here.processes > 1 and gpus in (1, here.processes):
        return here, ()
    if gpus == 1:
        return Launcher(), ()
    return choose(recipe, gpus, gpu, rows.longest, shapes)

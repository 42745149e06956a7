"""What was asked of the launcher against what really runs."""

import importlib.util
import logging
import os
import warnings
from pathlib import Path
from typing import Any

import yaml

from longcot.errors import LaunchError
from longcot.recipe import Recipe
from longcot.sharding import Kind, Launcher, check_pairs, launcher_here


def quiet_libraries() -> None:
    """No warnings about what a user of this repository cannot act on."""
    # transformers 5.23 renames gradient_checkpointing; TRL 1.16 and older machines use the old name.
    warnings.filterwarnings("ignore", message=".*gradient_checkpointing.*", category=FutureWarning)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def check_launch(recipe: Recipe, need_device: bool = True) -> int:
    """The number of processes that really run; raises LaunchError where the machine falls short.

    Refused: a GPU recipe without a GPU, and a launch that was asked for several processes and
    quietly started one (`accelerate launch --cpu --num_processes 2`, accelerate 1.15), and what
    `sharding.check_pairs` knows cannot go together.
    """
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    asked = requested_processes(parent_command())
    if asked > 1 and processes == 1:
        raise LaunchError(
            f"accelerate launch was asked for {asked} processes and started 1 (it does so on CPU "
            f"without saying); use: torchrun --nproc_per_node {asked} train.py {recipe.path}"
        )
    if need_device:
        check_device(recipe)
    tracker = recipe.train.report_to
    if tracker != "none" and not importlib.util.find_spec(tracker):
        raise LaunchError(
            f"{recipe.path}: train.report_to is {tracker}, which is not installed; "
            f"pip install {tracker}, or set train.report_to=none"
        )
    check_pairs(recipe, launcher_here())
    return processes


def check_processes(launched: int, working: int) -> None:
    """Raise LaunchError when the launcher's processes do not form one group (each alone is a run)."""
    if launched != working:
        raise LaunchError(
            f"the launcher started {launched} processes, but {working} work together; on a machine "
            "without GPUs set train.use_cpu=true, else check the launcher's settings"
        )


def check_wrapping(model: Any, launcher: Launcher) -> None:
    """Raise LaunchError unless the model, as training calls it, is spread as the launcher was asked.

    accelerate falls back without saying: FSDP on a machine without GPUs becomes data parallelism.
    """
    found = _wrapping(model, launcher.processes)
    if found != launcher.kind:
        raise LaunchError(
            f"the launcher asked for {launcher.name} over {launcher.processes} process(es), but the "
            f"model runs as {Launcher(kind=found).name} ({type(model).__name__}), which `--plan` did not "
            "count with; check the launcher's settings, and that every process has its GPU"
        )


def _wrapping(model: Any, processes: int) -> Kind:
    """How a model is really spread. FSDP2 leaves the model's type: its parameters tell."""
    from torch.distributed.fsdp import FullyShardedDataParallel
    from torch.distributed.tensor import DTensor
    from torch.nn.parallel import DistributedDataParallel

    if hasattr(model, "zero_optimization_stage"):  # DeepSpeed's engine
        kinds: dict[int, Kind] = {1: "zero1", 2: "zero2", 3: "zero3"}
        return kinds.get(model.zero_optimization_stage(), "ddp")
    if isinstance(model, DistributedDataParallel):
        return "ddp"
    if isinstance(model, FullyShardedDataParallel):
        return "fsdp1"
    sharded = all(
        isinstance(parameter, DTensor) and parameter.device_mesh.size() == processes
        for parameter in model.parameters()
    )
    return "fsdp2" if sharded else "one"


def check_device(recipe: Recipe) -> None:
    """Raise LaunchError for a recipe trained on a GPU on a machine without one."""
    import torch

    if recipe.train and not recipe.train.use_cpu and not torch.cuda.is_available():
        header = Path(recipe.path).read_text(encoding="utf-8").splitlines()
        needs = [line.lstrip("# ") for line in header if line.startswith("# Hardware:")]
        raise LaunchError(
            f"{recipe.path} needs a GPU (train.use_cpu is false) and this machine has none. "
            f"{needs[0] if needs else 'Its header names no hardware'}. Here you can look at its rows "
            "with --preview, or run a small model with train.use_cpu=true model.dtype=float32"
        )


def parent_command() -> list[str]:
    """The command line of the parent process, or nothing where /proc does not tell it."""
    try:
        return Path(f"/proc/{os.getppid()}/cmdline").read_text(encoding="utf-8").split("\0")
    except OSError:
        return []


def requested_processes(command: list[str]) -> int:
    """How many processes an `accelerate launch` command line asks for; 1 if it is none or silent."""
    if not any(word.endswith("accelerate") or "accelerate" in word for word in command[:3]):
        return 1
    flags = {}
    for word, following in zip(command, [*command[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        flags[name.lstrip("-").replace("-", "_")] = value if equals else following
    if flags.get("num_processes", "").isdigit():
        return int(flags["num_processes"])
    file = Path(flags.get("config_file", ""))
    if file.is_file():
        settings = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        return int(settings.get("num_processes", 1))
    return 1

"""How a launcher spreads a model over GPUs, and which recipes cannot go with which launcher."""

import os
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from longcot.errors import LaunchError
from longcot.recipe import Recipe

Kind = Literal["one", "ddp", "fsdp1", "fsdp2", "zero1", "zero2", "zero3"]
# recipes/hardware's files: kind, whether parameters wait on the host, nodes.
FILES = {
    ("one", False, 1): "1gpu",
    ("ddp", False, 1): "8gpu_ddp",
    ("fsdp2", False, 1): "8gpu_fsdp2",
    ("zero3", True, 1): "8gpu_zero3",
    ("fsdp2", False, 2): "2nodes_fsdp2",
}


@dataclass(frozen=True, kw_only=True)
class Launcher:
    """What `accelerate launch` or torchrun sets up; `one` is a single process."""

    kind: Kind = "one"
    processes: int = 1
    nodes: int = 1
    offload_parameters: bool = False  # kept in the host's memory, fetched when used
    offload_optimizer: bool = False  # optimizer state and step on the host
    context_parallel: int = 1  # processes that share one row's tokens
    source: str = ""  # the file it was read from, for the reader
    on_cpu: bool | None = field(default=None, compare=False)  # what a file says; None: nothing

    @property
    def shards(self) -> int:
        """In how many pieces the parameters lie."""
        return self.processes if self.kind in ("fsdp1", "fsdp2", "zero3") else 1

    @property
    def local(self) -> int:
        """Processes on one node, which share its memory."""
        return max(1, self.processes // self.nodes)

    @property
    def name(self) -> str:
        """The launcher in a word or two."""
        names = {"one": "one process", "ddp": "data parallel", "fsdp1": "FSDP1", "fsdp2": "FSDP2"}
        return names.get(self.kind) or f"ZeRO-{self.kind[-1]}"

    @property
    def command(self) -> str:
        """accelerate's options that set it up: a settings file, and what differs from the file."""
        if self.source.endswith((".yaml", ".yml")):
            return f"--config_file {self.source}"
        name = FILES.get((self.kind, self.offload_parameters, self.nodes))
        if name is None:
            return ""
        count = int(name.partition("gpu")[0]) if self.nodes == 1 else 8 * self.nodes
        other = f" --num_processes {self.processes}" * (count != self.processes)
        return f"--config_file recipes/hardware/{name}.yaml{other}"

    def __str__(self) -> str:
        away = ["parameters"] * self.offload_parameters + ["optimizer"] * self.offload_optimizer
        return f"{self.name}, {' and '.join(away)} on the host" if away else self.name


def read_launcher(path: str | Path) -> Launcher:
    """An accelerate settings file as a Launcher; raises LaunchError for one that cannot be read."""
    path = Path(path)
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = ", ".join(sorted(p.name for p in path.parent.glob("*.yaml"))) or "nothing"
        raise LaunchError(f"{path}: no such file; its folder holds {known}") from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise LaunchError(f"{path}: cannot be read: {str(error).splitlines()[0]}") from None
    if not isinstance(settings, dict) or "distributed_type" not in settings:
        raise LaunchError(
            f"{path}: has no distributed_type; accelerate's settings are wanted, as `accelerate config` "
            "writes them, e.g. recipes/hardware/8gpu_fsdp2.yaml"
        )
    processes = _number(settings.get("num_processes", 1), "num_processes", path)
    kind = str(settings["distributed_type"]).upper()
    fsdp, deepspeed = settings.get("fsdp_config") or {}, settings.get("deepspeed_config") or {}
    if "deepspeed_config_file" in deepspeed:
        raise LaunchError(
            f"{path}: deepspeed_config_file hides what the run needs; write zero_stage and the offload "
            "keys into deepspeed_config itself"
        )
    found = _launcher(
        {
            "kind": kind,
            "fsdp_version": fsdp.get("fsdp_version", 1),
            "fsdp_offload": fsdp.get("fsdp_offload_params"),
            "zero_stage": deepspeed.get("zero_stage", 2),
            "offload_param": deepspeed.get("offload_param_device"),
            "offload_optimizer": deepspeed.get("offload_optimizer_device"),
            "cp": (settings.get("parallelism_config") or {}).get("parallelism_config_cp_size", 1),
        },
        processes,
        _number(settings.get("num_machines", 1), "num_machines", path),
        str(path),
    )
    on_cpu = _is_on(settings.get("use_cpu")) or kind == "MULTI_CPU"
    return replace(found, on_cpu=on_cpu if on_cpu or kind != "NO" else None)


def launcher_here(environment: Mapping[str, str] | None = None) -> Launcher:
    """The launcher this process was started by, from the environment accelerate or torchrun set."""
    env = os.environ if environment is None else environment
    kind = "MULTI_GPU"
    if _is_on(env.get("ACCELERATE_USE_FSDP")):
        kind = "FSDP"
    elif _is_on(env.get("ACCELERATE_USE_DEEPSPEED")):
        kind = "DEEPSPEED"
    processes = int(env.get("WORLD_SIZE", "1"))
    local = int(env.get("LOCAL_WORLD_SIZE", "0")) or processes
    return _launcher(
        {
            "kind": kind,
            "fsdp_version": env.get("FSDP_VERSION", "1"),
            "fsdp_offload": env.get("FSDP_OFFLOAD_PARAMS"),
            "zero_stage": env.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2"),
            "offload_param": env.get("ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE"),
            "offload_optimizer": env.get("ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE"),
            "cp": env.get("PARALLELISM_CONFIG_CP_SIZE", "1"),
        },
        processes,
        max(1, processes // local),
        "this launch",
    )


def _launcher(found: dict[str, Any], processes: int, nodes: int, source: str) -> Launcher:
    kinds: dict[str, Any] = {"NO": "one", "MULTI_GPU": "ddp", "MULTI_CPU": "ddp"}
    if found["kind"] == "FSDP":
        kind = f"fsdp{_number(found['fsdp_version'], 'fsdp_version', source)}"
    elif found["kind"] == "DEEPSPEED":
        kind = f"zero{_number(found['zero_stage'], 'zero_stage', source)}"
    elif found["kind"] in kinds:
        kind = kinds[found["kind"]] if processes > 1 else "one"
    else:
        raise LaunchError(
            f"{source}: distributed_type {found['kind']} is not known here; NO, MULTI_GPU, FSDP or "
            "DEEPSPEED are"
        )
    if kind not in typing.get_args(Kind):
        raise LaunchError(f"{source}: {kind} is not known here; FSDP2 and ZeRO stages 1 to 3 are")
    offload = found["kind"] == "FSDP" and _is_on(found["fsdp_offload"])
    deepspeed = found["kind"] == "DEEPSPEED"
    return Launcher(
        kind=kind,  # pyright: ignore[reportArgumentType]
        processes=processes,
        nodes=nodes,
        offload_parameters=offload or (deepspeed and found["offload_param"] in ("cpu", "nvme")),
        offload_optimizer=offload or (deepspeed and found["offload_optimizer"] in ("cpu", "nvme")),
        context_parallel=_number(found["cp"] or 1, "parallelism_config_cp_size", source),
        source=source,
    )


def _number(value: Any, key: str, source: str | Path) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError):
        number = -1
    if number < (key != "zero_stage"):
        raise LaunchError(f"{source}: {key} is {value!r}; a number above zero is wanted") from None
    return number


def _is_on(value: Any) -> bool:
    return str(value).lower() in ("true", "1", "yes")


def check_pairs(recipe: Recipe, launcher: Launcher) -> None:
    """Raise LaunchError, before anything loads, for a recipe and a launcher that cannot go together."""
    for broken, message in _pairs(recipe, launcher):
        if broken:
            where = f" ({launcher.source})" if launcher.source else ""
            raise LaunchError(f"{recipe.path}: {message}{where}")


def _pairs(recipe: Recipe, launcher: Launcher) -> list[tuple[Any, str]]:
    model, lora, train, data = recipe.model, recipe.lora, recipe.train, recipe.data
    kind = launcher.kind
    fsdp, zero = kind.startswith("fsdp"), kind.startswith("zero")
    eight_bit = "8bit" in train.optim
    return [
        (model.load_in_4bit and lora is None,
         "a 4-bit base cannot be trained itself; add a lora section or set model.load_in_4bit=false"),
        (model.load_in_4bit and (fsdp or zero),
         f"a 4-bit base cannot be sharded by {launcher.name}; every GPU holds it whole, so launch plain data "
         "parallelism: --config_file recipes/hardware/8gpu_ddp.yaml"),
        (model.load_in_fp8 and (fsdp or zero),
         f"an FP8 base cannot be sharded by {launcher.name}; every GPU holds it whole, so launch plain data "
         "parallelism: --config_file recipes/hardware/8gpu_ddp.yaml"),
        (data.packing and launcher.context_parallel > 1,
         "packed rows need a mask that context parallelism drops, so documents would see each other; "
         "set data.packing=false, or launch without parallelism_config"),
        (kind == "fsdp1",
         "FSDP1 wants one precision in a layer, and adapters are float32; set fsdp_version: 2 in the "
         "launcher's fsdp_config"),
        (eight_bit and fsdp,
         f"train.optim {train.optim} cannot step FSDP2's sharded tensors (bitsandbytes issue 1633); set "
         "train.optim=adamw_torch_fused, its state is sharded anyway"),
        (eight_bit and launcher.offload_optimizer,
         f"train.optim {train.optim} cannot step on the host; set train.optim=adamw_torch"),
        (train.selective_checkpointing and kind == "zero3" and lora,
         "selective checkpointing needs non-reentrant checkpoints, ZeRO-3 with adapters reentrant ones; "
         "set train.selective_checkpointing=false, or launch FSDP2"),
        (launcher.on_cpu is not None and launcher.on_cpu != train.use_cpu,
         f"train.use_cpu is {str(train.use_cpu).lower()}, and the launcher's settings are for "
         f"{'the CPU' if launcher.on_cpu else 'GPUs'}; take another file of recipes/hardware"),
        (train.use_cpu and train.activation_offloading,
         "there is no host to offload to from the CPU; set train.activation_offloading=false"),
        (train.use_cpu and (fsdp or zero),
         f"{launcher.name} does nothing on CPU (accelerate falls back without saying); set "
         "train.use_cpu=false, or start with torchrun"),
        (train.use_cpu and model.attn_implementation.startswith("flash"),
         "flash attention has no CPU kernel; set model.attn_implementation=sdpa"),
        (model.dtype == "float32" and model.attn_implementation.startswith("flash"),
         "flash attention computes in 16 bits; set model.dtype=bfloat16 or "
         "model.attn_implementation=sdpa"),
    ]  # fmt: skip

"""What launchers set up, and which recipes cannot go with which of them."""

import dataclasses

import pytest
import yaml
from conftest import ROOT

from longcot.errors import LaunchError
from longcot.recipe import load_recipe
from longcot.sharding import Launcher, check_pairs, launcher_here, read_launcher

FSDP2 = {"distributed_type": "FSDP", "num_processes": 8, "fsdp_config": {"fsdp_version": 2}}
ZERO3 = {"distributed_type": "DEEPSPEED", "num_processes": 8,
         "deepspeed_config": {"zero_stage": 3, "offload_param_device": "cpu",
                              "offload_optimizer_device": "cpu"}}  # fmt: skip


@pytest.fixture
def settings(tmp_path):
    def write(values) -> Launcher:
        path = tmp_path / "hardware.yaml"
        path.write_text(yaml.safe_dump(values), encoding="utf-8")
        return dataclasses.replace(read_launcher(path), source="")

    return write


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"distributed_type": "NO", "num_processes": 1}, Launcher()),
        ({"distributed_type": "NO"}, Launcher()),
        (
            {"distributed_type": "MULTI_GPU", "num_processes": 8},
            Launcher(kind="ddp", processes=8),
        ),
        (FSDP2, Launcher(kind="fsdp2", processes=8)),
        (
            {**FSDP2, "num_processes": 16, "num_machines": 2},
            Launcher(kind="fsdp2", processes=16, nodes=2),
        ),
        (
            {**FSDP2, "fsdp_config": {"fsdp_version": 2, "fsdp_offload_params": True}},
            Launcher(kind="fsdp2", processes=8, offload_parameters=True, offload_optimizer=True),
        ),
        ({**FSDP2, "fsdp_config": {}}, Launcher(kind="fsdp1", processes=8)),  # accelerate's default
        (
            ZERO3,
            Launcher(kind="zero3", processes=8, offload_parameters=True, offload_optimizer=True),
        ),
        (
            {**FSDP2, "parallelism_config": {"parallelism_config_cp_size": 4}},
            Launcher(kind="fsdp2", processes=8, context_parallel=4),
        ),
    ],
)
def test_settings_files_are_read(settings, values, expected):
    assert settings(values) == expected


def test_every_hardware_file_of_the_repository_is_read():
    for path in (ROOT / "recipes/hardware").glob("*.yaml"):
        found = read_launcher(path)
        assert found.source == str(path) and found.processes >= 1
        assert (found.kind == "one") is (found.processes == 1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1], "accelerate's settings are wanted"),
        ({"distributed_type": "TPU"}, "distributed_type TPU is not known"),
        ({**FSDP2, "num_processes": "many"}, "num_processes is 'many'"),
        ({**FSDP2, "fsdp_config": {"fsdp_version": 7}}, "fsdp7 is not known"),
        ({**ZERO3, "deepspeed_config": {"deepspeed_config_file": "x"}}, "deepspeed_config_file"),
    ],
)
def test_settings_that_tell_nothing_are_refused(settings, values, message):
    with pytest.raises(LaunchError, match=message):
        settings(values)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(LaunchError, match="no such file"):
        read_launcher(tmp_path / "none.yaml")
    (tmp_path / "broken.yaml").write_text("a: [", encoding="utf-8")
    with pytest.raises(LaunchError, match="cannot be read"):
        read_launcher(tmp_path / "broken.yaml")


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Launcher()),
        ({"WORLD_SIZE": "1"}, Launcher()),
        ({"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}, Launcher(kind="ddp", processes=2)),
        (
            {"WORLD_SIZE": "16", "LOCAL_WORLD_SIZE": "8", "ACCELERATE_USE_FSDP": "true",
             "FSDP_VERSION": "2", "FSDP_OFFLOAD_PARAMS": "false"},
            Launcher(kind="fsdp2", processes=16, nodes=2),
        ),
        (
            {"WORLD_SIZE": "8", "ACCELERATE_USE_DEEPSPEED": "true",
             "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3",
             "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": "cpu"},
            Launcher(kind="zero3", processes=8, offload_optimizer=True),
        ),
        (
            {"WORLD_SIZE": "8", "ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2",
             "PARALLELISM_CONFIG_CP_SIZE": "2"},
            Launcher(kind="fsdp2", processes=8, context_parallel=2),
        ),
    ],
)  # fmt: skip
def test_the_launcher_that_started_this_process(environment, expected):
    assert dataclasses.replace(launcher_here(environment), source="") == expected


def test_the_environment_is_what_accelerate_sets(settings):
    """The same file, read by us and turned into variables by `accelerate launch` itself."""
    from accelerate.commands.launch import launch_command_parser
    from accelerate.utils.launch import prepare_multi_gpu_env

    arguments = launch_command_parser().parse_args(
        ["--use_fsdp", "--fsdp_version", "2", "--fsdp_offload_params", "true",
         "--num_processes", "8", "--mixed_precision", "bf16", "train.py"]
    )  # fmt: skip
    arguments.num_machines, arguments.dynamo_backend = 1, "no"
    for name in ("fsdp_auto_wrap_policy", "fsdp_backward_prefetch", "fsdp_state_dict_type"):
        setattr(arguments, name, "")
    environment = {**prepare_multi_gpu_env(arguments), "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "8"}
    values = {**FSDP2, "fsdp_config": {"fsdp_version": 2, "fsdp_offload_params": True}}
    assert dataclasses.replace(launcher_here(environment), source="") == settings(values)


# ---- pairs

ON_GPU = {"use_cpu": False, "optim": "adamw_torch_fused"}
BF16 = {"dtype": "bfloat16", "attn_implementation": "flash_attention_2"}
EIGHT = Launcher(kind="ddp", processes=8)
SHARDED = Launcher(kind="fsdp2", processes=8)
ZERO = Launcher(kind="zero3", processes=8)


@pytest.mark.parametrize("launcher", [Launcher(), EIGHT, SHARDED, ZERO], ids=str)
@pytest.mark.parametrize("lora", [{}, {"lora": None}], ids=["lora", "full"])
def test_good_pairs_pass(write_recipe, launcher, lora):
    check_pairs(load_recipe(write_recipe(model=BF16, train=ON_GPU, **lora)), launcher)


def test_recipes_of_the_repository_go_with_plain_launches():
    for name in ("lora32b", "qlora32b", "full32b", "lora7b", "rehearsal"):
        recipe = load_recipe(ROOT / f"recipes/{name}.yaml")
        check_pairs(recipe, Launcher())
        check_pairs(recipe, EIGHT)


@pytest.mark.parametrize(
    ("model", "train", "data", "launcher", "message"),
    [
        ({"load_in_4bit": True}, {}, {}, ZERO, "4-bit base cannot be sharded by ZeRO-3"),
        ({"load_in_4bit": True}, {}, {}, SHARDED, "4-bit base cannot be sharded by FSDP2"),
        ({}, {}, {"packing": True}, Launcher(kind="fsdp2", processes=8, context_parallel=2),
         "packed rows need a mask that context parallelism drops"),
        ({}, {}, {}, Launcher(kind="fsdp1", processes=8), "set fsdp_version: 2"),
        ({}, {"optim": "adamw_8bit"}, {}, SHARDED, "cannot step FSDP2's sharded tensors"),
        ({}, {"optim": "paged_adamw_8bit"}, {},
         Launcher(kind="zero3", processes=8, offload_optimizer=True), "cannot step on the host"),
        ({"dtype": "float32"}, {}, {}, Launcher(), "flash attention computes in 16 bits"),
        ({}, {"use_cpu": True}, {}, Launcher(), "flash attention has no CPU kernel"),
        ({"attn_implementation": "sdpa"}, {"use_cpu": True}, {}, SHARDED, "does nothing on CPU"),
    ],
)  # fmt: skip
def test_impossible_pairs_are_refused_with_the_remedy(
    write_recipe, model, train, data, launcher, message
):
    path = write_recipe(model={**BF16, **model}, train={**ON_GPU, **train}, data=data)
    with pytest.raises(LaunchError) as caught:
        check_pairs(load_recipe(path), launcher)
    assert message in str(caught.value) and str(path) in str(caught.value)


def test_four_bits_without_adapters_are_refused_even_if_a_recipe_got_that_far(write_recipe):
    recipe = load_recipe(write_recipe(model=BF16, train=ON_GPU, lora=None))
    model = dataclasses.replace(recipe.model, load_in_4bit=True)
    with pytest.raises(LaunchError, match="4-bit base cannot be trained itself"):
        check_pairs(dataclasses.replace(recipe, model=model), Launcher())


def test_the_file_is_named_in_the_refusal(write_recipe):
    path = write_recipe(model={**BF16, "load_in_4bit": True}, train=ON_GPU)
    launcher = dataclasses.replace(ZERO, source="recipes/hardware/8gpu_zero3.yaml")
    with pytest.raises(LaunchError, match=r"\(recipes/hardware/8gpu_zero3.yaml\)"):
        check_pairs(load_recipe(path), launcher)


def test_a_launcher_tells_what_it_is():
    assert str(Launcher()) == "one process"
    away = dataclasses.replace(ZERO, offload_parameters=True, offload_optimizer=True)
    assert str(away) == "ZeRO-3, parameters and optimizer on the host"
    assert (SHARDED.shards, EIGHT.shards, ZERO.shards) == (8, 1, 8)
    assert Launcher(kind="fsdp2", processes=16, nodes=2).local == 8


@pytest.mark.parametrize(
    ("launcher", "command"),
    [
        (Launcher(), "--config_file recipes/hardware/1gpu.yaml"),
        (EIGHT, "--config_file recipes/hardware/8gpu_ddp.yaml"),
        (Launcher(kind="fsdp2", processes=4),
         "--config_file recipes/hardware/8gpu_fsdp2.yaml --num_processes 4"),
        (Launcher(kind="fsdp2", processes=16, nodes=2),
         "--config_file recipes/hardware/2nodes_fsdp2.yaml"),
        (Launcher(kind="zero3", processes=8, offload_parameters=True, source="mine.yaml"),
         "--config_file mine.yaml"),
        (Launcher(kind="zero2", processes=8), ""),  # no file of the repository sets this up
    ],
)  # fmt: skip
def test_a_launcher_knows_its_settings_file(launcher, command):
    assert launcher.command == command
    file = command.removeprefix("--config_file ").partition(" ")[0]
    if file.startswith("recipes"):
        found = read_launcher(ROOT / file)
        assert (found.kind, found.nodes) == (launcher.kind, launcher.nodes)
        assert "--num_processes" in command or found.processes == launcher.processes


def test_settings_say_whether_they_are_for_the_cpu():
    said = {"cpu": True, "1gpu": None, "8gpu_ddp": False, "8gpu_fsdp2": False, "8gpu_zero3": False}
    for name, on_cpu in said.items():
        assert read_launcher(ROOT / f"recipes/hardware/{name}.yaml").on_cpu is on_cpu


@pytest.mark.parametrize("processes", [0, -8])
def test_a_launch_of_no_process_is_refused(settings, processes):
    with pytest.raises(LaunchError, match="num_processes is .*; a number above zero"):
        settings({**FSDP2, "num_processes": processes})

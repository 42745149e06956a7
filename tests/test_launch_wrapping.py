"""What the launcher was asked for against what really wraps the model, in two gloo processes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from doors import ENVIRONMENT
from train_cases import LONG, desk, write_recipe  # noqa: F401

from longcot.errors import LaunchError
from longcot.launch import check_wrapping
from longcot.sharding import Launcher

BIN = Path(sys.executable).parent


def torchrun(folder, port, *words, **environment):
    return subprocess.run(
        [BIN / "torchrun", "--nproc_per_node", "2", "--master_port", str(port), *map(str, words)],
        cwd=folder, env=ENVIRONMENT | environment, capture_output=True, text=True, timeout=240,
        check=False,
    )  # fmt: skip


class Engine(torch.nn.Linear):
    """DeepSpeed's engine, as far as it is looked at."""

    def zero_optimization_stage(self) -> int:
        return self.in_features


def test_one_process_and_deepspeed_are_told_apart():
    check_wrapping(torch.nn.Linear(2, 2), Launcher())
    check_wrapping(Engine(3, 3), Launcher(kind="zero3", processes=8))
    with pytest.raises(LaunchError, match=r"ZeRO-3 over 8 .* runs as ZeRO-2 \(Engine\)"):
        check_wrapping(Engine(2, 2), Launcher(kind="zero3", processes=8))
    with pytest.raises(LaunchError, match=r"ZeRO-3 over 8 .* runs as one process \(Linear\)"):
        check_wrapping(torch.nn.Linear(2, 2), Launcher(kind="zero3", processes=8))


LOOK = """
import json, os, torch
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.nn.parallel import DistributedDataParallel
from longcot.errors import LaunchError
from longcot.launch import check_wrapping
from longcot.sharding import Launcher
torch.distributed.init_process_group("gloo")
layers = lambda: torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
partly = layers()
fully_shard(partly[0])
models = {"one": layers(), "ddp": DistributedDataParallel(layers()), "fsdp2": fully_shard(layers()),
          "partly": partly}
found = {}
for name, model in models.items():
    for kind, processes in (("one", 2), ("ddp", 2), ("fsdp2", 2), ("fsdp2", 4), ("zero3", 2)):
        try:
            check_wrapping(model, Launcher(kind=kind, processes=processes))
            found.setdefault(name, []).append(f"{kind} {processes}")
        except LaunchError:
            pass
if os.environ["RANK"] == "0":
    print(json.dumps(found))
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_only_what_runs_is_accepted(tmp_path):
    (tmp_path / "look.py").write_text(LOOK, encoding="utf-8")
    done = torchrun(tmp_path, 29621, "look.py")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "one": ["one 2"],  # how many processes there are, `check_processes` knows
        "ddp": ["ddp 2"],
        "fsdp2": ["fsdp2 2"],
        "partly": ["one 2"],  # a piece that is left out is held whole by every process
    }


PAST_THE_PAIRS = """
import runpy, sys
from longcot import launch
launch.check_pairs = lambda *pair: None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
def test_fsdp_that_accelerate_leaves_out_stops_the_run(desk, tiny_model_dir):
    """On CPU accelerate runs data parallelism instead; `check_pairs`, which knows that, is put aside."""
    write_recipe(desk, tiny_model_dir, "asked", train=LONG["train"])
    (desk / "asked.py").write_text(PAST_THE_PAIRS, encoding="utf-8")
    asked = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2",
             "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP"}  # fmt: skip
    words = ("asked.py", ROOT / "train.py", "asked.yaml", "--run-name", "asked")
    done = torchrun(desk, 29622, *words, **asked)
    assert done.returncode != 0
    assert "error: the launcher asked for FSDP2 over 2 process(es), but the model runs as data" in (
        done.stderr
    )
    assert "step 1/" not in done.stdout
    assert not list((desk / "outputs" / "asked").glob("*"))

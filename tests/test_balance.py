"""Rows side by side on eight processes: equal cost, every row, another order each epoch."""

import gzip
import json
import random
import re
import subprocess
import sys
from bisect import bisect_left, insort
from pathlib import Path
from statistics import mean

import pytest
from conftest import ROOT
from doors import ENVIRONMENT
from train_cases import LONG, desk, losses, write_recipe  # noqa: F401

from longcot import lengths
from longcot.advice import setup_of
from longcot.balance import Waves, count_costs
from longcot.flops import count_work
from longcot.recipe import load_recipe
from longcot.shapes import read_shapes
from longcot.sharding import Launcher

EIGHT = Launcher(kind="fsdp2", processes=8)


def pack(documents: list[int], capacity: int) -> list[list[int]]:
    """Best fit decreasing, as TRL packs; `lengths.pack` counts the same rows."""
    rows, spaces = [], []  # (free places, row), ascending
    for length in sorted(documents, reverse=True):
        at = bisect_left(spaces, (length, -1))
        free, row = spaces.pop(at) if at < len(spaces) else (capacity, len(rows))
        if row == len(rows):
            rows.append([])
        rows[row].append(length)
        insort(spaces, (free - length, row))
    assert len(rows) == lengths.pack(documents, capacity)
    return rows


def costs_of(documents: list[int]) -> list[float]:
    recipe = load_recipe(ROOT / "recipes/lora32b.yaml")
    capacity = recipe.data.max_length
    rows = pack([n for n in documents if n <= capacity], capacity)
    setup = setup_of(recipe, EIGHT, capacity)
    return count_costs(read_shapes(recipe.model), setup, rows)


def balance(costs: list[float], order: list[int]) -> tuple[float, float]:
    """Mean over passes of eight rows of (mean / max, min / max): the share of time worked."""
    passes = [[costs[row] for row in order[i : i + 8]] for i in range(0, len(order), 8)]
    return mean(mean(p) / max(p) for p in passes), mean(min(p) / max(p) for p in passes)


def shuffled(count: int) -> list[int]:
    rows = list(range(count - count % 8))
    random.Random(0).shuffle(rows)
    return rows


def test_eight_processes_are_balanced_at_the_assumed_lengths():
    costs = costs_of(lengths.assumed(16401))
    busy, least = balance(costs, list(Waves(costs, 8, seed=42)))
    assert busy == pytest.approx(0.9998, abs=0.0002) and least == pytest.approx(0.9993, abs=0.0005)
    at_random, _ = balance(costs, shuffled(len(costs)))
    assert at_random == pytest.approx(0.93, abs=0.01)


@pytest.mark.slow
def test_eight_processes_are_balanced_at_real_lengths(shared):
    """Answers of the authors' models, drawn as often as the data set has rows."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(shared / "tokenizers/qwen2.5/tokenizer.json"))
    texts = []
    for path in sorted((shared / "data/authors_outputs").glob("Sky-T1*.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as stream:
            texts += [row["question"] + row["response"] for row in map(json.loads, stream)]
    real = [len(found.ids) for found in tokenizer.encode_batch_fast(texts)]
    assert len(real) > 1000 and max(real) > 16384
    costs = costs_of(random.Random(0).choices(real, k=16401))
    busy, least = balance(costs, list(Waves(costs, 8, seed=42)))
    assert busy >= 0.998 and least >= 0.99
    assert balance(costs, shuffled(len(costs)))[0] < 0.97


def test_costs_are_the_plans_work():
    recipe = load_recipe(ROOT / "recipes/lora32b.yaml")
    shapes, setup = read_shapes(recipe.model), setup_of(recipe, EIGHT, 16384)
    long, short, part = count_costs(shapes, setup, [[16384], [512] * 32, [512]])
    assert long == pytest.approx(16384 * count_work(shapes, setup, 16384).executed)
    assert short == pytest.approx(16384 * count_work(shapes, setup, 512).executed)
    assert part == pytest.approx(short / 32) and long > 1.2 * short
    recipe = load_recipe(ROOT / "recipes/lora32b.yaml", ["model.attn_implementation=sdpa"])
    masked = setup_of(recipe, EIGHT, 16384)  # computes every pair of a row, whatever its documents
    long, short = count_costs(shapes, masked, [[16384], [512] * 32])
    assert long == short


@pytest.mark.parametrize("rows", [1, 3, 8, 9, 15, 16, 100, 1001])
def test_every_row_runs_and_few_run_twice(rows):
    draw = random.Random(rows)
    waves = Waves([draw.random() for _ in range(rows)], 8, seed=1)
    order = list(waves)
    assert set(order) == set(range(rows))
    assert len(order) == len(waves) == -(-rows // 8) * 8
    assert all(len(set(order[i : i + 8])) == min(8, rows) for i in range(0, len(order), 8))


def test_the_order_is_random_by_seed_and_epoch_alone():
    costs = costs_of(lengths.assumed(2000))
    one, again, other = (Waves(costs, 8, seed) for seed in (1, 1, 2))
    assert list(one) == list(one) == list(again) != list(other)
    first = list(one)
    one.set_epoch(1)
    second = list(one)
    assert first != second
    again.set_epoch(1)
    assert list(again) == second

    def together(order: list[int]) -> set[frozenset[int]]:
        return {frozenset(order[i : i + 8]) for i in range(0, len(order), 8)}

    shared = together(first) & together(second)  # whose rows stayed side by side
    assert len(shared) < len(together(first)) / 20
    places = [costs[row] for row in first]
    early, late = places[: len(places) // 2], places[len(places) // 2 :]
    assert mean(early) == pytest.approx(mean(late), rel=0.02)  # waves are shuffled


PAIR = """
import os, runpy, signal, sys
from trl import SFTTrainer
real, passes = SFTTrainer.training_step, 0
def step(*a, **k):
    global passes
    passes += 1
    if passes == 11 and os.environ["RANK"] == "1" and "--resume" not in sys.argv:
        os.kill(os.getpid(), signal.SIGTERM)
    return real(*a, **k)
SFTTrainer.training_step = step
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
AS_TWO = """
from longcot import trainer
real = trainer.balance
trainer.balance = lambda recipe, made, processes: real(recipe, made, 2)
"""


@pytest.mark.slow
def test_two_processes_stop_in_their_second_epoch_and_go_on(desk, doors, tiny_model_dir):
    """The losses are those of one process that is given two processes' order."""
    train = {**LONG["train"], "num_train_epochs": 2.0, "global_batch_size": 3}
    write_recipe(desk, tiny_model_dir, "two", data={"packing": True}, train=train)
    (desk / "two.py").write_text(PAIR, encoding="utf-8")
    torchrun = [Path(sys.executable).parent / "torchrun", "--nproc_per_node", "2"]

    def run(*words):
        return subprocess.run(
            [*torchrun, "--master_port", "29631", "two.py", ROOT / "train.py", "two.yaml", *words],
            cwd=desk, env=ENVIRONMENT, capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip

    done = run()
    assert re.search("stopped by SIGTERM; step 11 of 16", done.stderr), done.stderr
    done = run("--resume")
    assert done.returncode == 0, done.stderr
    alone = doors("train.py", desk, "two.yaml", "--run-name", "as_two", plant=AS_TWO)
    assert alone.code == 0, alone.err
    pairs = list(zip(losses(desk / "outputs/two"), losses(desk / "outputs/as_two"), strict=True))
    assert len(pairs) == 16
    assert all(abs(two[1] - one[1]) < 1e-4 for two, one in pairs)
    plain = doors("train.py", desk, "two.yaml", "--run-name", "plain")
    assert plain.code == 0, plain.err  # another order: the comparison above can fail
    found = zip(losses(desk / "outputs/two"), losses(desk / "outputs/plain"), strict=True)
    assert any(abs(two[1] - one[1]) > 1e-3 for two, one in found)

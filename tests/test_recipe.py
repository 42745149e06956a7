"""The schema, and every recipe of the repository."""

import ast
import dataclasses
import re

import pytest
import yaml
from conftest import ROOT
from recipe_cases import SCHEMA, kind_of

from longcot import recipe as schema
from longcot.recipe import SECTIONS, load_recipe

RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))
EXPERIMENTS = [path for path in RECIPES if path.parent.name != "hardware"]
NAMES = ["base32b", "base32b_bestof", "base32b_n8", "base32b_skills", "cpt9b_base", "fp8lora32b", "full32b",
         "full32b_r1", "full7b", "latro8b_base", "latro8b_base_maj8", "lora14b", "lora32b", "lora32b_r1",
         "lora7b", "qlora32b", "rationalyst8b_base", "rehearsal", "rehearsal_base",
         "rehearsal_structure", "structure32b"]  # fmt: skip


# ---- the schema


def test_sections_stay_small_enough_to_read():
    assert set(SCHEMA) == {"model", "chat", "data", "lora", "train", "eval"}
    assert all(kind_of(section).__dataclass_params__.frozen for section in SECTIONS)


# Keys that move only speed, logging, disk, or switch an option on that is off when absent.
WITH_DEFAULT = {
    "chat": {"chat_template_path", "pad_token"},
    "data": {"max_samples"},
    "model": {"load_in_fp8"},
    "train": {"max_steps", "use_cpu", "gradient_checkpointing", "logging_steps", "save_steps",
              "save_total_limit", "report_to", "selective_checkpointing", "unchecked_layers",
              "activation_offloading", "use_liger_kernel"},
    "eval": {"batch_size", "limit", "vllm_args", "served_model_name", "api_key_env"},
}  # fmt: skip


def test_only_these_keys_have_a_default():
    for section in SECTIONS:
        defaulted = {f.name for f in dataclasses.fields(kind_of(section))
                     if f.default is not dataclasses.MISSING}  # fmt: skip
        assert defaulted == WITH_DEFAULT.get(section, set()), section


# How code names a section when it reads a key of it.
SPOKEN = {section: {section} for section in SECTIONS} | {"eval": {"eval", "evaluate"}}


def test_every_schema_key_is_read_somewhere():
    """A key nobody reads is a lie in the recipe: `recipe.train.seed`, `train.seed`, ... must occur."""
    read = set()
    files = [ROOT / "train.py", ROOT / "eval.py", *(ROOT / "longcot").glob("*.py")]
    for path in files:
        if path.name == "recipe.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute):
                owner = node.value
                name = getattr(owner, "attr", None) or getattr(owner, "id", None)
                read.add((name, node.attr))
    unread = [
        f"{section}.{key}"
        for section, keys in SCHEMA.items()
        for key in sorted(keys)
        if not any((name, key) in read for name in SPOKEN[section])
    ]
    assert unread == []


def test_every_range_rule_names_a_key_of_the_schema():
    """`_check_rules` reads keys by name with a default, so a misspelt one would never be checked."""
    tree = ast.parse((ROOT / "longcot/recipe.py").read_text(encoding="utf-8"))
    function = next(n for n in ast.walk(tree) if getattr(n, "name", "") == "_check_rules")
    named = {n.value for n in ast.walk(function)
             if isinstance(n, ast.Constant) and re.fullmatch(r"[a-z]+\.\w+", str(n.value))}  # fmt: skip
    assert len(named) >= 20
    assert all(key.split(".")[1] in SCHEMA[key.split(".")[0]] for key in named)


# ---- the recipes of the repository


def test_the_recipes_are_these():
    assert [path.stem for path in EXPERIMENTS] == NAMES
    assert len(RECIPES) == len(NAMES) + len(list((ROOT / "recipes/hardware").glob("*.yaml")))


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_a_recipe_of_the_repository_loads_and_is_short(path):
    recipe = load_recipe(path)
    assert recipe.name == path.stem
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 55


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_a_header_names_row_command_hardware_cost_and_expectation(path):
    head = re.match(r"(#.*\n)+", path.read_text(encoding="utf-8")).group()
    assert re.match(r"# Row: results/\w+\.md", head)
    door = "train.py" if load_recipe(path).train else "eval.py"
    assert re.search(rf"^# .*{door} recipes/{path.stem}\.yaml", head, re.MULTILINE)
    for word in ("Hardware:", "Cost:", "Expected:"):
        assert word in head, word


def differing(one: str, other: str) -> set[str]:
    def flat(name: str) -> dict:
        found = yaml.safe_load((ROOT / f"recipes/{name}.yaml").read_text(encoding="utf-8"))
        return {f"{s}.{k}": v for s, keys in found.items() for k, v in keys.items()}

    a, b = flat(one), flat(other)
    return {key for key in a.keys() | b.keys() if a.get(key) != b.get(key)}


LORA = {f"lora.{key}" for key in SCHEMA["lora"]}


@pytest.mark.parametrize(
    ("one", "other", "keys"),
    [
        ("lora32b", "qlora32b", {"model.load_in_4bit", "train.optim"}),
        ("lora32b", "full32b", LORA | {"train.learning_rate"}),
        ("qlora32b", "fp8lora32b", {"model.load_in_4bit", "model.load_in_fp8", "train.optim"}),
        ("lora32b", "lora32b_r1", {"data.path", "lora.r", "lora.lora_alpha"}),
        ("full32b", "full32b_r1", {"data.path"}),
        ("lora7b", "lora14b", {"model.model_name_or_path"}),
        ("lora7b", "full7b", LORA | {"train.learning_rate"}),
        ("latro8b_base", "latro8b_base_maj8", {"eval.temperature", "eval.n"}),
        ("base32b", "base32b_n8", {"eval.tasks", "eval.temperature", "eval.top_p", "eval.n"}),
        ("lora32b", "lora7b", {"model.model_name_or_path", "data.path", "lora.r", "lora.lora_alpha"}),
    ],
)  # fmt: skip
def test_minimal_pairs_differ_in_nothing_else(one, other, keys):
    assert differing(one, other) == keys


@pytest.mark.parametrize(("base", "tuned"), [("rehearsal_base", "rehearsal")])
def test_a_base_row_is_asked_as_its_tuned_one_is(base, tuned):
    found = differing(base, tuned)
    assert not {key for key in found if key.startswith(("model.", "chat.", "eval."))}
    assert load_recipe(ROOT / f"recipes/{base}.yaml").train is None


def test_the_papers_settings_are_in_the_recipes():
    lora = load_recipe(ROOT / "recipes/lora32b.yaml")
    assert (lora.lora.r, lora.train.learning_rate, lora.train.global_batch_size) == (64, 1e-4, 96)
    full = load_recipe(ROOT / "recipes/full32b.yaml")
    assert (full.train.learning_rate, full.train.num_train_epochs) == (1e-5, 3)
    for recipe in (lora, full):
        assert recipe.data.max_length == 16384 and recipe.train.lr_scheduler_type == "cosine"
        assert recipe.model.model_name_or_path == "Qwen/Qwen2.5-32B-Instruct"
    assert schema.SECTIONS.keys() == SCHEMA.keys()

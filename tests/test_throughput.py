"""The comparison's page and figures from records, and what the parent process decides."""

import json
import re
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from conftest import ROOT, recipe_text

from longcot.errors import LaunchError, RecipeError
from longcot.hardware import GPUS
from longcot.recipe import load_recipe
from longcot.shapes import read_shapes
from results import figures, throughput, throughput_page

CARD = "NVIDIA H100 80GB HBM3"
QLORA = load_recipe(ROOT / "recipes" / "qlora32b.yaml", [])
FP8 = load_recipe(ROOT / "recipes" / "fp8lora32b.yaml", [])
RAN = {"attention": "torch_varlen", "base": "Linear4bit", "adapters": "float32",
       "optimizer": "paged_adamw_8bit", "layers_checkpointed": 4, "attention_kept": 4,
       "liger": True, "branch_first": True}  # fmt: skip
PREPARED = {
    "device": CARD,
    "rows": {"count": 5, "tokens": 80000, "documents": [8000] * 10, "sha256": "0" * 64},
    "ceilings": {"gemm_flops": 8e14, "copy_bytes": 3e12},
}
SHAPES = replace(read_shapes(QLORA.model), layers=4)


def measured(contender="ours_qlora32b", seconds=(0.4, 0.5, 0.6), ran=RAN, peak=12e9, **changes):
    """A record as a child leaves it, for rows of 16,000 tokens."""
    history = [{"loss": 12.0, "num_tokens": 16000 * (i + 1)} for i in range(3 + len(seconds))]
    told = figures.tell(
        contender, QLORA, SHAPES, seconds=list(seconds), history=history, peak=(int(peak), 1),
        ran=ran, prepared=PREPARED,
    )  # fmt: skip
    entry = {
        "contender": contender, "layers": 4, "date": "2026-01-02T03:04:05Z", "dirty": False,
        "command": "python -m results.throughput", "commit": "0123456789abcdef", "reason": None,
        "versions": {"torch": "2.11.0", "trl": "1.16.0"}, "name": f"h100-{contender}-4",
    }  # fmt: skip
    return {**entry, **told, "status": "measured", **changes}


def rows_of(page: str) -> dict[tuple[str, str], list[str]]:
    """The cells of the first table by contender and layers."""
    lines = [line for line in page.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {(row[0], row[1]): row for row in cells if len(row) == 12}


# ---- figures


def test_figures_are_those_of_the_formula():
    found = measured()
    assert found["tokens_per_second"] == pytest.approx(16000 / 0.5)
    assert found["steps"] == 3 and found["warm_up"] == 3 and found["tokens_per_step"] == 16000
    assert found["mfu"] == pytest.approx(found["model_flops_per_token"] * 32000 / 989e12)
    assert found["hfu"] / found["mfu"] == pytest.approx(
        found["executed_flops_per_token"] / found["model_flops_per_token"]
    )
    assert 0 < found["mfu"] < found["hfu"] and found["floor_share"] < 1
    # a head of 1.56 GFLOP each way and four layers of 64: far more than 4/64 of the whole model
    assert found["model_flops_per_token"] > 1.3 * 4 / 64 * 148.5e9


def test_what_really_ran_decides_the_executed_work():
    ours, plain = (
        figures.setup_for(name, QLORA, SHAPES, ran)
        for name, ran in (
            ("ours_qlora32b", RAN),
            ("trl_plain", {**RAN, "attention": "sdpa", "attention_kept": 0, "branch_first": False}),
        )
    )
    assert ours.selective and ours.branch_first and not ours.masked
    assert not plain.selective and not plain.branch_first and plain.masked
    half = figures.setup_for("ours_qlora32b", QLORA, SHAPES, {**RAN, "layers_checkpointed": 3})
    assert half.unchecked == 1
    none = figures.setup_for("ours_qlora32b", QLORA, SHAPES, {**RAN, "layers_checkpointed": 0})
    assert not none.checkpointing


def test_an_fp8_base_has_a_lower_floor():
    fast = {**PREPARED["ceilings"], "fp8_flops": 16e14}
    floors = [
        figures.floor_seconds(SHAPES, figures.setup_for("ours", recipe, SHAPES), 8000, fast)
        for recipe in (QLORA, FP8)
    ]
    assert floors[1] < 0.8 * floors[0]


@pytest.mark.parametrize(
    ("device", "name"),
    [(CARD, "h100"), ("NVIDIA H100 PCIe", "h100-pcie"), ("NVIDIA L40S", "l40s"), ("cpu", None)],
)
def test_a_card_is_found_by_what_cuda_calls_it(device, name):
    assert getattr(figures.find_card(device), "name", None) == name


# ---- the page


def test_the_committed_page_is_up_to_date():
    made = throughput_page.page(throughput_page.read_records(throughput.RECORDS))
    written = throughput.RESULTS / throughput_page.PAGE
    assert written.read_text(encoding="utf-8") == made, "run python -m results.throughput --page"


def test_without_records_every_row_says_not_run_beside_its_prediction():
    rows = rows_of(throughput_page.page([]))
    del rows["contender", "layers"]
    assert len(rows) == len(throughput_page.TITLES) * 3
    for row in rows.values():
        assert row[2] == "not run" and float(row[4].replace(",", "")) > 1000 and float(row[10]) > 5
        assert set(row[3:4] + row[5:10] + row[11:]) == {"-"}
    assert "Nothing was measured on a GPU yet." in throughput_page.page([])


def test_a_record_stands_beside_prediction_and_plain_trl():
    plain = measured("trl_plain", seconds=(1.0, 1.0, 1.0), ran={**RAN, "attention": "sdpa"})
    rows = rows_of(throughput_page.page([measured(), plain]))
    ours = rows["ours, NF4 base", "4"]
    assert ours[2].startswith("32,000 [") and ours[3].startswith("2.00x [") and ours[9] == "12.0"
    other = measured("trl_plain", rows={"sha256": "1"})
    assert rows_of(throughput_page.page([measured(), other]))["ours, NF4 base", "4"][3] == "-"


def test_a_miss_is_flagged_until_it_is_explained():
    found = measured(seconds=(2.0, 2.0, 2.0))
    assert figures.misses(found).keys() == {"tokens_per_second"}
    page = throughput_page.page([found])
    assert rows_of(page)["ours, NF4 base", "4"][5].startswith("**-")
    assert "**not explained yet** (`explained.tokens_per_second`" in page
    page = throughput_page.page([{**found, "explained": {"tokens_per_second": "It was hot."}}])
    assert "It was hot." in page and "not explained" not in page


def test_a_good_prediction_is_no_miss():
    found = measured()
    exact = 16000 / found["predicted"]["tokens_per_second"]
    found = measured(seconds=(exact,) * 3, peak=found["predicted"]["peak_bytes"] * 1.05)
    assert figures.misses(found) == {}
    assert "None." in throughput_page.page([found])


def test_failures_and_gaps_say_why():
    failed = measured(status="failed", reason="out of | memory")
    absent = measured("unsloth", status="not installed", reason="unsloth not installed")
    for record in (failed, absent):
        for key in ("predicted", "seconds", "ran"):
            del record[key]
    rows = rows_of(throughput_page.page([failed, absent]))
    assert rows["ours, NF4 base", "4"][2] == "failed: out of / memory"
    assert rows["Unsloth, NF4 base", "4"][2] == "not installed"


def test_two_cuts_tell_the_whole():
    four = measured()
    twelve = measured(seconds=(1.3, 1.3, 1.3), layers=12, name="h100-ours_qlora32b-12")
    page = throughput_page.page([four, twelve])
    # 0.1 s a layer and 0.1 s besides: 6.5 s for 64
    assert "100.0 ms a layer, 100.0 ms besides; 64 layers by that: 2,462 tokens/s" in page


def test_no_speed_of_a_cpu_is_printed():
    cpu = {"device": "cpu", "peak_bytes": None, "name": "cpu-x-4"}
    page = throughput_page.page([measured("trl_plain", **cpu), measured("ours_rehearsal", **cpu)])
    assert "| ours, rehearsal | 4 | 12.000000 | 12.000000 |" in page
    assert "32,000" not in page and "1.00x" not in page and "Nothing was measured on a GPU" in page


def test_a_stale_page_is_noticed(tmp_path):
    command = [sys.executable, "-m", "results.throughput", "--records", str(tmp_path / "made")]

    def ask(flag: str):
        return subprocess.run([*command, flag], capture_output=True, text=True, cwd=ROOT)

    assert ask("--check").returncode == 1
    assert ask("--page").returncode == 0 and ask("--check").returncode == 0
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "h100-x-4.json").write_text(json.dumps(measured()))
    stale = ask("--check")
    assert stale.returncode == 1 and "is stale" in stale.stderr


# ---- the parent


def ask_for(**given):
    defaults = {"layers": None, "full": False, "contenders": None, "steps": 2, "words": []}
    return type("Arguments", (), {**defaults, **given})


def test_the_default_is_all_contenders_cuts_first():
    found = throughput.contenders([QLORA, FP8], ask_for())
    assert [layers for _, _, layers in found] == [4] * 5 + [12] * 5 + [64] * 5
    names = ["ours_qlora32b", "ours_fp8lora32b", "trl_best", "trl_plain", "unsloth"]
    assert [contender for contender, _, _ in found[:5]] == names
    assert {recipe for contender, recipe, _ in found if contender in throughput.RIVALS} == {QLORA}
    some = throughput.contenders([QLORA], ask_for(layers="2", full=True, contenders="trl_best"))
    assert [(contender, layers) for contender, _, layers in some] == [
        ("trl_best", 2),
        ("trl_best", 64),
    ]


@pytest.mark.parametrize("given", [{"layers": "65"}, {"layers": "x"}, {"contenders": "axolotl"}])
def test_what_cannot_be_measured_is_refused(given):
    with pytest.raises(RecipeError):
        throughput.contenders([QLORA], ask_for(**given))


def test_recipes_side_by_side_must_agree(write_recipe):
    longer = replace(QLORA, data=replace(QLORA.data, max_length=32768))
    with pytest.raises(RecipeError, match="must agree"):
        throughput.check([QLORA, longer], ask_for())
    full = load_recipe(write_recipe(lora=None, data={"packing": True}), [])
    with pytest.raises(RecipeError, match="adapters on packed rows"):
        throughput.check([full], ask_for())
    with pytest.raises(RecipeError, match="at least 2"):
        throughput.check([QLORA], ask_for(steps=1))


def test_a_missing_package_is_named(monkeypatch):
    gone = {"bitsandbytes", "liger_kernel", "unsloth"}
    real = throughput.importlib.util.find_spec
    monkeypatch.setattr(
        throughput.importlib.util, "find_spec", lambda name: None if name in gone else real(name)
    )
    assert throughput.find_missing("ours_qlora32b", QLORA) == ["bitsandbytes", "liger_kernel"]
    assert throughput.find_missing("trl_plain", QLORA) == ["bitsandbytes"]
    assert throughput.find_missing("unsloth", QLORA) == ["bitsandbytes", "unsloth"]
    gone.add("trl")
    with pytest.raises(LaunchError, match="trl not installed, so no contender can run"):
        throughput.prepare(QLORA, ask_for(work=None), time.time())


def test_what_does_not_fit_the_budget_is_skipped_and_says_so(tmp_path, monkeypatch):
    def run_job(job, log, end):
        raise AssertionError(f"{job['contender']} was run")

    monkeypatch.setattr(throughput, "prepare", lambda *given: PREPARED)
    monkeypatch.setattr(throughput, "run_job", run_job)
    monkeypatch.setattr(throughput, "absent", lambda packages: [])
    monkeypatch.chdir(ROOT)
    given = ask_for(layers="4", budget=100.0, records=tmp_path, work=tmp_path)
    throughput.measure_all(given, time.time() - 70)
    found = [json.loads(path.read_text()) for path in tmp_path.glob("h100-*.json")]
    assert len(found) == 5 and {entry["status"] for entry in found} == {"skipped"}
    assert re.fullmatch(r"wants about \d+ s, \d+ s of the budget were left", found[0]["reason"])


def test_a_gap_never_replaces_figures(tmp_path):
    path = tmp_path / "r.json"
    throughput.keep(path, {"status": "failed", "reason": "a"})
    throughput.keep(path, {"status": "skipped", "reason": "b"})
    assert json.loads(path.read_text())["reason"] == "b"
    throughput.keep(path, {"status": "measured"})
    throughput.keep(path, {"status": "failed"})
    assert json.loads(path.read_text()) == {"status": "measured"}


def test_the_whole_model_is_taken_to_need_its_predicted_steps():
    few, all_of_them = (
        throughput.least_seconds("ours_qlora32b", QLORA, layers, GPUS["h100"]) for layers in (4, 64)
    )
    assert few < 10 and 40 < all_of_them < 120


def test_the_parent_loads_nothing_heavy():
    code = "import sys, results.throughput; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert not {"torch", "transformers", "trl", "datasets"} & set(done.stdout.split())


def test_a_child_that_fails_gives_its_reason(tmp_path, monkeypatch):
    (tmp_path / "gpu.yaml").write_text(recipe_text(train={"sede": 1}))
    job = {"contender": "trl_plain", "recipe": str(tmp_path / "gpu.yaml"), "overrides": [],
           "entry": {"layers": 4}}  # fmt: skip
    monkeypatch.chdir(ROOT)
    late = throughput.run_job(job, tmp_path / "late.log", 0.0)
    assert late == {"layers": 4, "status": "failed", "reason": "ran past the budget"}
    found = throughput.run_job(job, tmp_path / "x.log", time.time() + 3000)
    assert found["status"] == "failed" and '"train.sede"' in found["reason"]

"""Averages, paired differences and pass@N, from numbers that can be worked out by hand."""

import pytest
from table_cases import SIZES, STUDENT, numbers, whole, write

from longcot import metrics
from results import cells


def test_an_average_is_over_benchmarks_not_over_problems():
    found = {"a": numbers("1 0"), "b": numbers("1 1 1 1")}
    mean = cells.average(found, ["a", "b"])
    assert mean["accuracy"] == 0.75 and mean["n"] == 6  # pooled it would be 5/6
    assert mean["interval"] == [0.5, 1.0]  # `a` alone varies, from 0 to 1
    assert cells.average(found, ["a", "c"]) is None


def test_a_difference_is_paired_leaves_out_what_one_did_not_judge_and_weighs_benchmarks_alike():
    a = {"x": numbers("1 0 - 1"), "y": numbers("0 0")}
    b = {"x": numbers("0 0 1 1"), "y": numbers("1 1")}
    found = cells.difference(a, b, ["x", "y"], 0.95)
    assert found["difference"] == pytest.approx((-1 / 3 + 1) / 2) and found["n"] == 5
    assert found["interval"] == pytest.approx([(-1 + 1) / 2, (0 + 1) / 2])
    assert cells.difference(a, b, ["x", "z"], 0.95) == "not run"
    b["y"]["task_hash"] = "another"
    assert cells.difference(a, b, ["x", "y"], 0.95) == "other problems"


@pytest.mark.parametrize("level", [0.95, 1 - 0.05 / 18])
def test_the_bootstrap_of_one_benchmark_is_that_of_metrics(level):
    values = [1.0] * 120 + [0.0] * 60 + [-1.0] * 30 + [1 / 3] * 40
    ours = cells.bootstrap([values], level)
    assert ours == pytest.approx(metrics.bootstrap(values, level, draws=20_000), abs=0.012)


def test_problems_are_resampled_within_their_benchmark():
    one, other = [0.0] * 10, [1.0] * 90
    assert cells.bootstrap([one, other], 0.99) == [0.5, 0.5]  # pooled, the share would vary
    assert cells.bootstrap([one], 0.99) == [0.0, 0.0]


def test_a_higher_level_gives_a_wider_interval():
    values = [0.0, 1.0] * 50
    narrow, wide = cells.bootstrap([values], 0.95), cells.bootstrap([values], 0.9972)
    assert wide[0] < narrow[0] < 0.5 < narrow[1] < wide[1]


def test_pass_at_k_comes_with_an_interval_over_problems():
    # Four samples each: one right of four, none right. pass@2 of the first: 1 - C(3,2)/C(4,2) = 1/2.
    found = numbers("0.25 0", samples=8) | {"pass@1": 0.125, "pass@2": 0.25, "pass@4": 0.5}
    curve = cells.pass_curve(found)
    assert [(k, value) for k, value, _ in curve] == [(1, 0.125), (2, 0.25), (4, 0.5)]
    assert [interval for _, _, interval in curve] == [[0, 0.25], [0, 0.5], [0, 1]]
    uneven = cells.pass_curve(found | {"samples": 7})
    assert all(interval is None for _, _, interval in uneven)


def test_shares_of_128_samples_are_read_back_exactly():
    rights = list(range(129))
    found = numbers(" ".join(f"{right / 128:.4g}" for right in rights), samples=129 * 128)
    found |= {"pass@1": 0.5, "pass@64": 0.9}
    means = [sum(metrics.pass_at_k(128, r, k) for r in rights) / 129 for k in (1, 64)]
    for (_, _, interval), mean in zip(cells.pass_curve(found), means, strict=True):
        assert interval[0] < mean < interval[1]


def test_a_published_cell_may_carry_its_mark():
    assert [cells.number(cell) for cell in (90.8, "90.0 (derived)", None)] == [90.8, 90.0, None]
    assert [cells.is_marked(cell) for cell in (90.8, "90.0 (derived)", None)] == [
        False,
        True,
        False,
    ]


def test_a_record_of_another_model_or_of_a_part_gives_no_number(tmp_path):
    write(tmp_path, "base32b", whole())
    assert set(cells.figures_of("base32b", "base32b", tmp_path)) == set(SIZES)
    write(tmp_path, "base32b", whole() | {"amc23": numbers("1 1")})
    assert set(cells.figures_of("base32b", "base32b", tmp_path)) == set(SIZES) - {"amc23"}
    for model, limit in (("another", None), (STUDENT, 20)):
        recipe = {"model": {"model_name_or_path": model}, "eval": {"limit": limit}}
        write(tmp_path, "base32b", whole(), recipe=recipe)
        assert cells.figures_of("base32b", "base32b", tmp_path) == {}
    assert cells.figures_of(None, "", tmp_path) == cells.figures_of("x", "x", tmp_path) == {}


def test_records_of_one_source_are_named_together_and_dirty_ones_apart(tmp_path):
    for run in ("a", "b"):
        write(tmp_path, run, whole())
    write(tmp_path, "c", whole(), dirty=True)
    lines = cells.provenance(tmp_path, ["a", "b", "missing", "c"])
    assert [line for line in lines if line.startswith("- `a`, `b`: commit 0123456789, 2 cores")]
    assert [line for line in lines if line.startswith("- `c`:") and line.endswith(", dirty")]
    assert cells.provenance(tmp_path, ["missing"]) == []

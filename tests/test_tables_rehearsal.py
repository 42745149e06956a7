"""The page of the CPU-sized sweep: three seeds a condition, and what they say about the paper."""

import pytest
from table_cases import numbers, published, read_line, widths_agree, write

from results import rehearsal_structure as twin
from results import structure

PUBLISHED = published()
PAGE = PUBLISHED["structure"]
TEN = "1 1 1 1 1 1 1 1 1 1"


@pytest.fixture
def runs(tmp_path):
    for name in ("runs", "pages"):
        (tmp_path / name).mkdir()
    return tmp_path / "runs"


def write_page(runs) -> str:
    return twin.write_page(runs, PUBLISHED, runs.parent / "pages")


def write_seeds(runs, condition: str, *shares: str | None, **more) -> None:
    for seed, one in enumerate(shares):
        if one:
            run = f"rehearsal_structure_{condition}_s{seed}"
            write(runs, run, {"test": numbers(one, **more)})


def figures(runs) -> set[str]:
    return {path.name for path in (runs.parent / "pages").iterdir()}


def test_without_records_nothing_is_claimed_and_nothing_drawn(runs):
    text = write_page(runs)
    assert widths_agree(text) and figures(runs) == set()
    row = read_line(text, "Wrong answers (")
    assert row[1:8] == ["not run"] * 7 and row[8:] == [
        "-3.2",
        "no large drop",
        "not run",
        "not run",
    ]
    assert "- not run: 18 (`wrong`," in text and "- shown here: 0\n" in text
    assert PUBLISHED["rehearsal_structure"]["note"].split()[0] in text


def test_seeds_mean_range_and_differences(runs):
    write_seeds(runs, "correct", TEN, TEN, "0 1 1 1 1 1 1 1 1 1", keywords=3.0)
    write_seeds(runs, "digits50", "1 1 1 1 1 0 0 0 0 0", "1 1 1 1 1 1 1 0 0 0", TEN, keywords=2.0)
    text = write_page(runs)
    assert widths_agree(text)
    row = read_line(text, "Digits corrupted, 50% (")
    assert row[1:6] == ["50.0 70.0 100.0", "73.3% [50.0, 100.0]", "10", "12", "2.0"]
    # Seeds: 5 of 10 lost, 3 lost, 1 won. Over seeds (-50 - 30 + 10) / 3.
    assert row[6].startswith("-23.3 [") and row[7] == "-50.0 -30.0 +10.0"
    assert row[8:10] == ["-2.1", "no large drop"]
    low, high = (float(end) for end in row[6].partition("[")[2].strip("]").split(", "))
    # Problem 0 gains 1/3, five lose nothing or up to 2/3: no resample can leave these bounds.
    assert -66.7 <= low < -23.3 < high <= 33.4
    assert row[10:] == ["undecided", "undecided"]
    assert read_line(text, "Correct traces (")[1] == "100.0 100.0 90.0"
    assert figures(runs) == {"rehearsal_structure.svg"}


def test_the_interval_is_over_problems_not_over_seeds(runs):
    """Seeds that differ wildly but alike on every problem leave the interval empty: it says so."""
    write_seeds(runs, "correct", TEN, TEN, TEN)
    write_seeds(runs, "wrong", TEN, TEN.replace("1", "0"), TEN)
    text = write_page(runs)
    assert read_line(text, "Wrong answers (")[6:8] == ["-33.3 [-33.3, -33.3]", "+0.0 -100.0 +0.0"]
    assert "conditional on these seeds" in " ".join(text.split())


def test_a_missing_seed_is_left_out_on_both_sides(runs):
    write_seeds(runs, "correct", "0 0 0 0 0 0 0 0 0 0", TEN, TEN)
    write_seeds(runs, "wrong", None, TEN, None)
    row = read_line(write_page(runs), "Wrong answers (")
    assert row[1] == "- 100.0 -" and row[6:8] == ["+0.0 [+0.0, +0.0]", "- +0.0 -"]


@pytest.mark.parametrize(
    ("condition", "shares", "here", "answer"),
    [
        ("wrong", TEN, "no large drop", "yes"),
        ("wrong", TEN.replace("1", "0"), "large drop", "no"),
        ("delete67", TEN.replace("1", "0"), "large drop", "yes"),
        ("delete67", TEN, "no large drop", "no"),
        ("delete67", "0 0 0 0 0 0 1 1 1 1", "undecided", "undecided"),  # 0.6 of a gain of 0.9
        ("shuffle33", "0 1 1 1 1 1 1 1 1 1", "undecided", "undecided"),
    ],
)
def test_shown_here_follows_the_rule(runs, condition, shares, here, answer):
    write(runs, "rehearsal_base", {"test": numbers("1 0 0 0 0 0 0 0 0 0")})
    write_seeds(runs, "correct", TEN, TEN, TEN)
    write_seeds(runs, condition, shares, shares, shares)
    text = write_page(runs)
    label = structure.find_row(PAGE, condition)["label"]
    assert read_line(text, f"{label} (")[10:] == [here, answer]
    told = {"yes": "shown here", "no": "not shown, but its opposite"}.get(answer, answer)
    assert f"- {told}: 1 (`{condition}`)" in text


@pytest.mark.parametrize(
    ("interval", "told"),
    [
        ([-0.3, -0.1001], "large drop"),
        ([-0.3, -0.1], "undecided"),
        ([-0.1, 0.2], "undecided"),
        ([-0.0999, 0.2], "no large drop"),
    ],
)
def test_an_interval_that_touches_the_line_decides_nothing(interval, told):
    assert twin.verdict({"interval": interval}, -10) == told


def test_other_problems_are_no_pair(runs):
    write_seeds(runs, "correct", TEN)
    write_seeds(runs, "wrong", TEN, task_hash="another")
    text = write_page(runs)
    assert read_line(text, "Wrong answers (")[6:8] == ["other problems"] * 2
    assert "- other problems: 1 (`wrong`)" in text


def test_amount_and_best_of_n_are_drawn_from_their_records(runs):
    write(runs, "rehearsal_base", {"test": numbers("0 0 0 1")})
    write(runs, "rehearsal_n500", {"test": numbers("0 0 1 1")}, train={"samples": 500})
    write_seeds(runs, "correct", "1 1 1 0", "1 1 1 1")
    found = numbers("0.5 0", samples=4) | {"pass@1": 0.25, "pass@2": 0.5, "maj@2": 0.25}
    write(runs, "rehearsal_structure_bestof", {"test": found})
    text = write_page(runs)
    assert figures(runs) == {"rehearsal_amount.svg", "rehearsal_bestof.svg"}
    drawn = {name: (runs.parent / "pages" / name).read_text() for name in figures(runs)}
    assert ">25.0<" in drawn["rehearsal_amount.svg"] and ">50.0<" in drawn["rehearsal_amount.svg"]
    assert "mean of seeds, 87.5<" in drawn["rehearsal_bestof.svg"]
    assert read_line(text, "2 |") == ["2", "50.0% [0.0, 100.0]", "25.0%"]
    assert "n 2, 4 samples" in text and read_line(text, "No training (")[1] == "25.0"


def test_the_line_is_half_of_the_gain_on_both_sides():
    """Ours and the paper's on one scale: the paper's gain is 66.3 - 54.15."""
    found = {
        "base": {0: {"accuracy": 0.1}},
        "correct": {0: {"accuracy": 0.9}, 1: {"accuracy": 0.7}},
    }
    assert twin.line_of(found) == pytest.approx(-35)
    assert str(twin.line_of({"base": {}, "correct": found["correct"]})) == "nan"
    lost = {row["condition"] for row in PAGE["rows"] if twin.claim(row, PAGE) == "large drop"}
    structural = {f"{kind}{p}" for kind in ("shuffle", "delete", "insert") for p in (67, 100)}
    assert lost == structural | {"digits100", "short", "base"}

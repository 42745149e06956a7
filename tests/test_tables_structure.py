"""The page of the 32B sweep: its published numbers, and a row from records made by hand."""

import shutil

import pytest
from table_cases import published, read_line, whole, widths_agree, write

from results import cells, structure

PAGE = published()["structure"]
SHARES = {"digits": (20, 50, 70, 100), "keywords": (20, 50, 100),
          **dict.fromkeys(("shuffle", "delete", "insert"), (33, 67, 100))}  # fmt: skip
DAMAGED = [f"{kind}{share}" for kind, shares in SHARES.items() for share in shares]
CONDITIONS = ["base", "correct", "wrong", *DAMAGED, "short"]


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """An empty folder of records, and recipes of which `structure32b` is one."""
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    shutil.copy(cells.RECIPES / "base32b.yaml", recipes)
    shutil.copy(cells.RECIPES / "lora32b.yaml", recipes / "structure32b.yaml")
    monkeypatch.setattr(cells, "RECIPES", recipes)
    (tmp_path / "runs").mkdir()
    (tmp_path / "pages").mkdir()
    return tmp_path / "runs"


def write_page(runs) -> str:
    return structure.write_page(runs, PAGE, runs.parent / "pages")


# ---- what others published


def test_every_condition_has_its_row():
    assert [row["condition"] for row in PAGE["rows"]] == CONDITIONS
    assert len(structure.compared(PAGE)) == len(CONDITIONS) - 2
    assert structure.find_level(PAGE) == pytest.approx(1 - 0.05 / 18)


def test_a_printed_mean_is_that_of_its_row():
    """The means stand in the paper too, so a slip in copying a cell shows."""
    for row in PAGE["rows"]:
        mean = sum(row[task] for task in PAGE["tasks"]) / len(PAGE["tasks"])
        assert cells.number(row["average"]) == pytest.approx(mean, abs=0.051), row["condition"]


def test_the_papers_tables_agree_where_they_repeat_each_other():
    lengths, damage = PAGE["lengths"]["cells"], PAGE["damage"]
    assert set(lengths) == set(damage["tasks"]) == set(PAGE["tasks"])
    assert list(damage["mean_tokens"]) == list(damage["keywords"])
    steps = {c for c in CONDITIONS if c.startswith(("shuffle", "delete", "insert"))}
    assert set(damage["mean_tokens"]) == steps | {"correct"}
    for cells_of in (damage["mean_tokens"], damage["keywords"]):
        assert all(len(values) == len(damage["tasks"]) for values in cells_of.values())


def test_noise_is_binomial_and_only_large_effects_exceed_it():
    errors = structure.standard_errors(structure.find_row(PAGE, "correct"), PAGE)
    assert errors["aime24"] == pytest.approx(100 * (0.4 * 0.6 / 30) ** 0.5)
    assert [round(errors[task]) for task in ("aime24", "amc23")] == [9, 7]
    correct = structure.find_row(PAGE, "correct")
    assert round(structure.error_of_mean([correct], PAGE)) == 3
    clear = {row["condition"] for row in PAGE["rows"] if structure.is_clear_drop(row, PAGE)}
    steps = {f"{kind}{p}" for kind in ("shuffle", "delete", "insert") for p in (67, 100)}
    assert clear == steps | {"digits100", "short", "base"}


# ---- ours


def test_without_records_every_cell_of_ours_says_not_run(runs):
    text = write_page(runs)
    assert widths_agree(text)
    cells_of = read_line(text, "Steps deleted, 67% (")
    assert cells_of[1:9:2] == ["not run"] * 4 and cells_of[2:9:2] == [
        "84.2",
        "26.7",
        "55.0",
        "48.1",
    ]
    assert cells_of[9:] == ["not run", "53.5", "not run", "-12.8"]
    assert "54.15 (derived; 56.7 printed)" in text and "Where the numbers" not in text


def test_a_row_has_the_numbers_of_its_record(runs):
    write(runs, "structure32b_correct", whole(mean_tokens=4000.0, keywords=40.0))
    lost = {"math500": 50, "aime24": 3, "amc23": 4}  # a tenth of each, none of OlympiadBench
    write(runs, "structure32b_delete67", whole(lost, mean_tokens=1234.5, keywords=6.25))
    text = write_page(runs)
    assert widths_agree(text)
    row = read_line(text, "Steps deleted, 67% (")
    assert [cell.partition("%")[0] for cell in row[1:8:2]] == ["90.0", "90.0", "90.0", "100.0"]
    assert row[9].startswith("92.5% [") and row[9].endswith("n 1244")
    assert row[11].startswith("-7.5 [") and row[12] == "-12.8"
    level = structure.find_level(PAGE)
    found = cells.difference(whole(), whole(lost), list(PAGE["tasks"]), level)
    assert row[11] == cells.tell_difference(found) and f"{level:.2%}" in text
    assert read_line(text, "Steps deleted, 33% (")[11] == "not run"
    tokens = next(block for block in text.split("\n\n") if block.startswith("| tokens"))
    words = next(block for block in text.split("\n\n") if block.startswith("| keywords"))
    assert read_line(tokens, "Steps deleted, 67%")[1:3] == ["1,234", "2,078"]
    assert read_line(words, "Steps deleted, 67%")[1:3] == ["6.25", "20"]
    long = read_line(text, "AIME24 | long")
    assert long[2:] == ["4,000", "15,902", "40.00", "260.90", "100.0% [10.0, 90.0], n 30", "40.0"]
    assert "`structure32b_correct`, `structure32b_delete67`: commit 0123456789" in text


def test_another_set_of_problems_is_no_pair(runs):
    write(runs, "structure32b_correct", whole())
    other = whole()
    other["amc23"]["task_hash"] = "another"
    write(runs, "structure32b_wrong", other)
    assert read_line(write_page(runs), "Wrong answers (")[11] == "other problems"


def test_the_figure_has_ours_only_where_it_ran(runs):
    figure = runs.parent / "pages/structure.svg"
    write_page(runs)
    assert "published, two standard errors" in figure.read_text()
    assert ">ours" not in figure.read_text()
    write(runs, "structure32b_correct", whole())
    write(runs, "structure32b_insert100", whole({"amc23": 4}))
    write_page(runs)
    assert ">ours, 99.72% interval" in figure.read_text()


def test_surveys_stand_on_the_page(runs, monkeypatch):
    assert write_page(runs).endswith("## Trace statistics\n\nnot run.\n")
    monkeypatch.setattr(structure.survey, "read_records", lambda folder: [folder])
    monkeypatch.setattr(structure.survey, "markdown", lambda records: [f"| {records[0].name} |"])
    assert "| surveys |" in write_page(runs)

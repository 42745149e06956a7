"""The figures of the distill page: published beside ours, and nothing that is not known."""

import pytest
import yaml
from table_cases import numbers, published, read_line, whole, widths_agree, write

from results import cells, distill

PAGE = published()["distill"]


@pytest.fixture
def runs(tmp_path):
    for name in ("runs", "pages"):
        (tmp_path / name).mkdir()
    return tmp_path / "runs"


def write_figures(runs) -> str:
    return distill.write_figures(runs, PAGE, runs.parent / "pages")


def drawn(runs) -> dict[str, str]:
    return {path.name: path.read_text() for path in (runs.parent / "pages").iterdir()}


def test_a_figure_without_a_known_number_is_not_written(runs):
    text = write_figures(runs)
    assert widths_agree(text)
    assert set(drawn(runs)) == {
        "distill_teachers.svg",
        "distill_amount.svg",
        "distill_students.svg",
    }
    assert text.rstrip().endswith("`recipes/base32b_bestof.yaml`: not run.")
    assert all(f"]({name})" in text for name in drawn(runs))


def test_published_numbers_are_shown_as_they_are_known(runs):
    write_figures(runs)
    teachers, amount, students = (drawn(runs)[f"distill_{n}.svg"]
                                  for n in ("teachers", "amount", "students"))  # fmt: skip
    for row in PAGE["tables"][0]["rows"]:
        for task in PAGE["tables"][0]["tasks"]:
            if row.get("run") in PAGE["teachers"]["rows"] and task in row:
                star = "*" if cells.is_marked(row[task]) else ""
                assert f">{cells.number(row[task])}{star}<" in teachers
    assert "LoRA r=256" not in teachers  # no number is known of it
    means = [row["mean"] for row in PAGE["amount"]["rows"] if "mean" in row]
    assert all(f">{mean}<" in amount for mean in means) and ">ours" not in amount
    for row in PAGE["students"]["rows"]:
        for when in ("untrained", "tuned"):
            if when in row:
                assert f">{cells.number(row[when])}*<" in students
    known = [row["label"] for row in PAGE["students"]["rows"] if "untrained" in row]
    assert students.count(">Qwen2.5-14B<") == sum("14B" in label for label in known)


def test_every_row_and_recipe_that_a_figure_names_exists():
    for run in [*PAGE["teachers"]["rows"], *PAGE["bestof"]["lines"]]:
        assert distill.row_of(PAGE, run)["run"] == run
    named = [PAGE["amount"]["recipe"], PAGE["bestof"]["run"]]
    named += [row[k] for row in PAGE["students"]["rows"] for k in row if k.endswith("_run")]
    named += [row["run"] for table in PAGE["tables"] for row in table["rows"] if "run" in row]
    assert all((cells.RECIPES / f"{name}.yaml").exists() for name in named)


def test_the_untrained_student_is_sampled_as_in_the_paper():
    path = cells.RECIPES / f"{PAGE['bestof']['run']}.yaml"
    asked = yaml.safe_load(path.read_text(encoding="utf-8"))["eval"]
    assert asked["tasks"] == [PAGE["bestof"]["task"]]
    assert (asked["n"], asked["temperature"], asked["top_p"]) == (128, 0.5, 0.8)


def test_ours_stand_beside_the_published(runs):
    write(runs, "base32b", whole({"math500": 250}))  # mean of 50, 100, 100, 100 per cent
    write(runs, "full32b_r1", whole())
    write(runs, "full32b_r1_n4000", whole({"math500": 125}))
    text = write_figures(runs)
    assert widths_agree(text)
    row = read_line(text, "0 (`base32b`)")
    assert row[1].startswith("87.5% [") and row[2] == "54.2"
    assert read_line(text, "4,000 (")[1].startswith("93.8% [")
    assert read_line(text, "8,000 (")[1] == "not run"
    student = read_line(text, "Qwen2.5-32B Instruct")
    assert student[1].startswith("87.5% [") and student[3].startswith("100.0% [")
    assert ">ours, 95% interval<" in drawn(runs)["distill_amount.svg"]


def test_best_of_n_has_lines_of_tuned_runs_ours_before_published(runs):
    shares = " ".join(["0.5"] * 337 + ["0"] * 337)
    found = numbers(shares, samples=2 * 674) | {"pass@1": 0.25, "pass@2": 0.5, "maj@2": 0.25}
    write(runs, "base32b_bestof", {"olympiadbench": found})
    write(runs, "lora32b", whole())
    text = write_figures(runs)
    figure = drawn(runs)["distill_bestof.svg"]
    assert "LoRA r=64, ours, 100.0<" in figure
    row = distill.row_of(PAGE, "full32b")
    assert f"{row['label']}, published, {row['olympiadbench']}<" in figure
    marked = distill.row_of(PAGE, "full32b_r1")
    value = cells.number(marked["olympiadbench"])
    assert f"{marked['label']}, published*, {value}<" in figure
    cells_of = read_line(text, "2 |")
    assert cells_of[1].startswith("50.0% [") and cells_of[2] == "25.0%"

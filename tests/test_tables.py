"""Tables are generated from records: the committed ones are up to date, and none invents a number."""

import json

import pytest
from table_cases import numbers, read_line, widths_agree, write

from longcot.errors import RecipeError
from results import cells, tables

RUNS = tables.RESULTS / "runs"


def trained(**changes) -> dict:
    return {"train": {"loss": 0.125, "steps": 445, "seconds": 61.0, "samples": 2000}, **changes}


@pytest.fixture
def runs(tmp_path):
    write(tmp_path, "rehearsal_base", {"test": numbers("0 0 0 1")})
    write(tmp_path, "rehearsal", {"test": numbers("1 1 1 1")}, **trained())
    return tmp_path


def test_committed_tables_and_figures_are_up_to_date(tmp_path):
    for path in tables.generate(RUNS, tmp_path):
        assert (tables.RESULTS / path.name).read_bytes() == path.read_bytes(), path.name


def test_rows_come_from_records_and_the_rest_says_not_run(runs):
    page = tables.rehearsal_page(runs)
    tuned = next(line for line in page.splitlines() if line.startswith("| `rehearsal` |"))
    assert "100.0% [10.0, 90.0] | 4 | +75.0 [" in tuned
    assert "| 0.125 | 445 | 61 s | no |" in tuned
    seed = next(line for line in page.splitlines() if line.startswith("| `rehearsal_s1` |"))
    assert "not run" in seed and not any(c.isdigit() for c in seed.partition("not run")[2])


def test_every_row_has_the_header_s_number_of_cells(runs):
    lines = [line for line in tables.rehearsal_page(runs).splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1 and len(lines) == 2 + len(tables.REHEARSAL)


def test_dirty_run_is_marked(runs):
    write(runs, "rehearsal", {"test": numbers("1 1 1 1")}, **trained(dirty=True))
    assert "| 61 s | yes |" in tables.rehearsal_page(runs)


def test_trained_but_unscored_run_is_not_run(runs):
    write(runs, "rehearsal", {}, **trained())
    line = next(
        x for x in tables.rehearsal_page(runs).splitlines() if x.startswith("| `rehearsal` |")
    )
    assert "not run" in line


def test_difference_needs_the_same_problems(runs):
    from longcot import record

    with pytest.raises(RecipeError, match="different problems"):
        record.difference(numbers("0 1", "one"), numbers("0 1", "two"))


def test_published_numbers_keep_a_column_of_their_own(runs):
    rows = [
        {"label": "Other", "run": "base32b", "test": 5.5},
        {"label": "LoRA", "run": "lora32b", "aime24": 33.3},
        {"label": "Base", "run": "rehearsal_base", "test": 7.7},
        {"label": "Vote", "run": "rehearsal_base", "metric": "maj@8", "test": 8.8},
    ]
    record = json.loads((runs / "rehearsal_base.json").read_text())
    record["eval"]["test"]["maj@8"] = 0.25
    model = {"model_name_or_path": "data_prep/rehearsal_base"}
    record["recipe"] = {"model": model, "eval": {"limit": None}}
    (runs / "rehearsal_base.json").write_text(json.dumps(record))
    (runs / "base32b.json").write_text(json.dumps(record))  # another model under that name
    table = {"source": "s", "tasks": {"aime24": "AIME24", "test": "Test"}, "rows": rows}
    page = tables.published_page(runs, {"title": "T", "tables": [table, table]})
    assert "| LoRA (`recipes/lora32b.yaml`) | not run | 33.3 | not run | - |" in page
    ours = cells.with_interval(record["eval"]["test"]) + ", n 4"
    assert "| Other (`recipes/base32b.yaml`) | not run | - | not run | 5.5 |" in page
    assert f"| Base (`recipes/rehearsal_base.yaml`) | not run | - | {ours} | 7.7 |" in page
    assert "| not run | - | 25.0%, n 4 | 8.8 |" in page
    record["recipe"]["eval"]["limit"] = 2
    (runs / "rehearsal_base.json").write_text(json.dumps(record))
    assert ours not in tables.published_page(runs, {"title": "T", "tables": [table]})
    record["recipe"]["eval"]["limit"] = None
    record["eval"] = {"aime24": record["eval"]["test"]}  # 4 of its 30 problems
    (runs / "rehearsal_base.json").write_text(json.dumps(record))
    assert ours not in tables.published_page(runs, {"title": "T", "tables": [table]})
    assert page.count("AIME24: ours | published") == 2


def test_a_row_of_others_alone_has_no_run(runs):
    row = {"label": "Theirs", "aime24": "56.7 (derived)"}
    table = {"source": "s", "tasks": {"aime24": "AIME24", "test": "Test"}, "rows": [row]}
    page = tables.published_page(runs, {"title": "T", "tables": [table]})
    assert read_line(page, "Theirs") == ["Theirs", "not run", "56.7 (derived)", "not run", "-"]


def test_no_record_at_all_gives_pages_that_say_so(tmp_path):
    for name in ("runs", "pages"):
        (tmp_path / name).mkdir()
    made = tables.generate(tmp_path / "runs", tmp_path / "pages")
    for path in made:
        if path.suffix == ".md":
            text = path.read_text()
            assert widths_agree(text) and "not run" in text, path.name


def test_committed_pages_show_every_figure():
    assert tables.unshown(tables.RESULTS) == []


def test_stale_page_is_found(monkeypatch, tmp_path, capsys):
    def generate(runs, folder):
        (folder / "page.md").write_text("![](page.svg)")
        (folder / "page.svg").write_text("<svg/>")
        return sorted(folder.iterdir())

    def run(*arguments: str):
        monkeypatch.setattr("sys.argv", ["tables", *arguments])
        tables.main()
        return capsys.readouterr().out

    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    monkeypatch.setattr(tables, "generate", generate)
    with pytest.raises(SystemExit, match="stale: page.md, page.svg; run python -m results.tables"):
        run("--check")
    assert not list(tmp_path.iterdir())  # --check writes nothing
    assert "written: page.md, page.svg" in run()
    assert "up to date" in run("--check")
    (tmp_path / "page.md").write_text("![](page.svg) edited by hand")
    (tmp_path / "left.svg").write_text("<svg/>")
    (tmp_path / "other.svg").write_text("<svg/>")
    (tmp_path / "README.md").write_text("![](other.svg)")  # written by somebody else
    with pytest.raises(SystemExit, match="stale: page.md, left.svg;"):
        run("--check")
    run()
    assert not (tmp_path / "left.svg").exists() and (tmp_path / "other.svg").exists()
    assert "up to date" in run("--check")

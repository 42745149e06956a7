"""An append-only stage file: what a kill leaves is used, what other settings made is refused."""

import json
import subprocess
import sys

import pytest
from conftest import ROOT

from longcot import ledger
from longcot.errors import RowError


def recover(path, settings):
    with ledger.opened(path, settings) as stage:
        return list(stage)


def fill(path, rows, settings):
    with ledger.opened(path, settings) as stage:
        before = list(stage)
        for row in rows:
            stage.append(row)
    return before


ROWS = [
    {"key": "a", "drop": None},
    {"key": "b", "drop": "wrong"},
    {"key": "\u00fc\n", "drop": None},
]


def test_rows_come_back_and_more_can_follow(tmp_path):
    path = tmp_path / "stage.jsonl"
    assert fill(path, ROWS[:2], {"seed": 1}) == []
    assert fill(path, ROWS[2:], {"seed": 1}) == ROWS[:2]
    assert recover(path, {"seed": 1}) == ROWS


@pytest.mark.parametrize("lost", [1, 5, 20])
def test_the_line_a_kill_cut_short_is_removed(tmp_path, lost):
    path = tmp_path / "stage.jsonl"
    fill(path, ROWS, {})
    raw = path.read_bytes()
    path.write_bytes(raw[:-lost])
    assert recover(path, {}) == ROWS[:2]
    assert path.read_bytes() == raw[: raw.index(b'{"key": "\xc3')]


def test_a_half_line_longer_than_one_look_is_removed_too(tmp_path):
    path = tmp_path / "stage.jsonl"
    fill(path, ROWS[:1], {})
    with path.open("a") as stream:
        stream.write("x" * 200_000)
    assert recover(path, {}) == ROWS[:1]
    path.write_text("y" * 70_000)  # not one whole line
    assert recover(path, {}) == [] and path.read_bytes() == b""


def test_other_settings_are_refused_and_nothing_is_lost(tmp_path):
    path = tmp_path / "stage.jsonl"
    fill(path, ROWS, {"seed": 1, "files": ("a",)})
    raw = path.read_bytes()
    assert len(recover(path, {"seed": 1, "files": ["a"]})) == 3  # as JSON reads it
    with pytest.raises(RowError, match=r"stage.jsonl.*seed was 1, is 2.*remove the file"):
        recover(path, {"seed": 2, "files": ["a"]})
    with pytest.raises(RowError, match="fresh was None, is 0"):
        recover(path, {"seed": 1, "files": ["a"], "fresh": 0})
    assert path.read_bytes() == raw


def test_two_processes_do_not_write_one_file(tmp_path):
    path = tmp_path / "stage.jsonl"
    code = (
        "import sys\nfrom pathlib import Path\nfrom longcot import ledger\n"
        "with ledger.opened(Path(sys.argv[1]), {}) as stage:\n    stage.append({'key': 'other'})\n"
    )
    with ledger.opened(path, {}) as stage:
        stage.append(ROWS[0])
        done = subprocess.run(
            [sys.executable, "-c", code, str(path)], capture_output=True, text=True, cwd=ROOT
        )
        assert done.returncode == 1 and "another process is writing it" in done.stderr
    assert [json.loads(line) for line in path.read_text().splitlines()] == ROWS[:1]


def test_kept_rows_are_found_by_key_and_dropped_ones_are_not(tmp_path):
    path = tmp_path / "stage.jsonl"
    fill(path, [*ROWS, {"key": "d", "drop": None, "text": "x" * 1000}], {})
    kept = ledger.Kept(path)
    assert list(kept) == ["a", "\u00fc\n", "d"] and len(kept) == 3
    assert "b" not in kept and kept["d"]["text"] == "x" * 1000 and kept["\u00fc\n"] == ROWS[2]
    assert list(ledger.Kept(path, "wrong")) == ["b"]


def test_a_tally_counts_every_row_once(tmp_path):
    path = tmp_path / "3_stage.jsonl"
    fill(path, [*ROWS, {"key": "c", "drop": "wrong"}, {"key": "d", "drop": "cut"}], {})
    assert ledger.tally(path) == {
        "stage": "3_stage",
        "rows_in": 5,
        "rows_out": 2,
        "dropped": {"cut": 1, "wrong": 2},
    }


def test_what_is_forgotten_can_be_written_anew(tmp_path):
    path = tmp_path / "stage.jsonl"
    fill(path, ROWS, {})
    identity = ledger.begun(path)
    with ledger.opened(path, {}) as stage:
        stage.forget(lambda row: row["key"] == "b")
        stage.append({"key": "b", "drop": None})
    assert [row["key"] for row in recover(path, {})] == ["a", "\u00fc\n", "b"]
    assert ledger.begun(path) == identity
    path.unlink()
    fill(path, ROWS, {})
    assert ledger.begun(path) != identity  # later stages can tell


def test_an_empty_file_binds_nobody_and_inner_settings_are_named(tmp_path):
    path = tmp_path / "stage.jsonl"
    assert recover(path, {"teacher": {"model": "a", "n": 1}}) == []
    fill(path, ROWS, {"teacher": {"model": "b", "n": 1}})
    with pytest.raises(RowError, match=r"\(teacher.n was 1, is 2\)"):
        recover(path, {"teacher": {"model": "b", "n": 2}})

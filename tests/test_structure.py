"""Every condition of a training file: rows, manifest, report, whatever the number of workers."""

import hashlib
import json
import subprocess
import sys
from collections import Counter

import pytest
from conftest import ROOT
from perturb_cases import AWKWARD
from structure_cases import (
    TOKENIZER,
    formats,
    last,
    question,
    read,
    reply,
    right_row,
    run,
    write,
    wrong_row,
)

from longcot import chat, rows
from longcot.errors import RecipeError, RowError
from longcot.perturb import CONDITIONS, WHOLE, damage, gather_donors, read_variant

NUMBERS = range(10, 50)
ALSO = "digits50_thought_single,delete33_start,shuffle67_reflection,digits50+delete33"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(folder, manifest) of forty rows under all conditions, in a process of its own."""
    folder = tmp_path_factory.mktemp("structure")
    right = write(folder / "right.jsonl.gz", map(right_row, NUMBERS))
    wrong = write(folder / "wrong.jsonl", map(wrong_row, range(30, 90)))
    command = [sys.executable, "-m", "data_prep.structure", right, "--out", str(folder / "out")]
    command += ["--wrong", wrong, "--also", ALSO, "--tokenizer", TOKENIZER]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "out: 23 conditions, manifest.json, report.md" in done.stdout
    return folder, json.loads((folder / "out/manifest.json").read_text())


def test_all_nineteen_and_the_extras_are_written_from_the_same_rows(made):
    folder, manifest = made
    assert tuple(manifest["conditions"]) == (*CONDITIONS, *ALSO.split(","))
    assert manifest["not_made"] == manifest["left_out"] == {}
    assert {p.stem for p in (folder / "out").glob("*.jsonl")} == set(manifest["conditions"])
    assert not [p for p in (folder / "out").iterdir() if p.name.startswith(".")]
    plain = {name for name, format in formats(manifest).items() if format == "plain"}
    assert plain == {"delete100", "short"}
    for name, entry in manifest["conditions"].items():
        path = folder / f"out/{name}.jsonl"
        assert entry["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert entry["rows"] == len(read(folder / "out", name)) == 40
        for trace in rows.read_traces(str(path)):
            assert chat.fault(trace, entry["chat.format"]) is None


def test_nothing_but_the_reply_differs_from_the_source(made):
    folder, manifest = made
    source = {f"r{n}": right_row(n) for n in NUMBERS}
    for name in manifest["conditions"]:
        if name == "wrong":
            continue
        found = read(folder / "out", name)
        assert list(found) == list(source)
        for key, row in found.items():
            wanted = {k: v for k, v in source[key].items() if k != "solution"}
            turn = {"from": "assistant", "value": last(row)}
            wanted["conversations"] = [*wanted["conversations"][:-1], turn]
            assert row == wanted, name
    assert all(
        last(row) == reply(int(key[1:])) for key, row in read(folder / "out", "correct").items()
    )
    short = read(folder / "out", "short")
    assert (
        last(short["r12"])
        == "There are 12 of them, counted basket by basket and added up: \\boxed{12}."
    )


def test_replies_are_those_of_damage_and_the_figures_add_up(made):
    folder, manifest = made
    texts = [(f"r{n}", question(n), reply(n)) for n in NUMBERS]
    donors = gather_donors(texts)
    assert manifest["donors"] == len(donors.steps) == 40
    for name, entry in manifest["conditions"].items():
        if name in WHOLE:
            assert entry["changes"] == []
            continue
        found, reasons, touched, of = read(folder / "out", name), Counter(), Counter(), Counter()
        for key, asked, text in texts:
            one = damage(text, read_variant(name), key, donors, question=asked)
            assert last(found[key]) == one.reply, name
            reasons.update([one.unchanged] if one.unchanged else [])
            for change in one.changes:
                touched[change.unit] += change.touched
                of[change.unit] += change.of
        assert entry["unchanged"] == reasons
        assert {c["unit"]: c["touched"] for c in entry["changes"]} == touched
        assert {c["unit"]: c["of"] for c in entry["changes"]} == of
    entry = manifest["conditions"]["delete33"]
    assert entry["edit_distance"]["mean"] * 40 == entry["changes"][0]["touched"]
    assert manifest["conditions"]["delete100"]["edit_distance"]["edited"] == 1.0
    assert manifest["conditions"]["digits50_thought_single"]["tokens"]["rows"] == 40
    tokens = manifest["conditions"]["delete67"]["tokens"]
    assert tokens["after"] < 0.7 * tokens["before"]
    assert manifest["conditions"]["correct"]["tokens"]["after"] == tokens["before"]


def test_wrong_answers_are_matched_by_question_then_drawn(made):
    folder, manifest = made
    found = read(folder / "out", "wrong")
    numbers = {int(key[1:]) for key in found}
    assert {n for n in numbers if n < 50} == set(range(30, 50)) and len(numbers) == 40
    told = {k: manifest["wrong"][k] for k in ("rows", "left_out", "matched", "drawn", "missing")}
    assert told == {"rows": 60, "left_out": 0, "matched": 20, "drawn": 20, "missing": 0}
    assert last(found["w30"]) == reply(30, 31) and found["w30"]["source"] == "wrong"


def test_the_report_shows_the_table_and_one_example_each(made):
    folder, manifest = made
    text = (folder / "out/report.md").read_text()
    for name, entry in manifest["conditions"].items():
        assert f"\n| {name} | {entry['chat.format']} | 40 |" in text
        assert (f"\n## {name}\n" in text) == (name not in ("correct", "wrong"))
    assert "20 matched by question, 20 drawn" in text and "one step cannot change places" in text


@pytest.mark.slow
def test_any_number_of_workers_writes_the_same_bytes(made, tmp_path, monkeypatch):
    folder, manifest = made
    flags = ["--wrong", folder / "wrong.jsonl", "--also", ALSO, "--workers", 2]
    run(monkeypatch, folder / "right.jsonl.gz", "--out", tmp_path / "two", *flags)
    again = json.loads((tmp_path / "two/manifest.json").read_text())
    for name, entry in manifest["conditions"].items():
        assert again["conditions"][name] == {k: v for k, v in entry.items() if k != "tokens"}


def test_the_four_forms_give_the_same_conditions(tmp_path, monkeypatch):
    user, text = question(33), chat.split(reply(33))
    think = chat.lay_out(text.thought, text.solution, "think")
    talk = [{"role": "user", "content": user}, {"role": "assistant", "content": think}]
    field = {**talk[1], "content": text.solution.strip(), "reasoning_content": text.thought.strip()}
    forms = [
        {"conversations": [{"from": "human", "value": user}, {"from": "gpt", "value": think}]},
        {"messages": talk},
        {"messages": [talk[0], field]},
        {"prompt": user, "completion": think},
        {"prompt": talk[:1], "completion": talk[1:]},
    ]
    found = []
    for number, form in enumerate(forms):
        path = write(tmp_path / f"{number}.jsonl", [{"id": "x", "source": "s", **form}])
        run(
            monkeypatch,
            path,
            "--out",
            tmp_path / f"out{number}",
            "--only",
            "digits50,shuffle67,delete33",
        )
        manifest = json.loads((tmp_path / f"out{number}/manifest.json").read_text())
        assert set(formats(manifest).values()) == {"think"}
        found.append({name: entry["sha256"] for name, entry in manifest["conditions"].items()})
    assert all(one == found[0] for one in found)


def test_what_training_refuses_is_left_out_of_every_condition(tmp_path, monkeypatch, capsys):
    bad = [
        {**right_row(n), "id": name, "conversations": [{"from": "user", "value": "q"},
         {"from": "assistant", "value": text}]}
        for n, (name, text) in enumerate(AWKWARD.items())
    ]  # fmt: skip
    early = [
        {"from": "user", "value": "a"},
        {"from": "gpt", "value": "b", "reasoning_content": "c"},
    ]
    bad += [{"id": "early", "conversations": early + bad[0]["conversations"]},
            {"id": "open", "conversations": [{"from": "user", "value": "q"}]}]  # fmt: skip
    path = write(tmp_path / "mixed.jsonl", [*map(right_row, range(10, 14)), *bad])
    run(monkeypatch, path, "--out", tmp_path / "out", "--also", ALSO)
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["left_out"] == {
        "a thought in a field of its own in an earlier turn": 1, "empty solution": 1,
        "empty thought": 1, "no reply": 3, "no thought tags": 1, "unclosed thought": 1,
    }  # fmt: skip
    kept = list(read(tmp_path / "out", "correct"))
    assert len(kept) == manifest["rows"] == 4 + len(bad) - 8
    for name, entry in manifest["conditions"].items():
        assert list(read(tmp_path / "out", name)) == kept
        for trace in rows.read_traces(str(tmp_path / f"out/{name}.jsonl")):
            assert chat.fault(trace, entry["chat.format"]) is None, (name, trace)
    assert "not made: wrong needs --wrong FILE" in capsys.readouterr().out
    assert list(manifest["not_made"]) == ["wrong"] and not (tmp_path / "out/wrong.jsonl").exists()


def test_a_file_without_any_thought_is_damaged_as_it_is(tmp_path, monkeypatch):
    talk = [{"prompt": question(n), "completion": f"It is {n}, wait, {n}."} for n in range(3)]
    run(monkeypatch, write(tmp_path / "a.jsonl", talk), "--out", tmp_path / "out")
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert set(formats(manifest).values()) == {"plain"} and manifest["rows"] == 3
    assert manifest["conditions"]["digits100"]["unchanged"] == {}
    assert manifest["conditions"]["shuffle33"]["unchanged"] == {"no thought": 3}
    assert list(read(tmp_path / "out", "correct")) == ["a-000001", "a-000002", "a-000003"]
    assert manifest["not_made"].keys() == {"wrong", "short"}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--only", "shufle33"], 'did you mean "shuffle33"?'),
        (["--only", "correct,wrong"], "condition 'wrong' needs --wrong FILE"),
        (["--also", "keywords50_judge"], "condition 'keywords50_judge' needs --judge URL"),
        (["--tokenizer", "no/such/folder"], "--tokenizer no/such/folder: no tokenizer"),
        (["--wrong", "FILE"], "is FILE itself"),
        (["--wrong", "none.jsonl"], "none.jsonl: no such file"),
        (["--solutions", "FILE"], "no row has a text in its column solution"),
    ],
)
def test_what_cannot_be_made_is_refused_in_a_sentence(tmp_path, monkeypatch, words, told):
    found = [{k: v for k, v in right_row(n).items() if k != "solution"} for n in NUMBERS]
    path = write(tmp_path / "right.jsonl", found)
    words = [path if word == "FILE" else word for word in words]
    with pytest.raises(ValueError, match=r"^[^\n]*$") as caught:
        run(monkeypatch, path, "--out", tmp_path / "out", *words)
    assert told in str(caught.value)
    assert not (tmp_path / "out").exists()
    with pytest.raises(RecipeError, match="condition 'short' needs a column solution"):
        run(monkeypatch, path, "--out", tmp_path / "out", "--only", "short")


def test_files_are_whole_or_absent_and_never_overwritten(tmp_path, monkeypatch):
    found = [*map(right_row, range(40)), {"id": "odd", "conversations": [{"from": "user"}]}]
    path = write(tmp_path / "bad.jsonl", found)
    with pytest.raises(RowError, match=r"bad.jsonl:41: the user turn has no text"):
        run(monkeypatch, path, "--out", tmp_path / "out")
    path = write(tmp_path / "half.jsonl", [right_row(1)])
    with (tmp_path / "half.jsonl").open("a") as stream:
        stream.write(json.dumps({**right_row(2), "solution": "half \ud800"}) + "\n")
    with pytest.raises(RowError, match=r"half.jsonl:2: .*half a character"):
        run(monkeypatch, path, "--out", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
    good = write(tmp_path / "good.jsonl", map(right_row, range(3)))
    run(monkeypatch, good, "--out", tmp_path / "out", "--only", "correct")
    for words in (["--only", "correct"], ["--only", "delete33"]):
        with pytest.raises(RowError, match=r"exists; remove it, or write"):
            run(monkeypatch, good, "--out", tmp_path / "out", *words)
    with pytest.raises(RowError, match="is a file; --out names a folder"):
        run(monkeypatch, good, "--out", good)
    empty = write(tmp_path / "empty.jsonl", [])
    with pytest.raises(RowError, match=r"empty.jsonl:1: no rows in it"):
        run(monkeypatch, empty, "--out", tmp_path / "none")

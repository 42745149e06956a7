"""The authors' own 27B student's answers on MATH500 under all nineteen conditions."""

import hashlib

import pytest
from conftest import ROOT
from structure_cases import read, run, write

from data_prep import published
from longcot import chat, perturb, rows

FILE = "data/authors_outputs/Sky-T1-math-correct-5K-27B--math500.jsonl.gz"


@pytest.mark.slow
def test_real_traces_under_all_nineteen_conditions(shared, tmp_path, monkeypatch):
    found = [row for row, _ in published.import_rows(str(shared / FILE)) if row]
    right = write(tmp_path / "right.jsonl", found[::2])
    wrong = write(tmp_path / "wrong.jsonl", found[1::2])
    problems = str(shared / "data/math500.jsonl")
    flags = ["--wrong", wrong, "--solutions", problems, "--also", "shuffle100_reflection"]
    flags += ["--tokenizer", ROOT / "data_prep/rehearsal_base"]
    run(monkeypatch, right, "--out", tmp_path / "out", *flags)
    manifest = rows.read_json(tmp_path / "out/manifest.json")
    assert tuple(manifest["conditions"])[:19] == perturb.CONDITIONS
    assert manifest["rows"] > 80 and set(manifest["left_out"]) == {"no thought tags"}
    assert manifest["wrong"]["matched"] == 0 and manifest["wrong"]["drawn"] > 80
    sources = {row["id"]: row for row in found}
    solutions = {
        " ".join(row["problem"].split()): row["solution"] for _, row in rows.read_jsonl(problems)
    }
    for name, entry in manifest["conditions"].items():
        path = tmp_path / f"out/{name}.jsonl"
        assert entry["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        for trace in rows.read_traces(str(path)):
            assert chat.fault(trace, entry["chat.format"]) is None
        for id, row in read(tmp_path / "out", name).items():
            before = sources[id]["conversations"][-1]["value"]
            reply = row["conversations"][-1]["value"]
            assert row["conversations"][:-1] == sources[id]["conversations"][:-1]
            if name in ("correct", "wrong"):
                assert reply == before
            elif name == "short":
                question = " ".join(row["conversations"][0]["value"].split())
                assert reply == solutions[question].strip()
            elif not name.startswith("digits"):
                assert chat.split(reply).solution.strip() == chat.split(before).solution.strip()
    steps = {name: entry.get("edit_distance") for name, entry in manifest["conditions"].items()}
    for percent in (33, 67, 100):
        deleted, inserted = steps[f"delete{percent}"], steps[f"insert{percent}"]
        assert deleted["mean"] == inserted["mean"] > steps[f"shuffle{percent}"]["mean"]
        assert abs(deleted["edited"] - {33: 1 / 3, 67: 2 / 3, 100: 1}[percent]) < 0.01
    short = manifest["conditions"]["short"]["tokens"]
    assert short["after"] < short["before"] / 3

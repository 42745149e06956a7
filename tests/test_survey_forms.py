"""Surveys of files: every form that is read, verdicts, what is refused, records and their pages."""

import json
import random

import pytest

from longcot.errors import AnswerError, RowError
from longcot.rows import write_json, write_jsonl
from longcot.survey import read_entries
from results import survey

R, W = r"Wait, so \boxed{5}", r"so \boxed{6}"
OWN = {"id": "a", "response": R}  # no gold is needed
QWEN = {"idx": 3, "question": "q", "gt": "5", "code": [R, W], "score": [True, False]}
LM_EVAL = {"doc_id": 4, "doc": {}, "target": "5", "resps": [[R]], "filter": "strict"}
LIGHTEVAL = {
    "doc": {"query": "q", "choices": ["5"], "gold_index": 0, "id": "9", "task_name": "t"},
    "model_response": {"text": [R, W], "output_tokens": [[1, 2], [1]]},
}
OLD = {"example": "q", "full_prompt": "q", "gold": ["5"], "predictions": [R]}
SKY = {
    "0": {"problem": "p", "answer": "5", "token_usages": [{"completion_tokens": 7}],
          "responses": {"0": {"content": R, "correctness": True}}},
    "1": {"problem": "p", "answer": "5", "responses": {"0": {"content": W, "correctness": False}}},
}  # fmt: skip
USER, TURN = {"from": "user", "value": "q"}, {"from": "assistant", "value": R}
CHAT = [{"role": "user", "content": "q"}, {"role": "assistant", "content": R}]
SHARE = {"system": "s", "conversations": [USER, TURN]}
THINKS = {"messages": [CHAT[0], {**CHAT[1], "reasoning_content": "Hmm."}]}


ANSWERS = [{"id": i, "sample": s, "response": R} for i in (1, 2) for s in (0, 1)]
VERDICTS = [{"id": i, "sample": s, "correct": i == s or None} for i in (1, 2) for s in (0, 1)]


def put(path, rows):
    write_json(path, rows) if path.suffix == ".json" else write_jsonl(path, rows)
    return str(path)


@pytest.mark.parametrize(
    ("name", "rows", "expected"),
    [
        ("a.jsonl", [OWN], [(R, None, None, None)]),
        ("a.jsonl.gz", [{**OWN, "finish_reason": "length", "tokens": 9}], [(R, 9, True, None)]),
        ("a.json", [{**OWN, "finish_reason": "stop", "gold": "5"}], [(R, None, False, None)]),
        ("a.jsonl", [{**OWN, "finish_reason": "abort"}], [(R, None, False, None)]),
        ("a.jsonl", [{**OWN, "upstream_correct": False}], [(R, None, None, False)]),
        ("a.jsonl", [{**OWN, "is_correct": True}], [(R, None, None, True)]),
        ("a.jsonl", [{**OWN, "correct": None, "score": 0.7}], [(R, None, None, None)]),
        ("a.jsonl", [QWEN], [(R, None, None, True), (W, None, None, False)]),
        ("a.jsonl", [{**QWEN, "score": [True]}], [(R, None, None, None), (W, None, None, None)]),
        ("a.jsonl", [LM_EVAL, {**LM_EVAL, "filter": "b"}], [(R, None, None, None)]),
        ("a.jsonl", [LIGHTEVAL], [(R, 2, None, None), (W, 1, None, None)]),
        ("a.jsonl", [OLD, OLD], [(R, None, None, None)] * 2),
        ("results.json", SKY, [(R, 7, None, True), (W, None, None, False)]),
        ("a.jsonl", [SHARE], [(R, None, None, None)]),
        ("a.jsonl", [{"conversations": [USER, TURN] * 2}], [(R, None, None, None)] * 2),
        ("a.jsonl", [{"messages": CHAT}, {"messages": CHAT}], [(R, None, None, None)] * 2),
        ("a.jsonl", [THINKS], [(f"<think>\nHmm.\n</think>\n\n{R}", None, None, None)]),
        ("a.json", [{"prompt": "q", "completion": R}], [(R, None, None, None)]),
    ],
)
def test_every_form_is_read(tmp_path, name, rows, expected):
    found = list(read_entries(put(tmp_path / name, rows)))
    assert [(one.text, one.tokens, one.cut, one.correct) for one in found] == expected


def test_samples_belong_to_their_problem(tmp_path):
    found = list(read_entries(put(tmp_path / "a.jsonl", [QWEN, {**QWEN, "idx": 4}])))
    assert [one.problem == found[0].problem for one in found] == [True, True, False, False]
    found = list(read_entries(put(tmp_path / "a.jsonl", ANSWERS)))
    assert [one.problem == found[0].problem for one in found] == [True, True, False, False]
    found = list(read_entries(put(tmp_path / "a.jsonl", [SHARE, SHARE])))
    assert found[0].problem != found[1].problem


def test_verdicts_are_matched_by_answer(tmp_path):
    path = put(tmp_path / "a.jsonl", [{**row, "correct": False} for row in ANSWERS])
    other = random.Random(0).sample(VERDICTS, 4)
    assert other != VERDICTS
    for told in (VERDICTS, other):  # eval.py's answers lie as they came
        found = read_entries(path, put(tmp_path / "v.jsonl", told))
        assert [one.correct for one in found] == [None, True, None, None]


def test_verdicts_without_sample_numbers_keep_their_order(tmp_path):
    path = put(tmp_path / "a.jsonl", [OWN, OWN])
    told = put(tmp_path / "v.jsonl", [{"id": "a", "correct": c} for c in (True, False)])
    assert [one.correct for one in read_entries(path, told)] == [True, False]


@pytest.mark.parametrize(
    ("rows", "told", "message"),
    [
        ([{"id": 1, "text": "t"}], None, r"a.jsonl:1: columns id, text are no known .* or training rows \("),
        ([], None, "a.jsonl:1: no rows in it"),
        ([OWN, {"id": "b"}], None, "a.jsonl:2: column response is missing; it began as our answers"),
        ([{**OWN, "response": None}], None, "a.jsonl:1: the response is None; text is wanted"),
        ([{**OWN, "format": "xml"}], None, "a.jsonl:1: format 'xml'; auto, plain or thought_solution, think"),
        ([{**LM_EVAL, "resps": [[[-1.5, True]]]}], None, "stored log-likelihoods"),
        ([SHARE, {"conversations": [USER]}], None, "a.jsonl:2: no reply in this row; remove it"),
        ([{"conversations": [TURN]}], None, "a.jsonl:1: turns must go user, assistant"),
        (ANSWERS, VERDICTS[:3], r'v.jsonl: no verdict on {"id": 2, "sample": 1} \(.*a.jsonl:4\); give the'),
        (ANSWERS[:3], VERDICTS, r'v.jsonl: a verdict on {"id": 2, "sample": 1}, to which .*a.jsonl has no'),
        ([OWN, OWN], [{"id": "a", "correct": True}], r'v.jsonl: no verdict on {"id": "a"} \(.*a.jsonl:2\)'),
        (ANSWERS, [{"id": 1}], "v.jsonl:1: column correct is missing"),
    ],
)  # fmt: skip
def test_refusals(tmp_path, rows, told, message):
    path = put(tmp_path / "a.jsonl", rows)
    with pytest.raises((AnswerError, RowError), match=message):
        list(read_entries(path, told and put(tmp_path / "v.jsonl", told)))


# ---- records


def call(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["survey", *map(str, arguments)])
    survey.main()


@pytest.fixture
def files(tmp_path):
    told = [{**OWN, "id": i, "correct": c, "tokens": 4} for i, c in enumerate([True, True, False])]
    (tmp_path / "run" / "answers").mkdir(parents=True)
    return put(tmp_path / "run" / "answers" / "test.jsonl", told), put(tmp_path / "b.json", [OWN])


def test_the_command_writes_the_same_bytes_again(files, tmp_path, monkeypatch, capsys):
    for out in ("one", "two"):
        call(monkeypatch, *files, "--out", tmp_path / out)
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 8 and printed[:4] == printed[4:] and "`run--test` | 3 |" in printed[2]
    assert sorted(p.name for p in (tmp_path / "one").iterdir()) == ["b.json", "run--test.json"]
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
        assert str(tmp_path) not in path.read_text()
    one, other = survey.read_records(tmp_path / "one")
    assert (other["name"], other["file"], other["n"]) == ("run--test", "test.jsonl", 3)
    assert (other["settings"]["unit"], other["settings"]["counted_by"]) == (
        "tokens",
        "told by the file",
    )
    assert [other[part]["n"] for part in ("all", "right", "wrong")] == [3, 2, 1]
    assert other["all"]["accuracy"]["mean"] == 0.666667 and len(other["sha256"]) == 64
    assert (one["settings"]["unit"], one["right"], one["settings"]["verdicts"]) == (
        "words",
        None,
        None,
    )


def test_one_unit_for_the_whole_file(tmp_path):
    path = put(tmp_path / "a.jsonl", [{**OWN, "tokens": 9}, {**OWN, "id": "b"}])
    record = survey.survey_file(path, "a")
    assert (record["settings"]["unit"], record["all"]["length"]["max"]) == ("words", 3)


def test_verdicts_and_name(files, tmp_path, monkeypatch):
    told = put(tmp_path / "v.jsonl", [{"id": "a", "correct": False}])
    call(monkeypatch, files[1], "--verdicts", told, "--name", "mine", "--out", tmp_path / "out")
    [record] = survey.read_records(tmp_path / "out")
    assert (record["name"], record["settings"]["verdicts"]) == ("mine", "v.jsonl")
    assert record["right"] is None and record["wrong"]["n"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{0}", "{1}", "--verdicts", "{1}"], "error: 1 --verdicts for 2 files"),
        (["{0}", "{1}", "--name", "x"], "error: --name is for one file"),
        (["{1}", "{1}"], "error: two files would be written as b"),
        (["{1}", "--tokenizer", "nowhere"], "error: --tokenizer nowhere: no tokenizer.json there"),
        (["nowhere.jsonl"], "error: nowhere.jsonl: no such file"),
    ],
)
def test_the_command_refuses(files, tmp_path, monkeypatch, arguments, message):
    with pytest.raises(SystemExit, match=message):
        call(monkeypatch, *(a.format(*files) for a in arguments), "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_tokens_of_a_tokenizer(shared, tmp_path):
    texts = enumerate(["1234", "\ud800 x", ""])
    rows = [{**OWN, "id": i, "tokens": 1, "response": t, "correct": not i} for i, t in texts]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    record = survey.survey_file(str(path), "a", tokenizer=str(shared / "tokenizers/qwen2.5"))
    assert record["right"]["length"]["mean"] == record["all"]["length"]["max"] == 4
    assert record["settings"]["counted_by"] == "qwen2.5"
    assert set(record["versions"]) == {"python", "numpy", "tokenizers"}


def test_cells_and_names(tmp_path):
    text = (
        "<think>\nTwo and three.\n\nWait, let me check that.\n\nMaybe count them once more.</think>"
    )
    path = put(tmp_path / "x.jsonl", [{**OWN, "response": text}])
    [_, _, line] = survey.table([survey.survey_file(path, "x")])
    cells = line.strip("| ").split(" | ")
    assert cells[:5] == ["`x`", "1", "words", "14 [14, 14]", "14 / 14 / 14"]
    assert cells[5:9] == ["3.00 [3.00, 3.00]", "214.29", "3.00 [3.00, 3.00]", "66.7%"]
    assert cells[9:11] == ["0.0% [0.0, 79.3]"] * 2 and cells[-1] == "-"
    names = ["x/a.b.jsonl.gz", "answers.json", "o/run/answers/aime24.jsonl", "x"]
    assert [*map(survey.name_of, names)] == ["a.b", "answers", "run--aime24", "x"]


def test_pages_have_even_rows(files, tmp_path):
    records = [survey.survey_file(path, survey.name_of(path)) for path in files]
    records += survey.read_records()
    page = survey.markdown(records)
    assert page[0].startswith("## ") and {
        "The right answers alone:",
        "The wrong answers alone:",
    } < set(page)
    sizes = []
    for line in page:
        if line.startswith("|"):
            sizes.append(line.count(" | "))
            assert line.startswith("|---") or sizes[-1] == max(sizes), line
        else:
            sizes = []
    assert len(survey.table(records)) == 2 + len(records)
    assert survey.table(records)[0].endswith("| boxed | accuracy |")
    assert survey.table(records, "wrong")[0].endswith("| boxed |")
    assert len(survey.table(records, "wrong")) == 2 + sum(bool(r["wrong"]) for r in records)
    assert survey.markdown([])[-1].startswith("|---")


def test_the_paper_s_own_counts_stand_beside_ours():
    lines = [line for line in survey.markdown(survey.read_records()) if "arXiv" in line]
    assert len(lines) == 3
    assert "| 515 [439, 655] | 515 | 0.00 [0.00, 0.00] | 0.00 |" in lines[0]
    assert "| 15,902 | 256.37 [130.96, 397.65] | 260.90 |" in lines[1]
    assert "| 13,088 | 256.37 [130.96, 397.65] | 143.00 |" in lines[2]


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(survey.SURVEYS.glob("*.json")), ids=lambda path: path.stem)
def test_committed_records_are_those_of_the_real_files(shared, path, tmp_path):
    """Whatever changes a number (words, steps, loops) has to be followed by `results.survey`."""
    record = json.loads(path.read_text())
    data = shared / "data"
    [file] = [p for p in [*data.glob("*"), *data.glob("*/*")] if p.name == record["file"]]
    found = survey.survey_file(str(file), path.stem, tokenizer=str(shared / "tokenizers/qwen2.5"))
    assert {**found, "versions": 0} == {**record, "versions": 0}

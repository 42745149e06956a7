"""Stored answers of five harnesses: told apart by columns, judged in order, written at once."""

import gzip
import json
from pathlib import Path

import pytest

from longcot import algebra, answers
from longcot.answers import Answer, AnswerError, read_answers, score_file
from longcot.rows import RowError

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
RIGHT, WRONG = r"so \boxed{5}", r"so \boxed{6}"


def write(path, rows):
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


OWN = [
    {"id": "b", "kind": "math", "gold": "5", "response": RIGHT},
    {"id": 7, "kind": "choice", "gold": "C", "response": "Answer: A"},
    {"id": "a", "kind": "math", "gold": 5, "response": "<think> 5", "finish_reason": "length"},
    {"id": "x", "kind": "exact", "gold": "to be", "response": "to  be"},
    {"id": "none", "kind": "math", "gold": "5", "response": ""},
]


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz"])
@pytest.mark.parametrize("workers", [1, 3])
def test_our_own_file(tmp_path, suffix, workers):
    out = tmp_path / "deep" / "out.jsonl"
    summary = score_file(write(tmp_path / f"in.{suffix}", OWN), out, workers=workers)
    assert [(row["id"], row["status"], row["correct"]) for row in lines(out)] == [
        ("b", "answered", True),
        (7, "answered", False),
        ("a", "ran_out_of_tokens", False),
        ("x", "answered", True),
        ("none", "no_answer", False),
    ]
    assert all(
        list(row) == ["id", "status", "correct", "extracted", "reason"] for row in lines(out)
    )
    assert (summary["accuracy"], summary["n"], summary["samples"]) == (0.4, 5, 5)
    assert summary["statuses"]["ran_out_of_tokens"] == 0.2
    assert list(tmp_path.rglob(".*")) == []  # no temporary file is left


def test_samples_of_one_problem_and_tasks(tmp_path):
    rows = [
        {
            "id": 1,
            "task": t,
            "sample": s,
            "kind": "math",
            "gold": "5",
            "tokens": 10 * s,
            "response": r,
        }
        for t in ("aime24", "math500")
        for s, r in enumerate([RIGHT, WRONG])
    ]
    summary = score_file(write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl")
    assert set(summary["tasks"]) == {"aime24", "math500"}
    one = summary["tasks"]["aime24"]
    assert (one["accuracy"], one["n"], one["samples"], one["mean_tokens"]) == (0.5, 1, 2, 5)
    assert one["pass@2"] == 1.0
    assert [(row["task"], row["sample"]) for row in lines(tmp_path / "out.jsonl")][1] == (
        "aime24",
        1,
    )


def test_a_planted_runner_error_is_counted_apart(tmp_path):
    rows = [
        {"id": 0, "kind": "math", "gold": "5", "response": RIGHT},
        {"id": 1, "kind": "math", "gold": "", "response": RIGHT},
        {"id": 2, "kind": "math", "gold": "5", "response": None},
    ]
    summary = score_file(write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl")
    assert [row["correct"] for row in lines(tmp_path / "out.jsonl")] == [True, None, None]
    assert (summary["accuracy"], summary["runner_errors"]) == (1.0, 2)
    assert "2 of 3" in summary["warning"]


def test_a_grader_that_cannot_run_writes_nothing(tmp_path, monkeypatch):
    def fail(gold, answer):
        raise algebra.EqualityError("did not start")

    monkeypatch.setattr(algebra, "compare", fail)
    with pytest.raises(algebra.EqualityError):
        score_file(write(tmp_path / "in.jsonl", OWN), tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


def test_half_a_surrogate_pair_can_be_written(tmp_path):
    row = {"id": "a", "kind": "math", "gold": "5", "response": "\\boxed{\ud800}"}
    score_file(write(tmp_path / "in.jsonl", [row]), tmp_path / "out.jsonl")
    assert lines(tmp_path / "out.jsonl")[0]["extracted"] == "?"


QWEN = {"idx": 3, "question": "q", "gt_cot": "", "gt": "5", "code": [RIGHT, WRONG], "pred": ["5", "6"],
        "report": [None, None], "score": [True, False], "answer": "5 cm"}  # fmt: skip
SAMPLES = {"idx": 3, "question": "q", "gold": "B", "responses": [r"\boxed{B}"]}
LM_EVAL = {"doc_id": 4, "doc": {"question": "q"}, "target": "work\n#### 5", "arguments": {},
           "resps": [[RIGHT]], "filtered_resps": ["5"], "filter": "strict-match"}  # fmt: skip
LIGHTEVAL = {
    "doc": {
        "query": "q",
        "choices": [r"ANSWER: thus \boxed{5}."],
        "gold_index": 0,
        "id": "9",
        "task_name": "math_500",
    },
    "metric": {"extractive_match": 1},
    "model_response": {"text": [RIGHT, WRONG], "output_tokens": [[1, 2], [1]]},
}
GPQA = {
    "__doc__": {
        "query": "q",
        "choices": ["A", "B", "C", "D"],
        "gold_index": [2],
        "id": "",
        "task_name": None,
    },
    "__metric__": {},
    "__model_response__": {"text": ["Answer: C"]},
}
OLD = {"example": "q", "full_prompt": "q", "gold": ["5"], "predictions": [RIGHT], "metrics": {}}


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([QWEN], [Answer(3, "math", "5", t, None, {"sample": i}) for i, t in enumerate([RIGHT, WRONG])]),
        ([SAMPLES], [Answer(3, "choice", "B", r"\boxed{B}")]),
        ([LM_EVAL, {**LM_EVAL, "filter": "flexible-extract"}], [Answer(4, "math", "5", RIGHT)]),
        ([{**LM_EVAL, "target": 5, "resps": [[RIGHT]]}], [Answer(4, "math", "5", RIGHT)]),
        ([{**LM_EVAL, "target": "", "doc": {"solution": r"\boxed{5}"}}], [Answer(4, "math", "5", RIGHT)]),
        (
            [LIGHTEVAL],
            [
                Answer("9", "math", "5", RIGHT, None, {"task": "math_500", "sample": 0, "tokens": 2}),
                Answer("9", "math", "5", WRONG, None, {"task": "math_500", "sample": 1, "tokens": 1}),
            ],
        ),
        ([GPQA], [Answer(0, "choice", "C", "Answer: C")]),
        ([OLD, OLD], [Answer(0, "math", "5", RIGHT), Answer(1, "math", "5", RIGHT)]),
    ],
)  # fmt: skip
def test_forms_are_told_by_their_columns(tmp_path, rows, expected):
    assert list(read_answers(write(tmp_path / "anything.jsonl", rows))) == expected


def test_skythought_results(tmp_path):
    results = {
        "10": {"problem": "p", "answer": "5", "responses": [{"content": RIGHT, "correctness": False}],
               "token_usages": [{"completion_tokens": 12, "prompt_tokens": 3}]},
        "2": {"problem": "p", "answer": 5, "responses": {"0.7": {"content": WRONG}}},
    }  # fmt: skip
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results))
    assert list(read_answers(path)) == [
        Answer("10", "math", "5", RIGHT, None, {"tokens": 12}),
        Answer("2", "math", "5", WRONG),
    ]
    path.write_text(json.dumps({"1": {"problem": "p", "responses": [{"content": ""}]}}))
    with pytest.raises(AnswerError, match="entry 1: no gold answer"):
        list(read_answers(path))


def test_lighteval_parquet(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    parquet.write_table(pyarrow.Table.from_pylist([LIGHTEVAL]), tmp_path / "details.parquet")
    summary = score_file(tmp_path / "details.parquet", tmp_path / "out.jsonl")
    assert (summary["accuracy"], summary["mean_tokens"]) == (0.5, 1.5)
    assert [(row["id"], row["sample"]) for row in lines(tmp_path / "out.jsonl")] == [
        ("9", 0),
        ("9", 1),
    ]


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        ([{"prompt": "p", "text": "t"}], AnswerError,
         r"in\.jsonl:1: columns prompt, text are no known form; accepted: our answers"),
        ([OWN[0], {"id": 1, "kind": "math", "gold": "5"}], AnswerError,
         r"in\.jsonl:2: column response is missing; the file began as our"),
        ([{**OWN[0], "kind": "maths"}], AnswerError, "kind 'maths'; one of math, choice, exact, code"),
        ([{**LM_EVAL, "resps": [[[-1.5, False]]]}], AnswerError, "log-likelihoods, no text"),
        ([{**QWEN, "code": []}], AnswerError, r"in\.jsonl:1: the responses are \[\]"),
        ([], AnswerError, "no rows in it"),
    ],
)  # fmt: skip
def test_errors_say_what_was_found(tmp_path, rows, error, message):
    with pytest.raises(error, match=message):
        score_file(write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


def test_broken_files(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text('{"id": 1, "kind": "math", "gold": "5", "response": "5"}\n{"id":\n')
    with pytest.raises(RowError, match=r"in\.jsonl:2"):
        score_file(path, tmp_path / "out.jsonl")
    with pytest.raises(AnswerError, match="would overwrite the answers"):
        score_file(path, path)
    (tmp_path / "results.json").write_text("{broken")
    with pytest.raises(AnswerError, match=r"results\.json:1: broken JSON"):
        list(read_answers(tmp_path / "results.json"))
    assert answers.infer_kind("A plane") == "math"


@pytest.mark.skipif(not SHARED.exists(), reason="the shared data folder is missing")
def test_real_files(tmp_path):
    name = "Sky-T1-math-correct-5K-32B-ckpts__checkpoint-133--aime24.jsonl.gz"
    out = tmp_path / "out.jsonl"
    summary = score_file(SHARED / "authors_outputs" / name, out)
    assert summary["accuracy"] == pytest.approx(0.40)
    raw = gzip.decompress((SHARED / "authors_outputs" / name).read_bytes())
    assert [row["id"] for row in lines(out)] == [json.loads(row)["id"] for row in raw.splitlines()]
    summary = score_file(SHARED / "qwen25math_samples_dev.jsonl", out)
    assert (summary["n"], summary["samples"]) == (50, 400)
    assert [row["sample"] for row in lines(out)[:9]] == [*range(8), 0]

"""Questions of every layout, from files and from a hub on loopback, and the prompts' own rules."""

import gzip
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest
from conftest import ROOT, thought

from data_prep import prompts, sources
from data_prep.sources import Source, read_questions, read_tests
from longcot.errors import RecipeError, RowError

DEFAULTS = {
    "revision": "main", "split": "train", "config": None, "layout": "questions", "where": None,
    "first": None, "label": False, "difficulty_min": None, "difficulty_max": None, "count": None,
    "licence": "MIT",
}  # fmt: skip


def source(path, **changes) -> Source:
    return Source(path=str(path), **{**DEFAULTS, **changes})


def questions(path, **changes) -> list[dict]:
    return [row for row, _, _ in read_questions("s", source(path, **changes)) if row]


def reasons(path, **changes) -> dict[str, int]:
    found = read_questions("s", source(path, **changes))
    return dict(Counter(reason for row, _, reason in found if row is None))


def refusal(path, kind=RowError, **changes) -> str:
    with pytest.raises(kind) as caught:
        list(read_questions("s", source(path, **changes)))
    return str(caught.value)


def write_parquet(path: Path, rows: list[dict]) -> Path:
    import pyarrow
    import pyarrow.parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


# ---- NuminaMath


def numina(problem: str, solution: str | None, subset: str = "olympiads") -> dict:
    turns = [{"role": "user", "content": problem}, {"role": "assistant", "content": solution}]
    return {"source": subset, "problem": problem, "solution": solution, "messages": turns}


NUMINA = [
    numina("One plus one?", r"Add: $\boxed{3}$, no, $\boxed{\frac{4}{2}}$.", "amc_aime"),
    numina("Roots of x^2=1?", r"They are $\boxed{1}$ and $\boxed{-1}$."),
    numina("Prove it.", "Clear."),
    numina("Cut short?", r"It is \boxed{12"),
    numina("In words?", "The boxed answer is 5."),
    numina("Nothing?", None),
    numina("Which?", r"Option \boxed{C}."),
    numina("One plus one?", r"Again $\boxed{2}$."),
    numina("", r"\boxed{1}"),
]


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "json", "parquet"])
def test_numina_rows_from_every_kind_of_file(tmp_path, write_rows, kind):
    path = tmp_path / f"numina.{kind}"
    if kind == "parquet":
        write_parquet(path, NUMINA)
    elif kind == "json":
        path.write_text(json.dumps(NUMINA), encoding="utf-8")
    else:
        write_rows(NUMINA, "numina.jsonl")
        if kind == "jsonl.gz":
            path.write_bytes(gzip.compress((tmp_path / "numina.jsonl").read_bytes()))
    found = questions(path, layout="numina")
    digest = hashlib.sha256(b"One plus one?").hexdigest()[:12]
    assert found[0] == {
        "id": f"s-{digest}", "source": "s", "kind": "math", "problem": "One plus one?",
        "gold": r"\frac{4}{2}", "tests": None, "starter_code": None, "difficulty": None,
        "reference": NUMINA[0]["solution"],
    }  # fmt: skip
    assert [(q["gold"], q["kind"]) for q in found[1:]] == [("1, -1", "math"), ("C", "choice")]
    assert reasons(path, layout="numina") == {
        "no box in the written solution": 2,
        "no whole box in the written solution": 2,
        "the same problem as an earlier row": 1,
        "no problem text": 1,
    }


def test_a_drop_tells_file_and_line(write_rows):
    path = write_rows(NUMINA)
    found = [(where, reason) for row, where, reason in read_questions("s", source(path, layout="numina"))
             if row is None]  # fmt: skip
    assert found[0] == (f"{path}:3", "no box in the written solution")


def test_where_and_first_come_before_every_other_filter(write_rows):
    path = write_rows(NUMINA)
    one = {"layout": "numina", "where": ("source=olympiads",)}
    assert [q["gold"] for q in questions(path, **one)] == ["1, -1", "C", "2"]
    assert [q["gold"] for q in questions(path, **one, first=2)] == ["1, -1"]
    both = ("source=amc_aime|olympiads", "problem=Which?")
    assert [q["gold"] for q in questions(path, layout="numina", where=both)] == ["C"]
    assert reasons(path, **one, first=1) == {"not source=olympiads": 1}


def test_a_filter_that_nothing_passes_says_what_there_was(write_rows):
    said = refusal(write_rows(NUMINA), layout="numina", where=("source=amc_aim",))
    assert "nothing where source=amc_aim" in said and "source is amc_aime, olympiads" in said


def test_changed_columns_name_the_wanted_and_the_found(write_rows):
    path = write_rows([NUMINA[0], {"source": "x", "question": "q", "solution": "s"}])
    said = refusal(path, layout="numina")
    assert said.startswith(f"{path}:2: column problem is missing; layout numina has problem, ")
    assert said.endswith("found source, question, solution")
    assert "column subset is missing" in refusal(path, layout="numina", where=("subset=x",))


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet"])
def test_an_empty_file_is_told(tmp_path, kind):
    path = tmp_path / f"empty.{kind}"
    if kind == "parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.table({"problem": [], "solution": []}), path)
    else:
        path.write_text("" if kind == "jsonl" else "[]")
    assert refusal(path, layout="numina").startswith(f"{path}:1: no rows")


def test_a_broken_line_names_its_number(tmp_path):
    path = tmp_path / "broken.jsonl"
    path.write_text(json.dumps(NUMINA[0]) + "\n{\n")
    assert refusal(path, layout="numina").startswith(f"{path}:2: broken JSON")
    assert "no such file" in refusal(tmp_path / "none.jsonl")


# ---- APPS and TACO


def code_row(tests, question: str = "Double it.", starter: str = "", **columns) -> dict:
    text = tests if isinstance(tests, str) else json.dumps(tests)
    return {"problem_id": 0, "question": question, "solutions": "[]", "input_output": text,
            "difficulty": "interview", "url": "", "starter_code": starter, **columns}  # fmt: skip


def test_code_rows_have_tests_in_one_form(write_rows):
    called = {"fn_name": "double", "inputs": [[1], [[2, 3]]], "outputs": [[2], [[4, 6]]]}
    path = write_rows(
        [
            code_row({"inputs": ["1\n", ["1", "2"]], "outputs": ["2\n", ["2", 4]]}),
            code_row(called, "Call it.", "def double(x):\n"),
        ]
    )
    read, call = questions(path, layout="apps")
    assert read["tests"] == [{"input": "1\n", "output": "2\n"}, {"input": "1\n2", "output": "2\n4"}]
    assert (read["kind"], read["starter_code"], read["gold"]) == ("code", None, None)
    # The expected values stay wrapped as published: the judge knows the rule.
    assert call["tests"] == [
        {"fn_name": "double", "input": [1], "output": [2], "wrapped": True},
        {"fn_name": "double", "input": [[2, 3]], "output": [[4, 6]], "wrapped": True},
    ]
    assert call["starter_code"] == "def double(x):\n"


@pytest.mark.parametrize(
    ("tests", "reason"),
    [
        ("", "no tests"),
        ("{}", "no tests"),
        ({"inputs": [], "outputs": []}, "no tests"),
        ('{"inputs": ["1"', "tests that cannot be decoded"),
        ('{"inputs": [' + "1" * 5000 + '], "outputs": [1]}', "tests that cannot be decoded"),
        ("[" * 100_000, "tests that cannot be decoded"),
        ({"inputs": ["1"]}, "tests without inputs and outputs"),
        ({"inputs": ["1", "2"], "outputs": ["1"]}, "as many inputs as outputs are wanted"),
        ({"inputs": [{"a": 1}], "outputs": ["1"]}, "standard input or output that is no text"),
        ({"fn_name": "f", "inputs": [1], "outputs": [1]}, "a call without an argument list"),
        (" " * 10_000_001, "tests of more than 10 million characters"),
    ],
)
def test_unusable_tests_drop_the_row_with_a_reason(tests, reason):
    assert read_tests(tests if isinstance(tests, str) else json.dumps(tests)) == reason


def test_taco_is_filtered_by_its_own_difficulty(write_rows):
    tests = {"inputs": ["1"], "outputs": ["1"]}
    taco = {"raw_tags": "[]", "name": None, "source": "codechef"}
    path = write_rows(
        [code_row(tests, f"Task {level}", **(taco | {"difficulty": level}))
         for level in ("EASY", "MEDIUM", "VERY_HARD")]
    )  # fmt: skip
    found = questions(path, layout="taco", where=("difficulty=MEDIUM",))
    assert [(q["problem"], q["source"], q["difficulty"]) for q in found] == [
        ("Task MEDIUM", "s", None)
    ]


def test_the_shared_sample_in_the_layout_of_livecodebench(shared):
    path = shared / "data/lcb_like_sample.jsonl"
    found = questions(path, layout="livecodebench")
    assert len(found) == 90 and all(row["kind"] == "code" and row["tests"] for row in found)
    called = [row for row in found if "fn_name" in row["tests"][0]]
    assert 0 < len(called) < 90 and all(row["starter_code"] for row in called)


def test_the_shared_sample_in_the_layout_of_apps(shared):
    path = shared / "data/apps_format_sample.jsonl"
    found = questions(path, layout="apps")
    called = [q for q in found if "fn_name" in q["tests"][0]]
    assert len(found) == 40 and reasons(path, layout="apps") == {}
    assert 0 < len(called) < 40 and all(q["starter_code"] for q in called)
    for question, row in zip(found, map(json.loads, path.open()), strict=True):
        given = json.loads(row["input_output"])
        assert [test["output"] for test in question["tests"]] == given["outputs"]
        assert [test["input"] for test in question["tests"]] == given["inputs"]


# ---- STILL-2 and the user's own rows


def test_still2_takes_the_gold_answer_of_the_solution_only(write_rows):
    path = write_rows(
        [
            {"question": "q1", "combined_text": thought(r"\boxed{9}", r"So \boxed{7}."), "domain": "physics"},
            {"question": "q2", "combined_text": thought(r"\boxed{9}", "Water boils."), "domain": "chemistry"},
            {"question": "q3", "combined_text": thought("t", r"\boxed{B}"), "domain": "math"},
        ]
    )  # fmt: skip
    found = questions(path, layout="still2", where=("domain=physics|chemistry|biology|puzzle",))
    assert [(q["gold"], q["kind"]) for q in found] == [("7", "math"), (None, "math")]
    assert found[0]["reference"] == thought(r"\boxed{9}", r"So \boxed{7}.")


def test_own_rows_are_read_with_what_they_have(write_rows):
    path = write_rows(
        [
            {"id": "a", "problem": "p", "answer": 7, "source": "mine", "difficulty": 3},
            {"question": "q", "gold": "B"},
            {"problem": "r", "kind": "exact", "gold": "x y", "difficulty": "hard"},
            {"problem": "s", "tests": [{"input": "1", "output": "1"}]},
            {"problem": "t"},
            {"problem": "u", "answer": [1]},
            {"problem": "w", "answer": True},
            {"problem": "v", "kind": "code", "tests": []},
            {"problem": 5},
        ]
    )
    path.write_text(path.read_text() + '{"problem": "bad \\ud800"}\n')
    found = questions(path)
    assert [(q["kind"], q["gold"], q["difficulty"]) for q in found] == [
        ("math", "7", 3), ("choice", "B", None), ("exact", "x y", None), ("code", None, None),
        ("math", None, None),
    ]  # fmt: skip
    assert (found[0]["id"], found[0]["source"], found[1]["source"]) == ("a", "mine", "s")
    assert reasons(path) == {
        "an answer that is no text or number": 2,
        "no tests": 1,
        "half a character (a lone surrogate)": 1,
        "no problem text": 1,
    }


def test_written_questions_read_back_as_they_are(write_rows):
    path = write_rows(NUMINA, "numina.jsonl")
    found = questions(path, layout="numina")
    assert questions(write_rows(found, "again.jsonl")) == found


def test_own_rows_that_cannot_be_meant(write_rows):
    twice = write_rows([{"id": 1, "problem": "p"}, {"id": "1", "problem": "q"}])
    assert refusal(twice) == f"{twice}:2: id '1' is that of {twice}:1 too; make the ids differ"
    assert "kind 'maths'" in refusal(write_rows([{"problem": "p", "kind": "maths"}]))
    assert "column problem or question is missing" in refusal(write_rows([{"text": "p"}]))


def test_own_difficulty_is_weighed_at_once_and_a_label_later(write_rows):
    path = write_rows(
        [{"problem": str(n), "difficulty": n} for n in (3, 4, 9, 10)] + [{"problem": "x"}]
    )
    bounds = {"difficulty_min": 4, "difficulty_max": 9}
    assert [q["difficulty"] for q in questions(path, **bounds)] == [4, 9]
    assert set(reasons(path, **bounds)) == {
        "difficulty below 4", "difficulty above 9", "no difficulty"
    }  # fmt: skip
    assert len(questions(path, **bounds, label=True)) == 5
    told = [sources.difficulty_fault(n, source(path, **bounds)) for n in (None, 3, 4, 9, 10)]
    assert [fault is None for fault in told] == [False, False, True, True, False]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"where": ("amc_aime",)}, "s.where: each entry is column=value"),
        ({"where": ("a|b=c",)}, "s.where"),
        ({"first": 0}, "s.first: must be at least 1"),
        ({"count": 0}, "s.count: must be at least 1"),
        ({"difficulty_min": 0}, "s.difficulty_min"),
        ({"difficulty_min": 9, "difficulty_max": 4}, "s.difficulty_min"),
        ({"difficulty_max": 11}, "s.difficulty_min"),
        ({"difficulty_min": 4, "layout": "numina"}, "s.label: rows of layout numina"),
    ],
)
def test_a_senseless_source_is_refused_before_reading(tmp_path, changes, said):
    assert refusal(tmp_path / "none.jsonl", RecipeError, **changes).startswith(said)


# ---- the hub: the `datasets` client against a server on loopback


def serve_hub(revisions: dict[str, tuple[str, Path]]) -> ThreadingHTTPServer:
    """The set o/n of {revision: (commit, folder)}: what datasets asks for, and nothing else."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def reply(self, code: int, body: bytes = b"", **headers):
            self.send_response(code)
            for key, value in {**headers, "Content_Length": str(len(body))}.items():
                self.send_header(key.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_HEAD(self):
            self.do_GET()

        def do_GET(self):
            path = unquote(urlparse(self.path).path)
            for name, (commit, folder) in revisions.items():
                for tag in (name, commit):
                    for verb in ("/api/datasets/o/n/revision/", "/api/datasets/o/n/tree/",
                                 "/datasets/o/n/resolve/"):  # fmt: skip
                        if f"{path}/".startswith(f"{verb}{tag}/"):
                            rest = path.removeprefix(f"{verb}{tag}").strip("/")
                            return self.answer(verb, commit, folder, folder / rest)
            code = "RevisionNotFound" if path.startswith("/api/datasets/o/n/") else "RepoNotFound"
            return self.reply(404, b"{}", X_Error_Code=code)

        def answer(self, verb: str, commit: str, folder: Path, wanted: Path):
            if "resolve" in verb and wanted.is_file():
                data = wanted.read_bytes()
                etag = hashlib.sha1(data).hexdigest()
                return self.reply(200, data, ETag=f'"{etag}"', X_Repo_Commit=commit)
            if "resolve" in verb or not wanted.is_dir():
                return self.reply(404, b"{}", X_Error_Code="EntryNotFound")
            every = "recursive=true" in self.path.lower() or "revision" in verb
            files = sorted(wanted.rglob("*") if every else wanted.iterdir())
            listed = [
                {"type": "file" if file.is_file() else "directory", "size": file.stat().st_size,
                 "path": str(file.relative_to(folder)), "oid": "0" * 40}
                for file in files
            ]  # fmt: skip
            siblings = [{"rfilename": entry["path"]} for entry in listed if entry["type"] == "file"]
            found = {"id": "o/n", "sha": commit, "private": False, "siblings": siblings}
            return self.reply(200, json.dumps(found if "revision" in verb else listed).encode())

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


READ = """
import json, sys
from data_prep.hub import read_source
from longcot.errors import RowError
for arguments in json.loads(sys.argv[1]):
    try:
        print(json.dumps([row["question"] for _, row in read_source(*arguments)]))
    except RowError as error:
        print(json.dumps(str(error)))
"""


def test_a_hub_set_by_name_by_glob_and_at_its_pinned_commit(tmp_path):
    row = code_row({"inputs": ["1"], "outputs": ["1"]})
    scripted, parquet = tmp_path / "main", tmp_path / "parquet"
    for level in ("all", "interview"):  # overlapping folders, as the conversion of APPS has them
        write_parquet(parquet / level / "test" / "0000.parquet", [row | {"question": level}])
    scripted.mkdir()
    (scripted / "test.jsonl").write_text(json.dumps(row) + "\n")
    (scripted / "n.py").write_text("raise SystemExit")
    commits = {"main": ("1" * 40, scripted), "refs/convert/parquet": ("2" * 40, parquet)}
    server = serve_hub(commits)
    asked = [
        ("o/n", "main", "test", None),
        ("o/n", "main", "test", "test.jsonl"),
        ("o/n", "refs/convert/parquet", "test", "all/test/*.parquet"),
        ("o/n", "2" * 40, "test", None),
        ("o/n", "3" * 40, "test", None),
        ("o/n", "2" * 40, "nosplit", None),
        ("o/n", "main", "test", "none/*.parquet"),
        ("o/other", "main", "test", None),
    ]
    environment = os.environ | {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", READ, json.dumps(asked)],
        capture_output=True, text=True, cwd=ROOT, env=environment,
    )  # fmt: skip
    server.shutdown()
    server.server_close()
    assert done.returncode == 0, done.stderr
    script, file, glob, pinned, moved, split, nothing, other = map(
        json.loads, done.stdout.splitlines()
    )
    assert script.startswith("o/n: a loading script") and "all/test/*.parquet" in script
    assert (file, glob) == (["Double it."], ["all"])
    assert pinned == ["all", "interview"]  # without a glob every row comes twice
    assert moved.startswith(f"o/n: revision {'3' * 40} cannot be had, only another one")
    assert 'Unknown split "nosplit"' in split and "split nosplit" in split
    assert nothing.startswith("o/n: cannot be read from the hub")
    assert other.startswith("o/other: cannot be read from the hub (revision main")


def test_without_a_network_the_hub_is_refused_in_one_sentence():
    said = refusal("owner/no-such-set", layout="numina")
    assert said.startswith("owner/no-such-set: cannot be read from the hub (revision main, ")
    assert "give a local copy" in said and "\n" not in said


# ---- prompts: the teacher


def test_the_teacher_is_asked_by_kind():
    def ask(kind: str, **columns) -> str:
        row = {"kind": kind, "problem": "P\n", "starter_code": None, "tests": None, **columns}
        return prompts.teacher_prompt(row)

    assert ask("math").endswith("\n\nP") and r"\boxed{}" in ask("math")
    assert r"letter of your choice, and only that, inside \boxed{}" in ask("choice")
    assert r"\boxed" not in ask("exact")
    program = ask("code", tests=[{"input": "1", "output": "1"}])
    assert "standard input" in program and "```python" in program and program.endswith("\n\nP")
    call = ask(
        "code", tests=[{"fn_name": "f", "input": [1], "output": 1}], starter_code="def f(x):\n"
    )
    assert "calling `f`" in call and "standard input" not in call
    assert call.endswith("\n\nP\n\nBegin from this code:\n\n```python\ndef f(x):\n```")
    assert "standard input" not in ask("code", tests=[{"assert": "f(1) == 1"}])


# ---- prompts: the difficulty judge


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("It needs one idea. [[4]]", 4),
        ("[[ 10 ]]", 10),
        ("Not [[3]] but [[7]]", 7),
        ("<think>[[2]]</think>[[5]]", 5),
        ("<think>[[2]]", None),
        ("[[0]]", None),
        ("[[11]]", None),
        ("[[7]] or rather [[eight]]", None),
        ("[[7.5]]", None),
        ("[[-3]]", None),
        ("[7]", None),
        ("[[\u0664]]", None),
        ("", None),
    ],
)
def test_difficulty_is_the_last_whole_number_in_double_brackets(text, level):
    assert prompts.read_difficulty(text) == level


def test_the_judge_gets_the_scale_and_the_problem():
    [turn] = prompts.difficulty_messages(" What is {x}? ")
    assert turn["role"] == "user" and turn["content"].endswith("Problem:\n\nWhat is {x}?")
    assert prompts.read_difficulty(turn["content"]) is not None  # the example answers in the form


# ---- prompts: the rewriter

THINKING = (
    "Okay, 17 apples at 4 each. 17*4 is 58. Wait, 17*4: 10*4=40 and 7*4=28, so 68. Then 100 minus "
    "68 leaves 32. Alternatively 25 apples would cost 100, and 25-17=8 more apples, 8*4=32. Same. "
    "Let me also see that 32 is positive, fine, and nothing else is asked here, so I can stop now."
)
ANSWER = r"The change is \boxed{32}."
TRACE = f"{THINKING} {ANSWER}"


def laid_out(thinking: str = THINKING, answer: str = ANSWER) -> str:
    return thought(f"\n\n{thinking}\n\n", f"\n\n{answer}\n\n")


def test_a_verbatim_rewrite_passes():
    assert prompts.check_rewrite(TRACE, laid_out()) is None
    stepped = THINKING.replace(". ", ".\n\n").replace("17*4", r"\(17 \times 4\)", 1)
    assert prompts.check_rewrite(TRACE, laid_out(stepped.replace(r"\times", "*"))) is None
    repeated = laid_out(TRACE, "68 are paid, 32 are left. " + ANSWER)
    assert prompts.check_rewrite(TRACE, repeated) is None


@pytest.mark.parametrize(
    ("rewritten", "reason"),
    [
        (laid_out(THINKING[: len(THINKING) // 2]), "words are lost"),
        (laid_out(answer="The change is 32."), "the boxed answer is lost"),
        (laid_out(answer=r"The change is \boxed{23}."), "the boxed answer is changed"),
        (laid_out(THINKING.replace("58", "68")), "numbers are lost or changed"),
        (laid_out(THINKING.replace("10*4=40", "10*4=41")), "numbers are lost or changed"),
        (laid_out(THINKING.replace("8*4=32", "8*4=36")), "numbers are lost or changed"),
        (laid_out(THINKING + " It all fits together well, as far as anyone can see." * 12),
         "words are added"),
        (laid_out().replace("<|end_of_thought|>", ""), "unclosed thought"),
        (laid_out().removesuffix("<|end_of_solution|>"), "unclosed solution"),
        ("Here it is: " + laid_out(), "text outside the tags, or a tag twice"),
        (laid_out() + laid_out(), "text outside the tags, or a tag twice"),
        (laid_out().replace("<|begin_of_solution|>", "So: <|begin_of_solution|>"),
         "text outside the tags, or a tag twice"),
        (laid_out(answer=" "), "empty solution"),
        (TRACE, "no thought tags (<|begin_of_thought|> ...)"),
        (f"<think>\n{THINKING}\n</think>\n\n{ANSWER}", "text outside the tags, or a tag twice"),
        ("", "no reply"),
    ],
)  # fmt: skip
def test_a_rewrite_that_lost_something_is_rejected(rewritten, reason):
    assert prompts.check_rewrite(TRACE, rewritten) == f"rewrite: {reason}"


def test_the_last_code_block_must_arrive_whole():
    trace = (
        "Let me read n first.\n```python\nprint(0)\n```\nNo:\n```python\nprint(int(input()))\n```"
    )
    kept = thought(trace, "```python\nprint(int(input()))\n```")
    assert prompts.check_rewrite(trace, kept) is None
    lost = thought(trace, "```python\nprint(0)\n```")
    assert prompts.check_rewrite(trace, lost) == "rewrite: the last code block is lost or changed"


def test_the_rewriter_is_shown_an_example_that_passes_its_own_check():
    rules, asked, shown, given = prompts.rewrite_messages(f"\n{TRACE}\n")
    assert [m["role"] for m in (rules, asked, shown, given)] == [
        "system",
        "user",
        "assistant",
        "user",
    ]
    assert prompts.check_rewrite(asked["content"], shown["content"]) is None
    assert given["content"] == TRACE


def test_real_traces_pass_verbatim_and_fail_when_halved(shared):
    from longcot import chat, rows

    [path] = (shared / "data/authors_outputs").glob("*27B--math500*.gz")
    told = Counter()
    for _, row in rows.read_jsonl(path):
        parts = chat.split(row["response"])
        if not (parts.thought and parts.solution.strip()):
            continue
        trace = parts.thought + parts.solution
        whole = chat.lay_out(parts.thought, parts.solution, "thought_solution")
        half = parts.thought[: len(parts.thought) // 2]
        told["whole", prompts.check_rewrite(trace, whole)] += 1
        told[
            "half",
            prompts.check_rewrite(trace, chat.lay_out(half, parts.solution, "thought_solution")),
        ] += 1
    kept = told["whole", None]
    assert kept >= 170 and told["half", None] == 0
    assert sum(n for (kind, reason), n in told.items() if kind == "whole" and reason) <= kept // 50

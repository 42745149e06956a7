"""The data story from questions to training rows: nothing asked twice, nothing lost, nothing slipped in."""

import hashlib
import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from conftest import ROOT, SHARED
from teacher import Teacher, question_row, reply_to

from data_prep import asking, curate, distill, stages
from data_prep.mixture import load_mixture
from longcot import chat, client, rows, sandbox
from longcot.errors import ClientError, RecipeError, RowError, SandboxError

RECIPE = """
apples:
  path: {folder}/questions.jsonl
  revision: main
  split: train
  config: null
  layout: questions
  where: null
  first: null
  label: false
  difficulty_min: null
  difficulty_max: null
  count: null
  licence: made here
decontaminate:
  benchmarks: [{folder}/benchmark.jsonl]
  ngram: 8
  overlap: 1.0
  near_duplicate: 1.0
teacher:
  model: teacher
  urls: [{url}]
  system: ""
  instruction: false
  temperature: 0.0
  top_p: 1.0
  max_tokens: 100
  seed: 0
  n: 1
  concurrency: 4
  timeout: 1.0
  max_retries: 2
reject:
  unjudged: drop
mix:
  seed: 0
  per_question: 1
  system: Think.
  format: thought_solution
"""
ALONE = {"workers": 1, "ray": None}


@pytest.fixture
def ask(tmp_path):
    """write(url, count) -> path of a recipe over `count` questions; the first is in the benchmark."""

    def write(url: str, count: int = 40) -> Path:
        questions = [question_row(number) for number in range(1, count + 1)]
        rows.write_jsonl(tmp_path / "questions.jsonl", questions)
        planted = [{"id": "planted", **questions[0]}]
        rows.write_jsonl(tmp_path / "benchmark.jsonl", planted)
        path = tmp_path / "apples.yaml"
        path.write_text(RECIPE.format(folder=tmp_path, url=url))
        return path

    return write


def stage(folder: Path, name: str) -> dict[str, dict]:
    (path,) = folder.glob(f"?_{name}.jsonl")
    return {row["key"]: row for _, row in rows.read_jsonl(path)}


def made(recipe: Path, folder: Path, overrides=(), spread=ALONE, again=False) -> list[dict]:
    distill.make(load_mixture(recipe, overrides), folder, spread, again)
    return [row for _, row in rows.read_jsonl(folder / "train.jsonl")]


def test_from_questions_to_rows_with_every_fall_counted(ask, tmp_path, capsys):
    with Teacher() as teacher:
        found = made(ask(teacher.url), tmp_path / "out")
    assert len(found) == 37  # 40, less the benchmark's question and two with another gold
    assert sum(teacher.asked.values()) == 39 and max(teacher.asked.values()) == 1
    row = found[0]
    problem = question_row(2)["problem"]
    assert row["conversations"][0] == {"from": "user", "value": problem}
    assert row["conversations"][1] == {"from": "assistant", "value": reply_to(problem)}
    assert (row["system"], row["source"], row["gold"], row["kind"]) == (
        "Think.",
        "apples",
        "91",
        "math",
    )
    assert [r["conversations"][0]["value"] for r in found] == [
        question_row(n)["problem"] for n in range(2, 41) if n % 20 != 7
    ]
    wrong = [row for _, row in rows.read_jsonl(tmp_path / "out/wrong.jsonl")]
    assert [r["conversations"][0]["value"] for r in wrong] == [
        question_row(n)["problem"] for n in (7, 27)
    ]
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    tallies = {t["stage"]: (t["rows_in"], t["rows_out"], t["dropped"]) for t in manifest["stages"]}
    assert tallies["1_questions"] == (40, 40, {})
    assert tallies["2_decontaminate"][:2] == (40, 39)
    assert tallies["4_sample"] == (39, 39, {})
    assert tallies["6_reject"] == (39, 37, {"wrong": 2})
    assert (
        manifest["sha256"]
        == hashlib.sha256((tmp_path / "out/train.jsonl").read_bytes()).hexdigest()
    )
    assert manifest["teacher_tokens"] == {"prompt_tokens": 39 * 30, "tokens": 39 * 60}
    assert manifest["counts"] == {"apples": 37} and manifest["teacher"]["model"] == "teacher"
    card = (tmp_path / "out/data_card.md").read_text()
    assert "37" in card and "teacher" in card
    out = capsys.readouterr().out
    assert "6_reject: 39 in, 37 out; dropped: 2 x wrong" in out


def test_spoiled_replies_are_retried_or_rejects_never_data(ask, tmp_path):
    def faults(problem, times):
        number = int(problem.split()[1])
        if number in (5, 6, 8, 9) and times == 1:
            return {5: "500", 6: "rubbish", 8: "slow", 9: "500"}[number]
        return {11: "500", 12: "length", 13: "plain"}.get(number)

    with Teacher(faults) as teacher:
        recipe = ask(teacher.url)
        found = made(recipe, tmp_path / "out")
        sampled = stage(tmp_path / "out", "sample")
        drops = {row["drop"] for row in sampled.values()}
        assert len(drops) == 3 and "cut at max_tokens" in drops and None in drops
        (failed,) = [
            row for row in sampled.values() if (row["drop"] or "").startswith("call failed")
        ]
        assert failed["retries"] == 2 and failed["response"] == ""
        assert sum(row["retries"] for row in sampled.values()) == 2 + 4
        assert len(found) == 34
        fallen = [r["drop"] for r in stage(tmp_path / "out", "rewrite").values() if r["drop"]]
        assert len(fallen) == 1 and "no thought tags" in fallen[0]

        before = teacher.asked.copy()
        made(recipe, tmp_path / "out")  # nothing is left to do
        assert teacher.asked == before
        teacher.faults = lambda problem, times: None
        assert len(made(recipe, tmp_path / "out", again=True)) == 35
        assert sum((teacher.asked - before).values()) == 1  # the failed call, and no other


@pytest.mark.slow
def test_killed_at_ten_random_moments_and_started_again(ask, tmp_path):
    """The same file as a run that was never killed; no question whose answer was kept is asked again."""
    draw = random.Random(2026)
    command = [sys.executable, "-m", "data_prep.distill", "make"]
    with Teacher(delay=0.15) as teacher:
        recipe = ask(teacher.url, 120)
        kept_by_then: set[str] = set()
        kills = 0
        while kills < 10:
            process = subprocess.Popen(
                [*command, str(recipe), "--out", str(tmp_path / "killed")],
                cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            )  # fmt: skip
            begun = sum(teacher.asked.values())
            limit = time.monotonic() + 60
            while sum(teacher.asked.values()) == begun and process.poll() is None:
                assert time.monotonic() < limit
                time.sleep(0.01)
            time.sleep(draw.uniform(0.0, 0.4))
            assert process.poll() is None, process.stderr.read().decode()
            process.send_signal(signal.SIGKILL)
            process.wait()
            time.sleep(0.3)  # what was in flight ends
            asked_before, kills = teacher.asked.copy(), kills + 1
            path = tmp_path / "killed/4_sample.jsonl"
            lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
            kept_by_then = {json.loads(line)["key"] for line in lines}
        problems = {
            key: row["problem"] for key, row in stage(tmp_path / "killed", "questions").items()
        }
        subprocess.run(
            [*command, str(recipe), "--out", str(tmp_path / "killed")], cwd=ROOT, check=True
        )
        assert 0 < len(kept_by_then) < 119
        for key in kept_by_then:
            problem = problems[key.partition("#")[0]]
            assert teacher.asked[problem] == asked_before[problem], (
                "asked again after its answer was kept"
            )
        # only what was in flight at a kill can have been asked more than once
        assert sum(teacher.asked.values()) <= 119 + kills * 4
        made(recipe, tmp_path / "whole")
    for name in ("train.jsonl", "wrong.jsonl"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert len(list(rows.read_jsonl(tmp_path / "killed/4_sample.jsonl"))) == 119  # nothing twice


@pytest.mark.slow
def test_the_same_rows_for_one_two_and_four_workers(ask, tmp_path):
    with Teacher() as teacher:
        recipe = ask(teacher.url)
        hashes = set()
        for workers in (1, 2, 4):
            folder = tmp_path / f"out{workers}"
            made(recipe, folder, spread={"workers": workers, "ray": None})
            hashes.add(rows.hash_file(folder / "train.jsonl"))
    assert len(hashes) == 1


def test_several_answers_per_question_and_a_stated_count(ask, tmp_path):
    overrides = ["teacher.n=3", "teacher.temperature=0.5", "mix.per_question=2", "apples.count=20"]
    with Teacher() as teacher:
        recipe = ask(teacher.url)
        found = made(recipe, tmp_path / "out", overrides)
        again = made(recipe, tmp_path / "other", overrides)
        assert found == again and len(found) == 20
        assert set(teacher.asked.values()) == {6}
        other = made(recipe, tmp_path / "seed", [*overrides, "mix.seed=1"])
        assert [r["id"] for r in other] != [r["id"] for r in found]
        with pytest.raises(RowError, match=r"apples has 74 rows left, its count is 75"):
            made(recipe, tmp_path / "many", [*overrides[:3], "apples.count=75"])
        asked = teacher.asked.copy()  # the remedy: a lower count, and nothing is asked again
        assert len(made(recipe, tmp_path / "many", [*overrides[:3], "apples.count=74"])) == 74
        assert teacher.asked == asked
    assert all(row["id"].endswith(("#0", "#1")) for row in found)


def test_another_recipe_does_not_mix_with_finished_stages(ask, tmp_path):
    with Teacher() as teacher:
        recipe = ask(teacher.url)
        found = made(recipe, tmp_path / "out")
        with pytest.raises(RowError, match=r"4_sample.jsonl.*other settings.*teacher"):
            made(recipe, tmp_path / "out", ["teacher.max_tokens=99"])
        asked = teacher.asked.copy()
        # what moves speed alone may change
        assert made(recipe, tmp_path / "out", ["teacher.concurrency=2"]) == found
        assert teacher.asked == asked
        rows.write_jsonl(
            tmp_path / "benchmark.jsonl", [{"id": "x", "problem": "Other?", "answer": "1"}]
        )
        with pytest.raises(RowError, match=r"2_decontaminate.jsonl.*benchmark_files"):
            made(recipe, tmp_path / "out")


def test_a_teacher_that_cannot_be_asked_stops_the_run_and_keeps_what_is_there(ask, tmp_path):
    recipe = ask("http://127.0.0.1:9/v1", 3)  # the discard port: refuses
    with pytest.raises(ClientError, match=r"127.0.0.1:9"):
        made(recipe, tmp_path / "out")
    assert len(stage(tmp_path / "out", "questions")) == 3
    with Teacher() as teacher:
        again = ask(teacher.url, 3)
        assert len(made(again, tmp_path / "out")) == 2
        with pytest.raises(ClientError, match="NO_SUCH_KEY"):
            made(again, tmp_path / "other", ["teacher.api_key_env=NO_SUCH_KEY"])


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (("  ngram: 8\n", ""), 'key "decontaminate.ngram" is missing'),
        (("  ngram: 8", "  ngramm: 8"), 'unknown key "decontaminate.ngramm"'),
        (("label: false", "label: true"), "apples.label: labelling needs a difficulty section"),
        (("overlap: 1.0", "overlap: 50"), "decontaminate.overlap: a share"),
        (("  n: 1", "  n: 4"), "greedy decoding"),
        (("reject:\n  unjudged: drop\n", ""), "section 'reject' is missing"),
        (("layout: questions", "layout: question"), "must be one of"),
        (("reject:", "rejects:"), "neither a source"),
    ],
)
def test_a_faulty_data_recipe_is_told_with_its_line(ask, edit, message):
    path = ask("http://127.0.0.1:9/v1")
    text = path.read_text()
    assert edit[0] in text
    path.write_text(text.replace(*edit, 1))
    with pytest.raises(RecipeError) as caught:
        load_mixture(path)
    assert message in str(caught.value) and "apples.yaml:" in str(caught.value)


def test_the_data_recipes_of_the_repository_load():
    names = sorted(path.stem for path in (ROOT / "data_prep").glob("*.yaml"))
    assert names == ["distill17k", "distill_rehearsal"]
    mixtures = {name: load_mixture(ROOT / f"data_prep/{name}.yaml") for name in names}
    pool = mixtures["distill17k"].sources
    assert [pool["math"].difficulty_min, pool["olympiads"].difficulty_min] == [
        4,
        9,
    ]  # papers.md A.3
    assert pool["olympiads"].first == 20000 and mixtures["distill17k"].teacher.max_tokens == 16384


@pytest.mark.slow
def test_a_real_server_teaches(tmp_path):
    """`--transformers`: the untrained base serves; its answers are judged, not trusted."""
    command = [
        sys.executable,
        "-m",
        "data_prep.rehearsal",
        "--out",
        str(tmp_path),
        "--questions",
        "4",
    ]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    model = str(ROOT / "data_prep/rehearsal_base")
    done = subprocess.run(
        [sys.executable, "-m", "data_prep.distill", "make", "data_prep/distill_rehearsal.yaml",
         f"rehearsal.path={tmp_path}/questions.jsonl", "teacher.max_tokens=60",
         f"decontaminate.benchmarks=[{tmp_path}/test.jsonl]",
         "--transformers", model, "--out", str(tmp_path / "out")],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    # It solves 1%, so that nothing is left, and that is told.
    assert done.returncode == 1 and "keeps no row, for the reasons above" in done.stderr
    sampled = stage(tmp_path / "out", "sample")
    assert len(sampled) == 4 and all(row["tokens"] > 0 for row in sampled.values())
    assert all(row["finish_reason"] in ("stop", "length") for row in sampled.values())


def write_training(path, replies, golds=None):
    golds = golds or [None] * len(replies)
    rows.write_jsonl(
        path,
        (
            {"id": str(i), "kind": "math", "gold": gold, "conversations": [
                {"from": "user", "value": question_row(i)["problem"]},
                {"from": "assistant", "value": reply}]}
            for i, (reply, gold) in enumerate(zip(replies, golds, strict=True))
        ),
    )  # fmt: skip


def command(*words) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "data_prep.distill", *map(str, words)],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip


def test_subsets_are_drawn_with_a_seed_and_by_verdict(tmp_path):
    replies = [reply_to(question_row(i)["problem"]) for i in range(20)]
    golds = [question_row(i)["answer"] for i in range(20)]
    golds[3] = golds[8] = "100000"
    write_training(tmp_path / "all.jsonl", replies, golds)
    before = (tmp_path / "all.jsonl").read_bytes()

    def ids(*flags, out) -> list[str]:
        done = command("subset", tmp_path / "all.jsonl", "--out", tmp_path / out, *flags)
        assert done.returncode == 0, done.stderr
        return [row["id"] for _, row in rows.read_jsonl(tmp_path / out)]

    seven = ids("--count", 7, out="a.jsonl")
    assert len(seven) == 7 and seven == sorted(seven, key=int)
    assert (
        seven == ids("--count", 7, out="b.jsonl") != ids("--count", 7, "--seed", 1, out="c.jsonl")
    )
    # number 7 carries a wrong gold of its own, see teacher.question_row
    assert ids("--verdict", "wrong", "--kind", "math", out="wrong.jsonl") == ["3", "7", "8"]
    assert len(ids("--verdict", "right", out="right.jsonl")) == 17
    lines = before.splitlines()
    assert (tmp_path / "wrong.jsonl").read_bytes().splitlines() == [lines[3], lines[7], lines[8]]
    done = command("subset", tmp_path / "all.jsonl", "--out", tmp_path / "d.jsonl", "--count", 21)
    assert done.returncode == 1 and "20 rows fit, 21 were asked for" in done.stderr
    assert not (tmp_path / "d.jsonl").exists()
    done = command("subset", tmp_path / "all.jsonl", "--out", tmp_path / "a.jsonl")
    assert done.returncode == 1 and "exists" in done.stderr


def test_clean_takes_out_what_was_planted_and_nothing_else(tmp_path):
    replies = [reply_to(question_row(i)["problem"]) for i in range(30)]
    write_training(tmp_path / "all.jsonl", replies)
    given = [row for _, row in rows.read_jsonl(tmp_path / "all.jsonl")]
    asked = given[4]["conversations"][0]["value"]
    rows.write_jsonl(tmp_path / "bench.jsonl", [{"problem": asked, "answer": "1"}])
    again = json.loads(json.dumps(given[9]))
    again["conversations"][0]["value"] = " " + given[9]["conversations"][0]["value"].replace(
        " ", "  "
    )
    near = json.loads(json.dumps(given[12]))
    near["conversations"][0]["value"] = near["conversations"][0]["value"].replace(
        "farmer", "gardener"
    )
    rows.write_jsonl(tmp_path / "planted.jsonl", [*given, again, near])
    done = command(
        "clean", tmp_path / "planted.jsonl", "--out", tmp_path / "out.jsonl",
        "--benchmarks", tmp_path / "bench.jsonl",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    kept = [row for _, row in rows.read_jsonl(tmp_path / "out.jsonl")]
    assert kept == [row for i, row in enumerate(given) if i != 4]
    for reason in ("1 x asked by bench", "1 x exact duplicate", "1 x near duplicate"):
        assert reason in done.stdout


def test_import_and_report_from_the_command_line(tmp_path):
    given = [
        {"id": str(i), "problem": question_row(i)["problem"], "gold": "1", "prompt": "p",
         "response": f"<think>\nWait, {i}.\n</think>\n\n\\boxed{{{i}}}"}
        for i in range(12)
    ]  # fmt: skip
    given[5]["response"] = "<think>\nno end"
    rows.write_jsonl(tmp_path / "old.jsonl", given)
    out = tmp_path / "new.jsonl"
    tokenizer = str(ROOT / "data_prep/rehearsal_base")
    done = command("import", tmp_path / "old.jsonl", "--out", out, "--tokenizer", tokenizer)
    assert done.returncode == 0, done.stderr
    assert "12 in, 11 out; dropped: 1 x unclosed thought" in done.stdout
    assert len(list(rows.read_traces(str(out)))) == 11
    found = json.loads((tmp_path / "new/report.json").read_text())
    assert "11" in json.dumps(found) and (tmp_path / "new/report.png").read_bytes()[1:4] == b"PNG"
    done = command(
        "report", tmp_path / "none.jsonl", "--out", tmp_path / "r", "--tokenizer", tokenizer
    )
    assert done.returncode == 1 and "no such file" in done.stderr and "Traceback" not in done.stderr


GRADED = sorted((SHARED / "data/authors_outputs").glob("*--a*.jsonl.gz"))  # AIME24 and AMC23


@pytest.mark.skipif(not GRADED, reason="../shared/data/authors_outputs is not on this machine")
def test_rejection_keeps_no_wrong_and_drops_no_right_row_of_the_graded_files():
    """The Sky-T1 authors' own verdicts; integer answers, so there is nothing to argue about."""
    judged = 0
    for path in GRADED:
        given = [row for _, row in rows.read_jsonl(path)]
        verdicts = curate.judge_rows(
            [{"kind": "math", "gold": r["gold"], "reply": r["response"]} for r in given]
        )
        kept = [
            row["id"] for row, verdict in zip(given, verdicts, strict=True) if not verdict["drop"]
        ]
        assert kept == [row["id"] for row in given if row["upstream_correct"]], path.name
        judged += len(given)
    assert judged == 240


JUDGED = """
difficulty:
  model: judge
  temperature: 0.0
  top_p: 1.0
  max_tokens: 50
  seed: 0
  urls: [{url}]
rewrite:
  model: rewriter
  temperature: 0.0
  top_p: 1.0
  max_tokens: 500
  seed: 0
  urls: [{url}]
"""


def test_labels_rewriting_and_a_thought_in_a_field_of_its_own(ask, tmp_path):
    """Every stage at work: judge, thinking teacher with a system prompt, rewriter, unjudged rows."""
    with Teacher() as teacher:
        path = ask(teacher.url, 20)
        questions = [row for _, row in rows.read_jsonl(tmp_path / "questions.jsonl")]
        del questions[13]["answer"]  # basket 14
        rows.write_jsonl(tmp_path / "questions.jsonl", questions)
        path.write_text(path.read_text() + JUDGED.format(url=teacher.url))
        flags = ["apples.label=true", "apples.difficulty_min=4", "apples.difficulty_max=8",
                 "teacher.model=thinker", "teacher.system=Be brief.", "teacher.instruction=true",
                 "teacher.n=2", "teacher.temperature=0.5"]  # fmt: skip
        found = made(path, tmp_path / "out", flags)
        labels = stage(tmp_path / "out", "label")
        assert Counter(row["drop"] for row in labels.values()) == {
            None: 10, "difficulty below 4": 5, "difficulty above 8": 2, "no difficulty": 2
        }  # fmt: skip
        asked = [body for body in teacher.bodies if body["model"] == "thinker"]
        assert len(asked) == 20 and {body["seed"] for body in asked} == {0, 1}
        assert all(
            body["messages"][0] == {"role": "system", "content": "Be brief."} for body in asked
        )
        assert all("boxed" in body["messages"][1]["content"] for body in asked)
        # the rewriter was given the thought too, and what it laid out is what is learned
        assert all("Wait, check" in body["messages"][-1]["content"]
                   for body in teacher.bodies if body["model"] == "rewriter")  # fmt: skip
        fallen = Counter(row["drop"] for row in stage(tmp_path / "out", "reject").values())
        assert fallen == {None: 16, "unjudged": 2, "wrong": 2}  # baskets 14 and 7, twice each
        assert len(found) == 8  # one per question
        assert all("Wait, check" in row["conversations"][1]["value"] for row in found)
        assert "boxed{}" in found[0]["conversations"][0]["value"]
        kept = made(path, tmp_path / "kept", [*flags, "reject.unjudged=keep"])
        assert len(kept) == 9
        with pytest.raises(RowError, match=r"1_questions.jsonl.*apples.label was True, is False"):
            made(path, tmp_path / "out", [])


def test_without_a_rewriter_the_thoughts_field_is_laid_out(ask, tmp_path):
    with Teacher() as teacher:
        found = made(ask(teacher.url, 5), tmp_path / "out", ["teacher.model=thinker"])
    assert [chat.split(row["conversations"][1]["value"]).status for row in found] == [
        "answered"
    ] * 4
    assert all("Wait, check" in chat.split(r["conversations"][1]["value"]).thought for r in found)
    row = {"response": reply_to(question_row(1)["problem"]), "reasoning": "Another thought."}
    assert stages.as_written("k", row)["drop"] == "a thought in tags and in a field of its own"


def test_one_file_may_be_several_sources(ask, tmp_path):
    with Teacher() as teacher:
        path = ask(teacher.url, 6)
        questions = [row for _, row in rows.read_jsonl(tmp_path / "questions.jsonl")]
        colours = ("red", "green", "blue")
        rows.write_jsonl(
            tmp_path / "questions.jsonl",
            ({"id": i % 3, "colour": colours[i // 3], **q} for i, q in enumerate(questions)),
        )
        text = path.read_text()
        block = text[: text.index("decontaminate:")]
        pears = block.replace("apples:", "pears:").replace("where: null", "where: [colour=green]")
        path.write_text(text.replace("where: null", "where: [colour=red]") + pears)
        found = made(path, tmp_path / "out")
        assert [row["id"] for row in found] == [
            "apples/1#0",
            "apples/2#0",
            "pears/0#0",
            "pears/1#0",
            "pears/2#0",
        ]


def test_a_stage_begun_anew_does_not_meet_what_came_of_the_old_one(ask, tmp_path):
    with Teacher() as teacher:
        recipe = ask(teacher.url, 5)
        made(recipe, tmp_path / "out")
        (tmp_path / "out/4_sample.jsonl").unlink()
        with pytest.raises(RowError, match=r"5_rewrite.jsonl.*the stage before"):
            made(recipe, tmp_path / "out")


def test_failed_calls_are_asked_again_after_a_kill_in_the_middle_of_a_line(ask, tmp_path):
    with Teacher(lambda problem, times: "500" if "Basket 3 " in problem else None) as teacher:
        recipe = ask(teacher.url, 6)
        found = made(recipe, tmp_path / "out", ["teacher.max_retries=0"])
        path = tmp_path / "out/4_sample.jsonl"
        path.write_bytes(path.read_bytes()[:-9])
        teacher.faults = lambda problem, times: None
        again = made(recipe, tmp_path / "out", ["teacher.max_retries=0"], again=True)
    assert len(again) == len(found) + 1 == 5


def test_a_teacher_that_never_finishes_or_always_fails_stops_the_run(ask, tmp_path):
    with Teacher(lambda problem, times: "length") as teacher:
        with pytest.raises(RowError, match=r"stage 4_sample keeps no row"):
            made(ask(teacher.url, 4), tmp_path / "cut")
        assert not (tmp_path / "cut/train.jsonl").exists()
        teacher.faults = lambda problem, times: "500"
        with pytest.raises(ClientError, match=r"the first 20 calls all failed.*--retry-failed"):
            made(ask(teacher.url, 40), tmp_path / "failed", ["teacher.max_retries=0"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["clean", "--overlap", "50"], "--overlap 50.0: a share above 0"),
        (["clean", "--ngram", "0"], "--ngram 0: at least 2 words"),
        (["clean", "--workers", "0"], "0 is not above zero"),
        (["subset", "--count", "-1"], "-1 is not above zero"),
        (["clean", "--out", "x.parquet"], "rows are written as .jsonl"),
    ],
)
def test_senseless_flags_are_told(tmp_path, flags, message):
    write_training(tmp_path / "all.jsonl", ["a", "b"])
    name, *rest = flags
    out = [] if "--out" in rest else ["--out", tmp_path / "o.jsonl"]
    done = command(name, tmp_path / "all.jsonl", *out, *rest)
    assert done.returncode != 0 and message in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "o.jsonl").exists()


def test_code_replies_are_judged_by_running_them_in_the_sandbox():
    try:
        sandbox.probe()
    except SandboxError as error:
        pytest.skip(str(error))
    tests = [{"input": "1 2\n", "output": "3\n"}, {"input": "5 5\n", "output": "10\n"}]

    def reply(code: str) -> dict:
        return {"kind": "code", "tests": tests, "reply": f"So:\n```python\n{code}\n```\n"}

    found = curate.judge_rows(
        [
            reply("a, b = map(int, input().split())\nprint(a + b)"),
            reply("print(3)"),
            reply("raise SystemError"),
            {"kind": "code", "tests": tests, "reply": "no program"},
            {"kind": "code", "tests": None, "reply": "```\nprint(3)\n```"},
        ]
    )
    assert [row["drop"] for row in found] == [None, "wrong", "wrong", "no_answer", "unjudged"]
    assert "test 2 of 2" in found[1]["reason"]


def test_a_second_start_reads_no_question_twice_and_sees_changed_files(ask, tmp_path):
    with Teacher() as teacher:
        recipe = ask(teacher.url, 6)
        made(recipe, tmp_path / "out")
        made(recipe, tmp_path / "out")
        assert len(list(rows.read_jsonl(tmp_path / "out/1_questions.jsonl"))) == 6
        with pytest.raises(
            RowError, match=r"6_reject.jsonl.*reject.unjudged was 'drop', is 'keep'"
        ):
            made(recipe, tmp_path / "out", ["reject.unjudged=keep"])
        ask(teacher.url, 7)  # another file under the same name
        with pytest.raises(RowError, match=r"1_questions.jsonl.*apples.hash was"):
            made(recipe, tmp_path / "out")


def test_a_rewrite_that_fails_its_check_is_a_reject(ask, tmp_path, monkeypatch):
    monkeypatch.setattr("data_prep.prompts.check_rewrite", lambda before, after: "rewrite: planted")
    with Teacher() as teacher:
        path = ask(teacher.url, 3)
        path.write_text(path.read_text() + JUDGED.format(url=teacher.url))
        with pytest.raises(RowError, match="stage 5_rewrite keeps no row"):
            made(path, tmp_path / "out")
    assert {r["drop"] for r in stage(tmp_path / "out", "rewrite").values()} == {"rewrite: planted"}


@pytest.mark.parametrize(
    ("text", "reasoning", "reason", "error", "drop"),
    [
        ("x", None, "stop", None, None),
        ("", "thought", "stop", None, None),
        (" ", None, "stop", None, "empty reply"),
        ("x", None, "length", None, "cut at max_tokens"),
        ("x", None, "content_filter", None, "finish_reason content_filter"),
        ("", None, None, "HTTP 400: too long", "call failed: HTTP 400"),
    ],
)
def test_what_is_no_answer_falls_with_a_countable_reason(text, reasoning, reason, error, drop):
    answer = client.Answer("k", text, reasoning, reason, 1, 1, 0, 0.0, "url", error)
    assert asking.fault(answer) == drop


def test_a_fault_of_the_gold_is_no_wrong_answer_and_a_thoughts_field_is_no_answer():
    (found,) = curate.judge_rows([{"kind": "math", "gold": r"\frac{", "reply": r"\boxed{1}"}])
    assert found["drop"] == "runner_error" and found["correct"] is None
    turns = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "2", "reasoning_content": r"\boxed{1}"},
    ]
    reply = curate._reply({"messages": turns}, "f:1")
    assert chat.split(reply).thought.strip() == r"\boxed{1}"

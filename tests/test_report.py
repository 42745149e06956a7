"""A hand-made file with one row of each fault gives exactly its counts; the pages say the numbers."""

import json
import weakref

import pytest
import yaml
from conftest import build_tokenizer, sharegpt, thought

from data_prep import report
from data_prep.card import data_card, tell
from data_prep.facts import REFLECTION
from longcot import batches, contamination, rows
from longcot.errors import ModelError, RowError
from longcot.recipe import load_recipe

LONG = (
    "A farmer keeps 12 brown hens and 30 white ducks in a large wooden barn near the old river, and "
    "every single morning he feeds all of them with corn before walking slowly back to his house"
)
CODE = "Read two integers from standard input, add them together and print their sum on one line."
ASKED = (
    "How many positive whole numbers below 1000 are divisible by neither 7 nor 11 nor 13 at all?"
)
BOX = r"\boxed{2}"

# Line numbers are the keys; line 5 is blank.
ROWS = {
    1: sharegpt("q", thought("abc", BOX), source="maths", system="S1"),
    2: sharegpt("q2", f"<|begin_of_thought|>so {BOX}", source="maths", system="S1"),
    3: sharegpt("q3", f"no tags {BOX}", source="maths", system="S2"),
    4: sharegpt("q4", f"hm<|end_of_thought|>\n\n<|begin_of_solution|>{BOX}<|end_of_solution|>"),
    6: sharegpt("q6", thought(" ", BOX)),
    7: sharegpt("q7", thought(f"x {BOX}", "  ")),
    8: sharegpt("q8", thought("x", BOX).removesuffix("<|end_of_solution|>")),
    9: {"conversations": [{"from": "user", "value": "q9"}]},
    10: sharegpt(CODE, thought("x", "```python\nprint(1)\n```"), source="code"),
    11: sharegpt(LONG, thought("x", "twelve"), source="maths"),
    12: sharegpt("q", thought("abc", BOX), source="maths", system="S2"),
    13: sharegpt("q", thought("other", BOX), source="maths"),
    14: sharegpt(LONG.replace("slowly", "quickly"), thought("x", BOX), source="maths"),
    15: sharegpt(f"Return a box. {ASKED}", thought("x", BOX), source="maths"),
    16: {"messages": [
        {"role": "user", "content": "q16"},
        {"role": "assistant", "content": "bare"},
        {"role": "user", "content": "more"},
        {"role": "assistant", "content": thought("x", BOX)},
    ]},
    17: {"messages": [
        {"role": "user", "content": "q17"},
        {"role": "assistant", "content": BOX, "reasoning_content":
            "Wait, wait. Hmm, await perhaps; waits. MAYBE alternatively not."},
    ]},
    18: sharegpt("q18", "hm <|begin_of_solution|>" + BOX + "<|end_of_solution|>"),
    19: sharegpt(LONG.replace("slowly", "quickly"), thought("y", BOX), source="maths"),
}  # fmt: skip


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    file = tmp_path_factory.mktemp("data") / "train.jsonl"
    text = "".join(json.dumps(ROWS[n]) + "\n" if n in ROWS else "\n" for n in range(1, 20))
    file.write_text(text, encoding="utf-8")
    benchmark = {"id": "b|1", "problem": ASKED, "answer": "719"}
    other = {"id": "b2", "problem": "What is the area of a circle of radius five?", "answer": "25"}
    for name, problem in (("asked", benchmark), ("other", other)):
        file.with_name(f"{name}.jsonl").write_text(json.dumps(problem) + "\n", encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def measure(path, tokenizer_dir):
    def call(file=path, **changes):
        names = [str(path.with_name(f"{name}.jsonl")) for name in ("asked", "other")]
        settings = {"tokenizer_path": str(tokenizer_dir), "max_length": 128, "benchmarks": names}
        return report.measure(str(file), **settings | changes)

    return call


@pytest.fixture(scope="module")
def found(measure):
    return measure()


def lines(examples, path):
    return [
        int(one.rpartition(":")[2]) if isinstance(one, str) else lines(one, path)
        for one in examples
        if str(path) in str(one)
    ]


# ---- the counts


def test_rows_by_source(found, path):
    counts = {name: source["rows"] for name, source in found["sources"].items()}
    assert counts == {"maths": 9, "train": 8, "code": 1}
    assert found["rows"] == len(ROWS) == sum(counts.values())
    assert found["hash"] == rows.hash_file(path) and found["file"] == str(path)


def test_every_fault_is_counted_under_its_name_with_its_line(found, path):
    told = {fault: lines(seen["examples"], path) for fault, seen in found["malformed"].items()}
    missing = "no thought tags (<|begin_of_thought|> ...)"
    assert told == {
        "unclosed thought": [2],
        missing: [3],
        "unopened thought": [18],
        "empty thought": [6],
        "empty solution": [7],
        "unclosed solution": [8],
        "no reply": [9],
        f"{missing} in an earlier turn": [16],
    }
    assert all(seen["rows"] == 1 for seen in found["malformed"].values())


def test_answers_are_told_apart(found, path):
    told = {name: (s["rows"], lines(s["examples"], path)) for name, s in found["answers"].items()}
    assert told == {
        "boxed": (13, [1, 3, 4]),
        "code": (1, [10]),
        "boxed only in the thought": (2, [2, 7]),
        "neither": (2, [9, 11]),
    }


def test_repeats_are_pairs_of_lines(found, path):
    told = {
        name: (seen["rows"], lines(seen["examples"], path))
        for name, seen in found["duplicates"].items()
        if name != "near_duplicate"
    }
    assert told == {
        "question": (3, [[12, 1], [13, 1], [19, 14]]),
        "question_and_reply": (1, [[12, 1]]),
        "near_question": (1, [[14, 11]]),
    }


def test_nearness_is_a_setting(measure):
    found = measure(near_duplicate=1.0)
    assert found["duplicates"]["near_question"]["rows"] == 0
    assert found["duplicates"]["question"]["rows"] == 3


def test_system_prompts(found):
    assert found["systems"] == {"distinct": 2, "rows_without": 14}


def test_benchmark_questions_are_found_inside_a_question(found, path):
    asked, other = (found["overlap"]["benchmarks"][name] for name in ("asked", "other"))
    assert asked == {
        "problems": 1,
        "rows": 1,
        "share": round(1 / 18, 6),
        "problems_met": 1,
        "examples": [f"{path}:15 repeats asked/b|1"],
    }
    assert other["rows"] == other["problems_met"] == 0 and other["problems"] == 1


def test_a_share_is_asked_for(measure, write_rows):
    half = sharegpt(" ".join(ASKED.split()[:12]), thought("x", BOX))  # of 8-grams: some, not all
    file = write_rows([half])
    assert measure(file, overlap=0.9)["overlap"]["benchmarks"]["asked"]["rows"] == 0
    assert measure(file, overlap=0.1)["overlap"]["benchmarks"]["asked"]["rows"] == 1


def test_reflection_words_are_whole_words(measure, write_rows):
    found = measure(write_rows([ROWS[17]]))["tokens"]
    assert found["words"] == 9 + 1
    expected = {"wait": 2, "alternatively": 1, "hmm": 1, "perhaps": 1, "maybe": 1}
    assert found["reflection"] == {word: 1000 * n / 10 for word, n in expected.items()}
    assert set(expected) == set(REFLECTION)


# ---- tokens


def test_tokens_of_one_row_counted_by_hand(measure, write_rows):
    # Every byte is a token but "user", "in", two newlines and the special ones.
    prompt = 4 + 1 + 2 + 1 + 9 + 1  # <|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n
    prompt -= 1  # the q above stands among the four
    begun = 19 + 3 + 18  # <|begin_of_thought|>abc<|end_of_thought|>
    rest = 1 + 20 + 9 + 19 + 1  # \n\n<|begin_of_solution|>\boxed{2}<|end_of_solution|><|im_end|>
    found = measure(write_rows([sharegpt("q", thought("abc", BOX))]))["tokens"]
    assert [found[part]["total"] for part in report.PARTS] == [prompt + begun + rest, begun, rest]


def test_spread_is_that_of_the_rows(measure, write_rows):
    made = [sharegpt("q", thought("a" * n, "b"), source=f"s{n % 2}") for n in range(1, 101)]
    found = measure(write_rows(made))
    shortest = found["sources"]["s1"]["thought"]["total"] // 50 - 49  # mean of odd n is 50
    shortest -= 1
    assert found["tokens"]["thought"] == {
        "total": 100 * shortest + 5050,
        "mean": shortest + 50.5,
        "median": shortest + 50,
        "p90": shortest + 90,
        "p99": shortest + 99,
        "longest": shortest + 100,
    }
    bars = found["histogram"]["rows"]
    assert {name: sum(counts) for name, counts in bars.items()} == {"s0": 50, "s1": 50}


def test_bars_stand_at_their_lengths(measure, write_rows):
    made = [sharegpt("q", thought("a" * n, "b"), source="s") for n in (1, 100, 1000)]
    found = measure(write_rows(made))
    width, bars = found["histogram"]["width"], found["histogram"]["rows"]["s"]
    longest = found["tokens"]["sample"]["longest"]
    assert longest // len(bars) <= width <= longest // len(bars) + 1
    places = {(longest - less) // width for less in (999, 900, 0)}
    assert {place for place, count in enumerate(bars) if count == 1} == places and sum(bars) == 3


def test_tags_in_a_prompt_begin_no_thought(measure, write_rows):
    asked = "Think in <|begin_of_thought|> and <|end_of_thought|> first."
    plain, told = (
        measure(write_rows([sharegpt(asked, thought("abc", BOX), system=system)]))["tokens"]
        for system in ("", asked)
    )
    assert told["thought"] == plain["thought"] and told["solution"] == plain["solution"]
    assert told["sample"]["total"] > plain["sample"]["total"]
    assert plain["thought"]["total"] == 19 + 3 + 18


def test_a_row_as_long_as_max_length_stays(measure, write_rows):
    file = write_rows([sharegpt("q", thought("abc", BOX))])
    length = measure(file)["tokens"]["sample"]["total"]
    for limit, lost in ((length, 0), (length - 1, 1)):
        found = measure(file, max_length=limit)["limits"][str(limit)]
        assert (found["rows"], found["tokens"]) == (lost, lost * length)


def test_a_tokenizer_without_pad_token_will_do(measure, found, tmp_path):
    build_tokenizer(tmp_path, pad_token=None)
    other = measure(tokenizer_path=str(tmp_path))
    assert other | {"tokenizer": ""} == found | {"tokenizer": ""}


def test_what_max_length_drops_is_what_training_drops(found, path, write_recipe, template):
    limits = found["limits"]
    assert list(limits) == ["128", "4096", "8192", "16384", "32768"]
    for limit in (128, 4096):
        recipe = load_recipe(write_recipe(data={"path": str(path), "max_length": limit}))
        trained = batches.Report()
        list(batches.encode_rows(rows.read_traces(str(path)), template, recipe, trained))
        kept, lost = len(trained.lengths), sum(trained.over_long.values())
        sound = found["rows"] - sum(fault["rows"] for fault in found["malformed"].values())
        assert sound == kept + lost == 10
        assert limits[str(limit)] == {
            "rows": lost,
            "share": round(lost / sound, 6),
            "tokens": trained.lost_tokens,
            "tokens_share": round(trained.lost_tokens / (trained.tokens + trained.lost_tokens), 6),
        }
        assert (lost > 0) == (limit == 128)


def test_real_tokenizer_and_traces(shared, tmp_path):
    real = [
        (row["has_think_close"], sharegpt(row["problem"], row["response"]))
        for _, row in rows.read_jsonl(shared / "data/real_traces_dev.jsonl")
    ]
    file = tmp_path / "real.jsonl"
    rows.write_jsonl(file, (row for _, row in real))
    tokenizer, math500 = shared / "tokenizers/qwen2.5", f"math500={shared}/data/math500.jsonl"
    found = report.measure(
        str(file), tokenizer_path=str(tokenizer), max_length=4096, benchmarks=[math500]
    )
    unclosed = sum(not closed for closed, _ in real)
    assert found["rows"] == 20
    assert found["malformed"].get("unclosed thought", {"rows": 0})["rows"] == unclosed
    assert found["duplicates"]["question"]["rows"] == 15  # five problems
    assert 3000 < found["tokens"]["sample"]["mean"] < 6000


# ---- one stream, any number of processes


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_chunks_and_workers_do_not_change_the_report(measure, found, monkeypatch, workers):
    monkeypatch.setattr(report, "CHUNK", 3)
    assert measure(workers=workers) == found


def test_rows_are_not_kept(measure, write_rows, monkeypatch):
    alive, most = {"traces": 0, "signatures": 0}, {"traces": 0, "signatures": 0}

    def watch(kind, value):
        alive[kind] += 1
        most[kind] = max(most[kind], alive[kind])
        weakref.finalize(value, lambda: alive.update({kind: alive[kind] - 1}))
        return value

    tables = []

    class Watched(report.Table):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            tables.append(self)

    read, sign = rows.read_traces, contamination.signature
    monkeypatch.setattr(rows, "read_traces", lambda *a: (watch("traces", t) for t in read(*a)))
    monkeypatch.setattr(contamination, "signature", lambda text: watch("signatures", sign(text)))
    monkeypatch.setattr(report, "Table", Watched)
    monkeypatch.setattr(report, "CHUNK", 8)
    found = measure(write_rows([sharegpt(f"q{n}", thought("x", BOX)) for n in range(200)]))
    assert found["rows"] == 200
    assert all(0 < count <= 4 * 8 for count in most.values())
    held = sum(len(column) * column.itemsize for column in tables[0].columns.values())
    assert held <= 160 * 200 and all(len(named) <= 2 for named in tables[0].names.values())


def test_progress_sees_every_row(measure, found):
    seen = []
    assert measure(progress=lambda items: (seen.append(1) or item for item in items)) == found
    assert len(seen) == found["rows"]


# ---- bad input


@pytest.mark.parametrize("text", ["", "\n\n"])
def test_an_empty_file_is_told(measure, tmp_path, text):
    file = tmp_path / "empty.jsonl"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(RowError, match=rf"{file}:1: no rows in it"):
        measure(file)


@pytest.mark.parametrize("line, told", [
    ('{"conversations": [', "broken JSON"),
    ('{"question": "q"}', "columns question are no known form"),
    ('{"messages": [{"role": "judge", "content": "x"}]}', "unknown role 'judge'"),
])  # fmt: skip
def test_a_broken_line_stops_with_its_place(measure, tmp_path, line, told):
    file = tmp_path / "broken.jsonl"
    file.write_text(json.dumps(ROWS[1]) + "\n" + line + "\n", encoding="utf-8")
    with pytest.raises(RowError, match=rf"{file}:2: .*{told}"):
        measure(file)


def test_a_tokenizer_that_is_not_there(measure, tmp_path):
    with pytest.raises(ModelError, match="no tokenizer could be loaded") as caught:
        measure(tokenizer_path=str(tmp_path / "nothing"))
    assert "\n" not in str(caught.value)


# ---- the pages


def test_written_files(found, tmp_path):
    report.write(found, tmp_path / "out")
    files = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    assert set(files) == {"report.json", "report.md", "report.png"}
    assert json.loads(files["report.json"]) == found
    assert files["report.png"].startswith(b"\x89PNG\r\n\x1a\n") and len(files["report.png"]) > 5000
    assert files["report.md"].decode() == tell(found)
    report.write(found, tmp_path / "again")
    assert (tmp_path / "again/report.png").read_bytes() == files["report.png"]


def test_a_longer_row_moves_the_picture(measure, found, write_rows, tmp_path):
    other = measure(write_rows([*ROWS.values(), sharegpt("q", thought("x" * 500, BOX))]))
    for name, values in (("one", found), ("other", other)):
        report.write(values, tmp_path / name)
    assert (tmp_path / "one/report.png").read_bytes() != (
        tmp_path / "other/report.png"
    ).read_bytes()


def test_the_page_says_the_numbers(found):
    page = tell(found)
    total = found["tokens"]["sample"]
    for line in (
        f"18 rows, {total['total']:,} tokens",
        f"| all 3 sources | 18 | {total['total']:,} | {total['mean']:,.1f} |",
        f"of the reply: wait {found['tokens']['reflection']['wait']:.2f}, alternatively ",
        "| malformed: unclosed thought | 1 | 5.6% | 2 |",
        r"| malformed: no thought tags (<\|begin_of_thought\|> ...) | 1 | 5.6% | 3 |",
        "| answer: boxed only in the thought | 2 | 11.1% | 2; 7 |",
        "| the question of an earlier row | 3 | 16.7% | 12 repeats 1; 13 repeats 1; 19 repeats 14 |",
        "| nearly the question of an earlier row | 1 | 5.6% | 14 repeats 11 |",
        r"| asked | 1 | 1 | 1 | 5.56% | 15 repeats asked/b\|1 |",
        "Distinct system prompts: 2; rows without one: 14.",
    ):
        assert line in page, line
    lost = found["limits"]["128"]
    assert f"| 128 | {lost['rows']} | {lost['share']:.1%} | {lost['tokens']:,} |" in page


def test_tables_have_as_many_cells_as_heads(found):
    for block in tell(found).split("\n\n"):
        if block.startswith("| "):
            assert len({line.replace(r"\|", "").count("|") for line in block.splitlines()}) == 1


def test_strange_source_names_are_drawn_and_escaped(measure, write_rows, tmp_path):
    names = ["a|b\nc", "_hidden", "$x^$", *(f"s{n}" for n in range(40))]
    found = measure(write_rows([sharegpt("q", thought("x", BOX), source=name) for name in names]))
    report.write(found, tmp_path)
    page = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert r"| a\|b c | 1 |" in page and "| all 43 sources | 43 |" in page
    assert "| s39 |" not in page and len(found["sources"]) == 43


MANIFEST = {
    "name": "distill17k",
    "seed": 7,
    "commit": "0123abc",
    "dirty": True,
    "versions": {"python": "3.11.9", "transformers": "5.23.0"},
    "recipe": {
        "decontaminate": {"benchmarks": ["aime24"], "ngram": 8, "overlap": 0.5},
        "rewrite": None,
        "reject": {"unjudged": "drop"},
        "mix": {"seed": 7, "system": "S" * 500},
    },
    "teacher": {"model": "Qwen/QwQ-32B-Preview", "temperature": 0.7},
    "stages": [
        {"stage": "1_questions", "rows_in": 20000, "rows_out": 18000,
         "dropped": {"no box": 500, "repeated": 1500}},
        {"stage": "2_decontaminate", "rows_in": 18000, "rows_out": 17990,
         "dropped": {"in aime24": 10}},
    ],
    "counts": {"amc_aime": 4000, "taco": 13401},
    "rows": 17401,
    "licences": {"amc_aime": "Apache-2.0", "taco": ""},
    "sha256": "f" * 64,
}  # fmt: skip


def test_the_card_says_how_the_rows_were_made(found):
    card = data_card(MANIFEST, found)
    header = yaml.safe_load(card.split("---\n")[1])
    assert header["license"] == "other" and header["size_categories"] == ["10K<n<100K"]
    assert header["pretty_name"] == "distill17k" and "synthetic" in header["tags"]
    for text in (
        "17,401 long chain-of-thought traces",
        "| amc_aime | 4,000 | Apache-2.0 |",
        "| taco | 13,401 | not stated |",
        "| 1_questions | 20,000 | 18,000 | 1,500 x repeated; 500 x no box |",
        '**teacher**: model `"Qwen/QwQ-32B-Preview"`; temperature `0.7`',
        '**decontaminate**: benchmarks `["aime24"]`; ngram `8`; overlap `0.5`',
        "**rewrite**: none",
        "(502 characters)",
        "10 of 18,000 questions fell",
        "| asked | 1 | 1 | 1 | 5.56% |",
        "- 8 rows with a malformed reply",
        "- 3 rows with the question of an earlier row",
        "f" * 64,
        "0123abc with local changes",
        "python 3.11.9, transformers 5.23.0",
    ):
        assert text in card, text


def test_a_card_without_report_teacher_or_licences():
    bare = {**MANIFEST, "teacher": None, "licences": {}, "recipe": {}, "rows": 12, "stages": []}
    card = data_card(bare, None)
    header = yaml.safe_load(card.split("---\n")[1])
    assert header["license"] == "unknown" and header["size_categories"] == ["n<1K"]
    assert "synthetic" not in header["tags"] and "**teacher**: none" in card
    assert "No stage removed benchmark questions" in card and "were not measured" in card

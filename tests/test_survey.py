"""Trace statistics: loops against a slow definition, and hand-made answers of known counts."""

import random
from collections import Counter

import pytest
from conftest import ROOT

from longcot import survey
from longcot.survey import Entry, Loop, find_loop, measure, summarise

UNIT = "Wait, let me compute the product of these two numbers once more. "  # 65 characters


# ---- loops


@pytest.mark.parametrize(
    ("text", "loop"),
    [
        ("So:\n" + UNIT * 4, Loop(4, 65, 259 / 65)),  # the last blank is stripped
        ("So:\n" + UNIT * 4 + "\n \n", Loop(4, 65, 259 / 65)),
        ("So:\n" + UNIT * 4 + UNIT[:30], Loop(4, 65, 290 / 65)),  # cut in the middle of a unit
        (UNIT * 5, Loop(0, 65, 324 / 65)),  # nothing before it
        ("x, " + "1" * 500, Loop(3, 1, 500.0)),
        ("x" + "12" * 100, Loop(1, 2, 100.0)),  # exactly as long as wanted
        ("x" + "12" * 99, None),  # two characters short
        ("So:\n" + UNIT * 3, None),  # 194 characters
        ("So:\n" + (UNIT + UNIT.upper()) * 2 + UNIT, None),  # 2.5 times
        ("So:\n" + UNIT * 9 + "\n\n<|end_of_thought|>\n\nThe answer is 5.", None),  # it went on
        ("", None),
        (" \n" * 4000, None),
        ("The answer is 5." + "\n" * 4000, None),
        ("One ....... two" + "." * 4000, None),
        ("A rule\n" + "-" * 4000, None),
        ("| a | b |\n" + "|---|---|\n" * 200, None),
        ("x\n" + "- \\[ \\] " * 400, None),  # no letter and no digit is repeated
    ],
)
def test_loops_by_hand(text, loop):
    assert find_loop(text) == loop


def test_the_unit_is_the_smallest_and_reaches_the_furthest():
    inner = "again and again " * 20  # alone a loop of 16 characters
    assert find_loop("#" + inner) == Loop(1, 16, 319 / 16)
    text = "#" + ("So n is 7. But it was odd, " + inner) * 4
    found = find_loop(text)
    assert found and (found.start, found.period) == (1, 27 + len(inner))


def brute(text: str) -> Loop | None:
    """The definition, as slow as it reads."""
    text, best = text.rstrip(), None
    for period in range(1, len(text) // survey.REPEATS + 1):
        reach = period
        while reach < len(text) and text[-reach - 1] == text[len(text) - reach - 1 + period]:
            reach += 1
        long_enough = reach >= survey.CHARACTERS and reach >= survey.REPEATS * period
        if long_enough and (best is None or reach > best[0]):
            best = reach, period
    if best is None or not any(c.isalnum() for c in text[-best[1] :]):
        return None
    return Loop(len(text) - best[0], best[1], best[0] / best[1])


@pytest.mark.parametrize(("repeats", "characters"), [(2, 5), (3, 9), (3, 20), (4, 8)])
def test_loops_are_those_of_the_definition(monkeypatch, repeats, characters):
    monkeypatch.setattr(survey, "REPEATS", repeats)
    monkeypatch.setattr(survey, "CHARACTERS", characters)
    draw, found = random.Random(repeats * 100 + characters), 0
    for _ in range(3000):
        letters = draw.choice(["ab", "ab.", ". -", "abc \n", "0\u00e9\U0001f600"])
        unit = "".join(draw.choices(letters, k=draw.randint(1, 8)))
        text = "".join(draw.choices(letters, k=draw.randint(0, 12))) + unit * draw.randint(0, 8)
        text += "".join(draw.choices(letters, k=draw.randint(0, 3)))
        assert find_loop(text) == brute(text), text
        found += find_loop(text) is not None
    assert 300 < found < 2900


def test_a_text_and_its_repeated_end():
    draw = random.Random(0)
    source = (ROOT / "longcot" / "chat.py").read_text()
    for _ in range(100):
        place, size = draw.randrange(4000), draw.randint(7, 900)
        unit = source[place : place + size] + f"\u00a7{size}."  # not periodic in itself
        repeats = draw.randint(max(3, 200 // len(unit) + 1), 40)
        cut = unit[: draw.randrange(len(unit))].rstrip()
        before = source[: draw.randrange(3000)] + "@"
        found = find_loop(before + unit * repeats + cut)
        assert found and (found.start, found.period) == (len(before), len(unit))
        once = before + unit * (2 if len(unit) >= 100 else 1)
        assert find_loop(once) is None


def test_ordinary_texts_hold_no_loop():
    paths = [*ROOT.glob("*.md"), *ROOT.glob("results/*.md"), *ROOT.glob("longcot/*.py")]
    table = "".join(f"| {i} | {i * i} | {i % 2} |\n" for i in range(400))
    items = "".join(f"{i}. Then add {i}.\n\n" for i in range(400))
    texts = [path.read_text(encoding="utf-8") for path in paths] + [table, items]
    assert len(texts) > 50 and max(map(len, texts)) > 8000
    draw = random.Random(0)
    for text in texts:
        assert find_loop(text) is None
        for _ in range(20):  # nor where it was cut
            assert find_loop(text[: draw.randint(200, len(text)) if len(text) > 200 else 0]) is None


def fibonacci(length: int) -> str:
    one, other = "a", "ab"
    while len(other) < length:
        one, other = other, other + one
    return other[:length]


HARD = {
    "one letter": lambda n: "a" * n,
    "one letter in the way": lambda n: "a" * (n // 2) + "b" + "a" * (n // 2),
    "fibonacci": fibonacci,
    "ten units": lambda n: "".join(map(str, range(n // 50)))[: n // 10] * 10,
    "all alike but the end": lambda n: "ab" * (n // 2) + "b",
    "blank": lambda n: "a" + " " * n + "b",
}


class Counted:
    """A text that counts how often it is looked at."""

    def __init__(self, text: str) -> None:
        self.text, self.looks = text, 0

    def __len__(self) -> int:
        return len(self.text)

    def __getitem__(self, place: int) -> str:
        self.looks += 1
        return self.text[place]


@pytest.mark.parametrize("name", HARD)
def test_the_search_is_linear(name):
    text = Counted(HARD[name](20_000))
    common = survey._common_prefixes(text)
    assert text.looks <= 5 * len(text)
    for place in random.Random(0).sample(range(1, len(text)), 20):
        length = common[place]
        assert text.text[place : place + length] == text.text[:length]
        assert text.text[place + length : place + length + 1] != text.text[length : length + 1]


@pytest.mark.parametrize("name", HARD)
def test_a_million_characters(name):  # a quadratic search would take hours
    loop = find_loop(HARD[name](1_000_000))
    known = {"one letter": (0, 1), "one letter in the way": (500_001, 1), "ten units": (0, 88_890),
             "fibonacci": (317_811, 196_418)}  # fmt: skip
    if name in known:
        assert loop and (loop.start, loop.period) == known[name]
    else:
        assert loop is None


# ---- one answer

THOUGHT = (
    "Okay, two and three.\n\nWait, let me check that.\n\nAlternatively, count on fingers: five.\n\n"
    "No, that's wrong. Hmm, maybe not."
)
WHOLE = (
    f"<|begin_of_thought|>\n\n{THOUGHT}\n\n<|end_of_thought|>\n\n"
    "<|begin_of_solution|>\n\nIt is \\boxed{5}.\n\n<|end_of_solution|>"
)


def count(text: str, **more):
    return measure(Entry("f:1", "p", text, **more))


def test_a_whole_answer():
    found = count(WHOLE, cut=False, correct=True, tokens=77)
    assert found.length == {"tokens": 77, "words": len(WHOLE.split())}
    assert found.keywords == 5  # wait, let me check, alternatively, hmm, maybe
    assert found.steps == Counter(other=1, validation=1, alternative=1, backtracking=1)
    assert (found.loop, found.opens, found.boxed, found.cut, found.correct) == (
        None,
        False,
        True,
        False,
        True,
    )
    assert not found.unclosed_thought and not found.unclosed_solution
    assert measure(Entry("f:1", "p", WHOLE, tokens=77), 80).length["tokens"] == 80


@pytest.mark.parametrize(
    ("text", "thought", "solution"),
    [
        (WHOLE.partition("<|end_of_thought|>")[0], True, False),
        (WHOLE.removesuffix("<|end_of_solution|>"), False, True),
        (WHOLE.replace("<|begin_of_solution|>", ""), False, False),  # never opened
        (WHOLE.replace("<|end_of_thought|>", ""), False, False),  # the solution ends the thought
        (WHOLE.replace(THOUGHT, "It wrote <|begin_of_solution|> once."), False, False),
        (
            "Its tags:\n"
            + WHOLE.replace("Okay", "<|begin_of_solution|>x<|end_of_solution|>")[:-19],
            False,
            True,
        ),
        ("<think>\nWait", True, False),
        ("<think>\nWait</think>\n5", False, False),
        ("Plain, no tags.", False, False),
        ("", False, False),
    ],
)
def test_what_is_left_open(text, thought, solution):
    found = count(text)
    assert (found.unclosed_thought, found.unclosed_solution) == (thought, solution)


@pytest.mark.parametrize(
    ("text", "opens"),
    [
        ("Wait, that is odd.", True),
        ("<think>\n\n  **Alternatively**, use", True),
        ("<|begin_of_thought|>\n\nhmm", True),
        ("<think>\nLet me just check this", True),
        ("Let me compute this", False),
        ("Waiting is long", False),
        ("So wait", False),
        ("<think>\nSo\n</think>\nWait", False),  # the thought opens, not the solution
        ("", False),
    ],
)
def test_opening_with_a_reflection_word(text, opens):
    assert count(text).opens is opens


def test_a_refusal_and_an_empty_thought():
    found = count("I'm sorry, but I can't help with that.")
    assert found.steps is None and found.keywords == 0
    assert not (found.boxed or found.opens or found.unclosed_thought or found.loop)
    assert count("<think>\n\n</think>\n\n5").steps == Counter()
    assert count("<think>\nx</think> \\boxed{5", format="think").boxed is False
    assert count("<think>\nx", format="plain").unclosed_thought is False


# ---- figures of several


def test_figures_by_hand():
    lengths = [10, 20, 30, 40, 50, 60, 70, 80, 90, 200]
    texts = ["Wait, maybe.", "<think>\nA.\n\nWait, no.", WHOLE, *["Five."] * 7]
    made = [
        measure(Entry("f:1", str(i), text, tokens=n, cut=i == 1 if i < 4 else None, correct=i > 1))
        for i, (n, text) in enumerate(zip(lengths, texts, strict=True))
    ]
    found = summarise(made, "tokens")
    assert (found["n"], found["problems"]) == (10, 10)
    length = found["length"]
    assert (length["mean"], length["median"], length["p90"], length["max"]) == (65, 55, 90, 200)
    assert length["interval"][0] < 65 < length["interval"][1]
    assert (found["keywords"]["mean"], found["keywords_per_1000"]) == (0.8, 12.3077)
    assert (found["steps"]["mean"], found["steps"]["n"]) == (3, 2)
    assert (
        sum(found["kinds"].values()) == pytest.approx(1)
        and found["kinds"]["validation"] == 0.166667
    )
    assert found["out_of_tokens"] == {
        "mean": 0.25, "interval": [0.0455873, 0.699358], "n": 4, "count": 1,
    }  # fmt: skip
    assert [found[name]["count"] for name in ("opens_with_reflection", "boxed", "accuracy")] == [
        1,
        1,
        8,
    ]
    assert (found["unclosed_thoughts"]["count"], found["unclosed_solutions"]["count"]) == (1, 0)
    assert (found["loops"]["count"], found["loop_start"], found["loop_period"]) == (0, None, None)
    assert summarise(made, "words")["length"]["max"] == len(WHOLE.split())


def test_samples_of_one_problem_count_as_one():
    made = [measure(Entry("f:1", p, "Wait. " * k)) for p, k in [("a", 0), ("a", 0), ("b", 6)]]
    found = summarise(made, "words")
    assert (found["n"], found["problems"]) == (3, 2)
    assert found["keywords"]["mean"] == found["length"]["mean"] == 3
    assert found["opens_with_reflection"] == {"mean": 0.5, "interval": [0, 1], "n": 3, "count": 1}
    assert found["steps"] is found["kinds"] is found["accuracy"] is found["out_of_tokens"] is None


def test_loops_are_summed_up():
    texts = ["x" * 250 + UNIT * 4, "0123456789" * 25 + "." * 750 + "ab" * 500, "no loop"]
    found = summarise([measure(Entry("f:1", t, t)) for t in texts], "words")
    assert (found["loops"]["count"], found["loop_period"]) == (2, 33.5)
    assert found["loop_start"] == pytest.approx((250 / 509 + 0.5) / 2, abs=1e-6)

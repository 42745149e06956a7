"""Ten thousand hostile texts come back byte for byte, uncut where they must be; planted faults show."""

import random
import re
from dataclasses import replace

import pytest
from segment_cases import draw, faults

from longcot import blocks, segment
from longcot.segment import Steps, split_steps


@pytest.fixture(scope="module")
def texts() -> list[tuple[str, list[str]]]:
    rng = random.Random(6)
    return [draw(rng) for _ in range(10_000)]


@pytest.mark.parametrize("count", [1_000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_ten_thousand_texts_come_back(texts, count):
    texts = texts[:count]
    wrong = [(text, found) for text, held in texts if (found := faults(split_steps, text, held))]
    assert wrong == []
    assert sum(len(split_steps(text).texts) > 2 for text, _ in texts) > count / 2
    assert sum(bool(held) for _, held in texts) > 0.3 * count


def test_a_judges_pieces_come_back_too(texts):
    def split_all(text: str) -> Steps:
        return segment.cut(text, segment.candidates(text)[1:])

    assert [text for text, held in texts[:2000] if faults(split_all, text, held)] == []


def at_blank_lines(text: str) -> Steps:
    return segment.cut(text, [found.end() for found in re.finditer(r"\n\n(?=\S)", text)])


PLANTED = {
    "no trailing gap": (lambda s: replace(s, gaps=(*s.gaps[:-1], "")), "another text"),
    "blank lines": (
        lambda s: replace(s, gaps=("", *["\n\n"] * (len(s.texts) - 1), "")),
        "another text",
    ),
    "a gap less": (lambda s: replace(s, gaps=s.gaps[:-1]), "gaps"),
    "spaces kept": (
        lambda s: Steps(
            tuple(t + g for t, g in zip(s.texts, s.gaps[1:])), s.gaps[:1] + ("",) * len(s.texts)
        ),
        "outer whitespace",
    ),
    "a step as a gap": (lambda s: Steps((), (s.join(),)), "text in a gap"),
    "NUL lost": (
        lambda s: replace(s, texts=tuple(t.replace("\0", "") for t in s.texts)),
        "another text",
    ),
    "line ends": (
        lambda s: replace(s, gaps=tuple(g.replace("\r", "") for g in s.gaps)),
        "another text",
    ),
    "composed": (
        lambda s: replace(s, texts=tuple(t.replace("e\u0301", "\u00e9") for t in s.texts)),
        "another text",
    ),
    "cut at every blank line": (lambda s: at_blank_lines(s.join()), "block cut"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_planted_faults_are_seen(texts, name):
    spoil, fault = PLANTED[name]
    seen = {
        f for text, held in texts[:400] for f in faults(lambda t: spoil(split_steps(t)), text, held)
    }
    assert fault in seen


def test_a_splitter_that_says_something_else_the_next_time_is_seen():
    answers = iter([split_steps("x"), Steps((), ("x",))])
    assert faults(lambda text: next(answers), "x", []) == {"two answers"}


@pytest.mark.parametrize("part", ["_fences", "_tables", "_display", "_elements"])
def test_a_kind_of_block_that_is_not_known_is_seen(texts, part, monkeypatch):
    monkeypatch.setattr(blocks, part, lambda *arguments: [])
    assert any("block cut" in faults(split_steps, text, held) for text, held in texts[:400])

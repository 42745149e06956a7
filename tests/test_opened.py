"""A reply cut around its thought is the reply again, and its numbers and sentences are all found."""

import re

import pytest
from perturb_cases import AWKWARD, LONG, STEPS, random_reply

from longcot import chat, keywords
from longcot.opened import open_reply

NUMBERS = re.compile(r"\b\d+(?:\.\d+)?\b")  # the plain way to write it


def pieces(cut: list[list[str]]) -> list[str]:
    return [text for part in cut for text in part[1::2]]


@pytest.mark.parametrize("reply", [LONG, *AWKWARD.values()], ids=["long", *AWKWARD])
def test_a_reply_is_whole_again_and_cut_where_chat_splits(reply):
    opened = open_reply(reply)
    parts = chat.split(reply)
    assert opened.join() == reply
    if opened.steps is None:
        assert opened.fault in ("no thought", "unclosed thought")
        assert parts.thought is None or parts.status == "unclosed_thought"
    else:
        assert opened.steps.join() == parts.thought
        assert parts.solution.strip() in opened.solution
        assert "end_of_thought" not in opened.solution and "</think>" not in opened.solution
        assert (opened.fault == "empty solution") == (not parts.solution.strip())


def test_random_replies_are_whole_again_with_all_numbers_digits_and_reflection():
    with_thought = 0
    for seed in range(3000):
        reply = random_reply(seed)
        opened = open_reply(reply)
        assert opened.join() == reply
        assert "".join(map("".join, opened.numbers)) == "".join(map("".join, opened.digits))
        assert pieces(opened.digits) == re.findall(r"\d", reply)
        assert pieces(opened.numbers) == NUMBERS.findall(reply)
        cut, found = opened.sentences
        assert tuple(inner.join() for inner in cut) == opened.texts
        flagged = sum(keywords.count(cut[step].texts[place]) for step, place in found)
        assert flagged == sum(map(keywords.count, opened.texts))
        with_thought += bool(opened.texts)
    assert with_thought > 1500


def test_numbers_are_standalone_integers_and_decimals():
    opened = open_reply(AWKWARD["awkward numbers"])
    assert pieces(opened.numbers) == ["1", "234.56", "7", "3.14", "15", "10", "12", "007", "7"]
    assert pieces(open_reply(AWKWARD["Unicode digits"]).digits) == ["\u0663", "\uff15", "8"]
    assert pieces(open_reply("a1 1a 1.5a 5_ 9").numbers) == ["1", "9"]


def test_sentences_end_with_a_stop_or_a_line():
    opened = open_reply(LONG)
    assert opened.texts == tuple(STEPS)
    cut, found = opened.sentences
    assert [cut[step].texts[place] for step, place in found] == [
        "Wait, let me check: 3 * 19 = 57.",
        "Alternatively, 58 / 3 = 19.33.",
        "But wait, maybe one apple is left.",
        "Let me verify: 19 + 19 + 19 + 1 = 58.",
    ]


def test_white_space_around_a_line_end_is_all_one_gap():
    cut, found = open_reply(
        "<think>Hmm, one \t\n two wait  three!\u2003Four.)\nFive</think>"
    ).sentences
    assert cut[0].texts == ("Hmm, one", "two wait  three!", "Four.)", "Five")
    assert cut[0].gaps == ("", " \t\n ", "\u2003", "\n", "") and found == [(0, 0), (0, 1)]


def test_long_runs_of_white_space_digits_or_words_are_cut_in_linear_time():
    for text in (
        " " * 300_000,
        "\n" * 300_000,
        "1" * 300_000 + "a",
        "1.1" * 100_000,
        "wait. " * 50_000,
    ):
        opened = open_reply(f"<think>Wait {text}.</think> 1")  # quadratic, it would take minutes
        assert opened.sentences[1] and pieces(opened.numbers)

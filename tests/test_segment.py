"""Steps by rules: the rehearsal's own, breaks in real phrasing, blocks in one piece, kinds."""

import random

import pytest

from data_prep import rehearsal
from longcot import segment
from longcot.segment import Steps, split_steps


@pytest.mark.parametrize("seed", range(3))
def test_the_rehearsals_traces_split_into_the_steps_they_were_written_from(seed):
    for _, steps in rehearsal.draw_training(700, seed):
        thought = "\n\n".join(["", *steps, ""])
        found = split_steps(thought)
        assert list(found.texts) == steps
        assert found.gaps == ("\n\n",) * (len(steps) + 1)


def test_a_step_runs_until_the_line_of_thought_breaks():
    steps = [
        "So I have 196. Okay, it is even.\n\n196 = 2 * 98, and 98 = 2 * 49.\n\nSo, 196 = 4 * 49.",
        "Next, 49 is 7 * 7.\n\nTherefore, 9 divisors.",
        "Hmm, is that all? Let me see. 1, 2, 4.",
        "Wait, no. That is 3 only.",
        "Alternatively, list them:\n\n- 1\n\n- 2\n\n- 4",
        "1. Odd ones: 1, 7, 49.",
        "2. Even ones:\n1. two\n2. six\nThese are all.",
        "Case 1: x = 2.",
        "Case 2: x = 3. Fine.",
        "Let me double-check the sum: 3 + 6 = 9, i.e. nine.",
        "**Final Answer**\n\n9",
    ]
    found = split_steps("\n\n".join(steps).replace("\n\nCase 2", "\nCase 2"))
    assert list(found.texts) == steps


def test_a_sentence_inside_a_paragraph_breaks_it_too():
    found = split_steps(
        "The sum of both is 12. Wait, that one is 13. (Hmm, or is it 14?) maybe. Perhaps 15."
    )
    assert found.texts == (
        "The sum of both is 12.",
        "Wait, that one is 13.",
        "(Hmm, or is it 14?) maybe.",
        "Perhaps 15.",
    )
    assert found.gaps == ("", " ", " ", " ", "")
    assert len(split_steps("One is here now, e.g. maybe two. and wait. Nowhere else.").texts) == 1
    texts = ("One is long enough here.", "wait, two. Hmm.", "maybe 3.")
    assert split_steps(" ".join(texts)).texts == (texts[0], " ".join(texts[1:]))


@pytest.mark.parametrize(
    "block",
    [
        "```\nx = 1.\n\nWait, y.\n\nAlternatively, z.\n```",
        "| a | b |\n|---|---|\n| Wait, 1. Wait, 2 | 3. Hmm, four and more. |",
        "\\[\nx. Wait, y\n\nAlternatively, z\n\\]",
        "$$\nx. Wait, y.\n\nHmm, z.\n$$",
        "\\begin{align}\nx\n\nWait, y\n\\end{align}",
        "<note>\n\nWait, x.\n\n</note>",
    ],
)
def test_a_block_stays_in_one_step(block):
    thought = f"First we look at this one:\n\n{block}\n\nIt goes on.\n\nWait, it ends."
    found = split_steps(thought)
    assert found.texts == (thought[: -len("\n\nWait, it ends.")], "Wait, it ends.")
    assert split_steps(f"{block}\n\n{block}").texts == (f"{block}\n\n{block}",)
    assert split_steps(f"{block}\nCase 2: x").texts == (block, "Case 2: x")


@pytest.mark.parametrize("thought", ["", " ", "\n\n", "\u2028\t\r\n\x1c"])
def test_no_step(thought):
    assert split_steps(thought) == Steps((), (thought,))
    assert segment.candidates(thought) == []


@pytest.mark.parametrize(
    "thought", ["x", "  x\n", "\r\nWait\u00a0", "\x00", "\u0301 a", "One line."]
)
def test_one_step(thought):
    found = split_steps(thought)
    assert found.texts == (thought.strip(),) and found.join() == thought


def test_kinds():
    assert segment.kind_of("  Wait, let me check") == "validation"
    assert segment.kind_of("(a) Now add") == "other" and not segment.is_reflection("(a) Now add")
    assert segment.kind_of("\n\nHmm") == "reflection" and segment.is_reflection("\n\nHmm")
    assert segment.is_reflection("Maybe not") and segment.is_reflection("No, wait")
    counts = {"reflection": 0, "backtracking": 0, "validation": 0, "alternative": 0, "other": 0}
    for _, steps in rehearsal.draw_training(50, 0):
        for step in steps:
            counts[segment.kind_of(step)] += 1
            assert segment.is_reflection(step) == step.startswith(("Wait", "Alternatively"))
    assert counts["other"] and counts["validation"] and counts["alternative"]
    assert not counts["reflection"] and not counts["backtracking"]


def test_pieces_for_a_judge_are_sentences_lines_and_paragraphs_but_no_bullets():
    thought = "See Dr. Fu, i.e. him. He won $5. Then 3.5 more?\n1. Add. It is\nso.\n- one\n- two. Yes.\n\n* x"
    pieces = segment.cut(thought, segment.candidates(thought)[1:]).texts
    assert pieces == (
        "See Dr. Fu, i.e. him.",
        "He won $5.",
        "Then 3.5 more?",
        "1. Add.",
        "It is",
        "so.\n- one\n- two.",
        "Yes.",
        "* x",
    )
    assert segment.cut("a1, ... < 5. + 6", segment.candidates("a1, ... < 5. + 6")[1:]).gaps == (
        "",
        "",
    )


def test_the_rules_choose_among_the_pieces():
    rng = random.Random(0)
    words = [
        "Wait,",
        "x",
        "Hmm.",
        "\n\n",
        "\n",
        "1.",
        "i.e.",
        "wait",
        "5.",
        "Case 2",
        "- ",
        "Next,",
        "So.\n",
    ]
    for _ in range(500):
        thought = " ".join(rng.choices(words, k=40))
        assert segment._starts(split_steps(thought)) <= set(segment.candidates(thought))

"""How steps open: every kind by the phrases that real traces use, and look-alikes that are none."""

import pytest

from longcot import openings

SAID = {
    "reflection": (
        "Wait, that's 1.005^4.",
        "Wait a minute. So",
        "wait",
        "Hmm, interesting",
        "Hmmm...",
        "But wait, parentheses",
        "**Wait**, x is 3",
        "(Hold on, what?)",
        "Actually, since x",
        "Oh, I see",
        "Let me think about how to approach this.",
        "So let's reconsider",
        "I'm not sure about that",
        "I\u2019m a bit confused",
        "Did I miss one?",
        "On second thought, yes",
    ),
    "backtracking": (
        "No, that is wrong",
        "Wait, no. If",
        "That's not right.",
        "Wait, that can't be right",
        "I made a mistake",
        "Hmm, I think I misread it",
        "Let me start over",
        "Let's go back to the sum",
        "Scratch that.",
        "This doesn't work",
    ),
    "validation": (
        "Let me double-check that",
        "Let me just verify by x",
        "Wait, check: 52+6=58. Good.",
        "Wait, let me check",
        "Wait a minute, let me double-check",
        "Now, let\u2019s verify",
        "To confirm, we",
        "Just to be sure, I",
        "Checking: 2",
        "I should make sure that",
        "Is that right?",
    ),
    "alternative": (
        "Alternatively, redo it: 3*4=12.",
        "Or maybe 5",
        "But maybe there's a smarter way",
        "Wait, perhaps I should",
        "Perhaps x",
        "Another way is",
        "Let me try to factor",
        "What if x = 2",
        "There must be a better way.",
        "Instead, use x",
    ),
    None: (
        "",
        "(a) Now add 3: 51+3=54.",
        "Okay, start with 07.",
        "That is not 58.",
        "Waiting time is 3",
        "Maybes",
        "No solution exists",
        "Another 5",
        "Instead of x, y",
        "So, x = 5",
        "But since x is even",
        "Therefore, the answer",
        "Let me denote x",
        "Notice the wait",
        "Ohm's law",
        "First, find x",
        "Checks and balances",
    ),
}


@pytest.mark.parametrize(("kind", "step"), [(k, step) for k, said in SAID.items() for step in said])
def test_kind(kind, step):
    assert openings.kind(step) == kind
    assert openings.kind(step.upper()) == kind
    assert openings.kind(f"{step} {'and so on ' * 50}") == kind


ITEMS = (
    "(a) x",
    "1. x",
    "12) x",
    "b) x",
    "(iii) x",
    "Case 2: x",
    "**Case 1:** x",
    "Step 3",
    "First, x",
)
ITEMS += (
    "Next, x",
    "Now x",
    "Finally, x",
    "Second, x",
    "For the second case",
    "## Plan",
    "Suppose x",
)
ITEMS += ("**Final Answer**\nx", "Let's start with x", "So, let's begin")


@pytest.mark.parametrize("opening", ITEMS)
def test_an_item_or_a_heading_begins_a_paragraph(opening):
    assert openings.is_item(opening)


NO_ITEMS = (
    "So, x",
    "The case",
    "3.14 is pi",
    "(x - 2)(x - 3) = 0",
    "x = 2",
    "a bold **word**",
    "- x",
)
NO_ITEMS += ("Firsthand", "Nowhere", "**x** is bold", "First we", "", "#1")


@pytest.mark.parametrize("opening", NO_ITEMS)
def test_anything_else_does_not(opening):
    assert not openings.is_item(opening)


def test_a_line_is_told_by_its_label_alone():
    assert openings.is_labelled("Case 2") and openings.is_labelled("**Step ii:** x")
    assert not openings.is_labelled("2. x") and not openings.is_labelled("First, x")
    assert not openings.is_labelled("Steps x")

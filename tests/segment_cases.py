"""Hostile texts for the splitters of thoughts, and what may not be wrong with their steps."""

import random
from collections.abc import Callable

from longcot.segment import Steps

SPACES = (
    " ",
    "  ",
    "\n",
    "\n\n",
    "\r\n",
    "\r\n\r\n",
    "\t",
    "\u2028",
    "\u2029",
    "\u00a0",
    "\x0b\x0c",
)
SPACES += ("\x1c", "\x85", "\u3000", "\n \t \n", "\n\n\n\n", "")
CUES = (
    "Wait, no.",
    "Hmm.",
    "Alternatively,",
    "Let me check:",
    "1.",
    "(a)",
    "Case 2:",
    "First,",
    "So,",
)
CUES += (
    "Next,",
    "- Maybe",
    "## Plan",
    "**Final**",
    "wait",
    "Let\u2019s try",
    "I'm not sure.",
    "No.",
)
WORDS = (
    "x",
    "3.5",
    "e.g.",
    "\u00e9",
    "e\u0301",
    "\u0301",
    "\x00",
    "\ufeff",
    "\u200b",
    "\U0001f600",
    "\u0130",
)
WORDS += (
    "\\(x\\)",
    "$5",
    "a|b",
    "<",
    ">",
    "`y`",
    "done.",
    "what?",
    "\u201cend.\u201d",
    "\u7b54\u3002",
    "\\",
)
MARKS = (
    "```",
    "~~~",
    "$$",
    "\\[",
    "\\]",
    "<b>",
    "</b>",
    "<think>",
    "</think>",
    "|",
    "|---|",
    "|a|",
    "\\\\",
)
MARKS += (
    "<|begin_of_thought|>",
    "<|end_of_thought|>",
    "\\begin{a}",
    "\\end{a}",
    "<a x='. Wait'>",
    "````",
)
INSIDE = "\n\n".join(CUES) + "\nx. Wait, no.\nCase 2. Hmm, what?\n"
WHOLE = (  # blocks that must never be cut
    f"```python\n{INSIDE}```",
    f"~~~\n{INSIDE}~~~",
    f"\\[\n{INSIDE}\\]",
    f"$$\n{INSIDE}$$",
    f"\\begin{{align*}}\n{INSIDE}\\end{{align*}}",
    "| a. Wait, b | Hmm |\n|---|---|\n| Wait, x. Maybe y | 1. |\n| Case 2 | x. No. |",
    f"<div>\n<div>\n{INSIDE}</div>\n{INSIDE}</div>",
)


def draw(rng: random.Random) -> tuple[str, list[str]]:
    """A text and the blocks that stand whole in it."""
    if rng.random() < 0.5:  # anything goes
        pools = (CUES, WORDS, MARKS) if rng.random() < 0.5 else (CUES, WORDS)
        pieces = (
            rng.choice(rng.choice(pools)) + rng.choice(SPACES) for _ in range(rng.randint(0, 60))
        )
        return rng.choice(SPACES) + "".join(pieces), []
    held, parts = [], []
    for _ in range(rng.randint(1, 8)):
        if rng.random() < 0.4:
            held.append(rng.choice(WHOLE))
            parts.append(held[-1])
        else:
            parts.append(" ".join(rng.choices(CUES + WORDS[:9], k=rng.randint(1, 20))))
    return "\n\n".join(parts), held


def faults(split: Callable[[str], Steps], text: str, held: list[str]) -> set[str]:
    """What is wrong with the steps that `split` makes of a text."""
    steps, found = split(text), set()
    if steps != split(text):
        found.add("two answers")
    if len(steps.gaps) != len(steps.texts) + 1:
        return found | {"gaps"}
    if steps.join().encode("utf-8", "surrogatepass") != text.encode("utf-8", "surrogatepass"):
        found.add("another text")
    if any(step != step.strip() or not step for step in steps.texts):
        found.add("outer whitespace")
    if any(gap.strip() for gap in steps.gaps):
        found.add("text in a gap")
    if bool(steps.texts) != bool(text.strip()):
        found.add("no step")
    if any(not any(block in step for step in steps.texts) for block in held):
        found.add("block cut")
    return found

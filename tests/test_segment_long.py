"""Long, monotonous and real thoughts come back whole."""

import gzip
import json
import random
from pathlib import Path

import pytest
from segment_cases import draw, faults

from longcot import chat
from longcot.segment import split_steps

DATA = Path(__file__).parents[1] / "../shared/data"
UNITS = (
    " ",
    "\n",
    "`",
    "~",
    "$",
    "\\",
    "\\[",
    "\\[\n\n",
    "$$\n\n",
    "<",
    "<a ",
    '<a b=" ',
    "<a>",
    "</a>",
    "|",
)
UNITS += (
    "|\n",
    "|-|\n",
    "a|b\n",
    ". ",
    ".",
    "```\n",
    "~~~\n",
    "but ",
    "Wait, ",
    "hm",
    "hmm ",
    "(",
    "[",
    "*",
)
UNITS += (
    "\\begin{x}",
    "\\begin{x}\\end{x}",
    "1. ",
    "\r\n",
    "Let me just ",
    "#",
    "**a",
    "\u2028",
    "\0",
    "- ",
)
UNITS += (
    "\u0301",
    "\t\n",
    "<a></a>",
    "... ",
    '. "',
    "First\n\n",
    "let's  also  ",
    "i must have ",
    "-",
)


@pytest.mark.parametrize("unit", UNITS)
def test_a_hundred_thousand_times_the_same_comes_back(unit):
    """A search that goes back over what it has read would not come to an end here."""
    for text in (unit * (100_000 // len(unit)), f"Wait.\n{unit * (100_000 // len(unit))}x. Wait"):
        assert faults(split_steps, text, []) == set()


def test_fifty_thousand_tokens_come_back():
    rng = random.Random(1)
    parts = []
    while sum(map(len, parts)) < 200_000:
        parts.append(draw(rng)[0])
    assert faults(split_steps, "\n\n".join(parts), []) == set()


@pytest.mark.skipif(not DATA.exists(), reason="needs the stored answers in ../shared/data")
def test_real_traces_come_back_in_a_sensible_number_of_steps():
    path = DATA / "authors_outputs/Sky-T1-math-correct-5K-27B--math500.jsonl.gz"
    rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    rows += [json.loads(line) for line in (DATA / "real_traces_dev.jsonl").read_text().splitlines()]
    counts = []
    for row in rows:
        thought = chat.split(row["response"]).thought
        if thought is not None:
            assert faults(split_steps, thought, []) == set()
            counts.append(len(split_steps(thought).texts))
    counts.sort()
    assert len(counts) > 300 and 10 <= counts[len(counts) // 2] <= 30
    assert sum(count < 3 for count in counts) < 0.02 * len(counts)

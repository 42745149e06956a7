"""A reply before and after its damage, step beside step, for a terminal or a Markdown page."""

import difflib
import os
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import NamedTuple

from data_prep.conditions import Made
from longcot.opened import open_reply
from longcot.preview import DIM, GREEN, PLAIN

SHOWN = 6  # pairs of steps that differ; the rest is counted
LINES = 4  # of one step on a terminal
CELL = 110  # characters of one step in a Markdown table
MARKS = "~ another text, - gone, + new, = the same"


class Pair(NamedTuple):
    """Two texts that stand beside each other; `mark` is one of MARKS."""

    mark: str
    left: str
    right: str


def align(before: str, after: str) -> list[Pair]:
    """The steps of two replies, and what is not thought, side by side; equal ones in a row are one
    pair that says how many."""
    one, other = _pieces(before), _pieces(after)
    pairs: list[Pair] = []
    blocks = difflib.SequenceMatcher(None, one, other, autojunk=False).get_opcodes()
    for tag, a, b, c, d in blocks:
        if tag == "equal":
            told = f"({b - a} the same)"
            pairs.append(Pair("=", told, told))
            continue
        for left, right in zip_longest(one[a:b], other[c:d]):
            mark = "+" if left is None else "-" if right is None else "~"
            pairs.append(Pair(mark, left or "", right or ""))
    return pairs


def _pieces(reply: str) -> list[str]:
    opened = open_reply(reply)
    return [*opened.texts, (opened.solution or opened.tail).strip()]


def _first(pairs: list[Pair], count: int) -> Iterator[Pair]:
    """The first pairs that differ with the equal ones among them, and how many more there are."""
    for number, pair in enumerate(pairs):
        if count == 0:
            told = f"({len(pairs) - number} more)"
            yield Pair(" ", told, told)
            return
        count -= pair.mark != "="
        yield pair


def write_markdown(before: str, after: str) -> str:
    """A table of three columns: mark, before, after."""
    lines = ["| | before | after |", "|---|---|---|"]
    for mark, left, right in _first(align(before, after), SHOWN):
        left, right = _focus(_plain(left), _plain(right), CELL)
        lines.append(f"| {mark} | {_quote(left)} | {_quote(right)} |")
    return "\n".join(lines)


def write_terminal(before: str, after: str, width: int, colour: bool) -> str:
    """Two columns; what is gone or was otherwise is dim, what is new is green."""
    room = max((width - 5) // 2, 20)
    lines = []
    for mark, left, right in _first(align(before, after), SHOWN):
        columns = [
            _wrap(text, room) for text in _focus(_plain(left), _plain(right), room * (LINES - 1))
        ]
        for number, (one, other) in enumerate(zip_longest(*columns, fillvalue="")):
            one, other = one.ljust(room), other.ljust(room)
            if colour and mark in "~-+":
                one, other = f"{DIM}{one}{PLAIN}", f"{GREEN}{other}{PLAIN}"
            lines.append(f"{one} {mark if number == 0 else ' '} {other}".rstrip())
    return "\n".join(lines)


def print_row(made: Made, names: Sequence[str]) -> None:
    """Print one row under the conditions of these names; colour only on a terminal that wants it."""
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    width = shutil.get_terminal_size((120, 40)).columns
    for name, cell in zip(names, made.cells, strict=True):
        told = [f"{c.touched} of {c.of} {c.unit}, {c.differs} differ" for c in cell.changes]
        told += [f"{made.tokens:,} -> {cell.tokens:,} tokens"] if cell.tokens else []
        told += [f"unchanged: {cell.unchanged}"] if cell.unchanged else []
        print(f"\n===== {name}" + (f": {'; '.join(told)}" if told else ""))
        if made.reply is not None and cell.reply is not None:
            print(write_terminal(made.reply, cell.reply, width, colour))


def _focus(left: str, right: str, room: int) -> tuple[str, str]:
    """Both texts from shortly before their first difference."""
    same = next((n for n, (a, b) in enumerate(zip(left, right)) if a != b), 0)
    start = max(same - room // 3, 0) if max(len(left), len(right)) > room else 0
    return _cut(left, start, room), _cut(right, start, room)


def _cut(text: str, start: int, room: int) -> str:
    head = "... " if start and text else ""
    text = text[start:]
    return head + (text if len(text) <= room else f"{text[: room - 4]} ...")


def _wrap(text: str, room: int) -> list[str]:
    return textwrap.wrap(text, room)[:LINES]


def _plain(text: str) -> str:
    """One line without control characters, which could command a terminal."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _quote(text: str) -> str:
    text = text.replace("`", "'").replace("|", "\\|")
    return f"`{text}`" if text else ""

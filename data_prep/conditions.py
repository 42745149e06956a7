"""One training row under every condition, ready to be written, with what was done to it.

`make_rows` works on a chunk of rows in any process (`workers.map_rows`); a row is read, opened and cut
into steps once, whatever the number of conditions.
"""

import functools
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from longcot import chat, perturb, rows, segment
from longcot.damages import Change, Rewrite
from longcot.errors import ModelError, RowError
from longcot.opened import Opened, open_reply

KEPT = ("answer", "gold", "kind")  # columns of the source row, beside id, source and conversations
NO_SOLUTION, NO_TAGS = "no solution", "no thought tags"


class Item(NamedTuple):
    """A row on its way to a worker."""

    number: int  # of the row in its file, from 0
    where: str
    row: dict
    solution: str | None = None  # a written one, for `short`
    rewrite: Rewrite | None = None
    starts: tuple[int, ...] | None = None  # of its thought's steps, where a judge cut them
    is_sampled: bool = False  # its tokens are counted, and it may become an example


class Cell(NamedTuple):
    """One row under one condition."""

    line: bytes  # empty: this condition goes without the row
    unchanged: str | None
    changes: tuple[Change, ...]
    distance: int | None  # steps inserted, deleted or replaced; None: there are no steps to compare
    tokens: int  # of the reply, where they are counted
    reply: str | None  # of a sampled row that is changed


class Made(NamedTuple):
    """A row under every condition, in their order; without cells it is left out."""

    reply: str | None = None  # of a sampled row, before
    format: str = ""  # of the tags it came in
    steps: int = 0
    tokens: int = 0
    cells: tuple[Cell, ...] = ()


@dataclass(frozen=True)
class Task:
    """What is to be made of every row; sent once to each worker."""

    name: str  # the file's, for rows without id and source
    variants: tuple[perturb.Variant, ...]
    donors: perturb.Donors
    tokenizer: str | None
    format: str  # chat.format of the whole file; plain: no row has a thought


class Read(NamedTuple):
    """A training row, read; a thought that came in a field of its own is in <think> tags."""

    key: str
    question: str  # in one form, for comparison
    trace: rows.Trace
    reply: str
    format: str
    fault: str | None  # as training would tell it

    def is_left_out(self, format: str) -> bool:
        """Whether training in a format other than `plain` would refuse it; every condition then does
        without the row, for as a plain one it would not be refused."""
        return self.fault is not None and (self.fault != NO_TAGS or format != "plain")


def read_item(item: Item, name: str) -> Read:
    """Read a row in any of the accepted forms; raises RowError (file:line) for others."""
    trace = rows.to_trace(item.row, item.where, name)
    own = item.row.get("id")
    key = f"{name}-{item.number + 1:06d}" if own in (None, "") else str(own)
    question = name_question("\n\n".join(text for role, text in trace.turns if role == "user"))
    reply = trace.turns[-1][1] if trace.turns[-1][0] == "assistant" else ""
    if trace.thinking is not None:
        reply = chat.lay_out(trace.thinking, reply, "think")
    format = chat.told_format(reply)
    fault = chat.fault(trace, format)
    if fault is None and format == "plain":
        fault = NO_TAGS
    return Read(key, question, trace, reply, format, fault)


_BOX_FIRST = re.compile(r"\A[^\n]{0,200}?\\boxed\{\}[^\n.]*\.?\s+")
_BOX_LAST = re.compile(r"(?:\A|(?<=[.?!:\s]))[^\n.?!]*\\boxed\{\}[^\n]*\Z")


def name_question(text: str) -> str:
    """What identifies a question: its words, whatever their spacing, without an instruction at either
    end to write the answer in an (empty) box."""
    text = text.strip()
    bare = _BOX_LAST.sub("", _BOX_FIRST.sub("", text))
    folded = " ".join((bare if bare.strip() else text).split())
    return hashlib.blake2b(folded.encode(), digest_size=12).hexdigest()


def make_rows(items: list[Item], task: Task) -> list[Made]:
    """Every item under every condition of the task."""
    return [_make_row(item, task) for item in items]


def _make_row(item: Item, task: Task) -> Made:
    read = read_item(item, task.name)
    if read.is_left_out(task.format):
        return Made()
    opened = open_reply(read.reply)
    if item.starts and opened.steps:
        opened = replace(opened, steps=segment.cut(opened.steps.join(), item.starts[1:]))
    found = [find_reply(variant, item, read, opened, task.donors) for variant in task.variants]
    sampled, tokens = item.is_sampled, [0] * (len(found) + 1)
    if sampled and task.tokenizer:
        replies = [read.reply, *(damaged.reply for damaged in found)]
        tokens = count_tokens(replies, task.tokenizer)
    write = _writer(item, read)
    cells = []
    for damaged, count in zip(found, tokens[1:], strict=True):
        distance = edit_distance(opened.texts, damaged.texts) if damaged.changes else None
        shown = damaged.reply if sampled and damaged.reply != read.reply else None
        line = b"" if damaged.unchanged == NO_SOLUTION else write(damaged.reply)
        cells.append(Cell(line, damaged.unchanged, damaged.changes, distance, count, shown))
    kept = read.reply if sampled else None
    return Made(kept, read.format, len(opened.texts), tokens[0], tuple(cells))


def find_reply(
    variant: perturb.Variant, item: Item, read: Read, opened: Opened, donors: perturb.Donors
) -> perturb.Damaged:
    """A row's reply under a condition; the short one is its written solution."""
    if variant.name == "short":
        if item.solution:
            return perturb.Damaged(item.solution.strip(), (), None, ())
        return perturb.Damaged(read.reply, (), NO_SOLUTION, opened.texts)
    return perturb.damage(
        opened, variant, read.key, donors, question=read.question, rewrite=item.rewrite
    )


def _writer(item: Item, read: Read) -> Callable[[str], bytes]:
    """A function from a reply to its line. All but the reply is written once: the last value."""
    trace = read.trace
    row: dict[str, Any] = {"id": read.key, "source": trace.source}
    if trace.system is not None:
        row["system"] = trace.system
    row |= {name: item.row[name] for name in KEPT if name in item.row}
    turns = [{"from": role, "value": text} for role, text in trace.turns]
    row["conversations"] = [*turns[:-1], {"from": "assistant", "value": ""}]
    shell = json.dumps(row, ensure_ascii=False).removesuffix('""}]}')

    def write(reply: str) -> bytes:
        text = json.dumps(reply, ensure_ascii=False)
        return _encode(f"{shell}{text}}}]}}\n", item.where)

    return write


def _encode(text: str, where: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise RowError(
            f"{where}: this row, or its written solution, holds half a character (a lone surrogate); "
            "mend or remove it"
        ) from None


def count_tokens(texts: Sequence[str], tokenizer: str) -> list[int]:
    """Tokens of each text, special tokens apart."""
    backend = load_tokenizer(tokenizer).backend_tokenizer
    distinct = list(dict.fromkeys(texts))
    encoded = backend.encode_batch_fast(distinct, add_special_tokens=False)
    lengths = dict(zip(distinct, map(len, encoded), strict=True))
    return [lengths[text] for text in texts]


@functools.cache
def load_tokenizer(name: str) -> Any:
    """A tokenizer by folder or hub id, once per process; raises ModelError where there is none."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"--tokenizer {name}: no tokenizer could be loaded ({first})") from None


def edit_distance(one: Sequence[str], other: Sequence[str]) -> int:
    """How many texts are inserted, deleted or replaced (Levenshtein's distance), a whole column of the
    table at a time in the bits of two integers (Myers 1999, Hyyro 2003)."""
    if not one:
        return len(other)
    places: dict[str, int] = {}
    for number, text in enumerate(one):
        places[text] = places.get(text, 0) | 1 << number
    full, last = (1 << len(one)) - 1, 1 << len(one) - 1
    up, down, distance = full, 0, len(one)
    for text in other:
        equal = places.get(text, 0)
        same = ((equal & up) + up ^ up) | equal
        more, less = (down | ~(same | up)) & full, up & same
        distance += bool(more & last) - bool(less & last)
        more, less, same = more << 1 | 1, less << 1, equal | down
        up, down = (less | ~(same | more)) & full, more & same & full
    return distance

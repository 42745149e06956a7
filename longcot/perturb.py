"""The conditions of "structure, not content" (arXiv 2502.07374, Tables 2 and 4), reply by reply.

A condition is named by what is done to how much: `digits50`, `shuffle33`; options follow
(`digits50_thought`, `delete33_start`) and damages are joined (`digits50+delete33`, left to right).
Of n units exactly round(p * n), halves up, are touched, drawn without replacement by a generator
seeded with the row's id and the condition's name, so the same wherever the row is worked on. What
cannot be done whole is not done at all: the reply stays as it was and a reason is told.
"""

import hashlib
import heapq
import random
import re
from collections.abc import Iterable
from dataclasses import dataclass

from longcot import chat, damages
from longcot.damages import Change, Given, Part, Rewrite
from longcot.errors import RecipeError
from longcot.opened import Opened, open_reply
from longcot.rows import Trace
from longcot.strict import nearest

PLACES = ("start", "middle", "end")  # of the steps in a row that are touched; default: anywhere
OPTIONS = {
    "digits": ("thought", "single"),  # not in the solution; every digit by a digit
    "keywords": ("judge",),  # a model rewrites the thought, instead of sentences being removed
    "delete": PLACES,
    "insert": PLACES,
    "shuffle": ("reflection", *PLACES),  # only reflection steps change places
}
WHOLE = ("correct", "wrong", "short")  # another row or reply, not a damaged one
CONDITIONS = (
    "correct", "wrong", "digits20", "digits50", "digits70", "digits100",
    "keywords20", "keywords50", "keywords100", "shuffle33", "shuffle67", "shuffle100",
    "delete33", "delete67", "delete100", "insert33", "insert67", "insert100", "short",
)  # fmt: skip
DONORS = 2000  # traces that give steps
_NAME = re.compile(rf"({'|'.join(OPTIONS)})([1-9][0-9]?|100)((?:_[a-z]+)*)")
_TAGS = tuple(filter(None, (tag for tags in chat.FORMATS.values() for tag in vars(tags).values())))


# ---- names


@dataclass(frozen=True)
class Variant:
    """A condition; one of WHOLE has no parts."""

    name: str
    parts: tuple[Part, ...]

    @property
    def has_thought(self) -> bool:
        """Whether its replies keep a thought; those without are trained on with chat.format plain."""
        deleted = any(part.kind == "delete" and part.percent == 100 for part in self.parts)
        return not deleted and self.name != "short"

    @property
    def asks_judge(self) -> bool:
        """Whether a model has to rewrite thoughts for it."""
        return any("judge" in part.options for part in self.parts)

    @property
    def takes_donors(self) -> bool:
        """Whether it takes steps of other traces."""
        return any(part.kind == "insert" for part in self.parts)


def read_variant(name: str) -> Variant:
    """The condition of a name; raises RecipeError naming the nearest known one."""
    if name in WHOLE:
        return Variant(name, ())
    parts = tuple(_read_part(text, name) for text in name.split("+"))
    if any("judge" in part.options for part in parts[1:]):
        raise RecipeError(f"condition {name!r}: the judge reads whole thoughts; put its part first")
    return Variant("+".join(map(_name_of, parts)), parts)


def _read_part(text: str, name: str) -> Part:
    found = _NAME.fullmatch(text)
    kind, percent, tail = found.groups() if found else ("", "0", "")
    given, known = tail.split("_")[1:], OPTIONS.get(kind, ())
    if not found or len(set(given)) < len(given) or not set(given) <= set(known):
        options = {c: OPTIONS.get(c.rstrip("0123456789"), ()) for c in CONDITIONS}
        names = [*CONDITIONS, *(f"{c}_{option}" for c, some in options.items() for option in some)]
        told = "; ".join(f"{kind}: _{' _'.join(some)}" for kind, some in OPTIONS.items())
        raise RecipeError(
            f"condition {name!r}: {text!r} is unknown{nearest(text, names)}; known: "
            f"{', '.join(CONDITIONS)}, other per cents from 1 to 100, options ({told}), and damages "
            "joined by +"
        )
    if len(set(given) & set(PLACES)) > 1:
        raise RecipeError(f"condition {name!r}: take one of {', '.join(PLACES)}")
    return Part(kind, int(percent), tuple(option for option in known if option in given))


def _name_of(part: Part) -> str:
    return "_".join((f"{part.kind}{part.percent}", *part.options))


# ---- one reply


@dataclass(frozen=True)
class Damaged:
    """A reply under a condition; `unchanged` says why it is as it was."""

    reply: str
    changes: tuple[Change, ...]  # one for each part of the condition
    unchanged: str | None
    texts: tuple[str, ...]  # its steps

    @property
    def touched(self) -> int:
        """Units drawn, over all parts."""
        return sum(change.touched for change in self.changes)

    @property
    def of(self) -> int:
        """Units there were, over all parts."""
        return sum(change.of for change in self.changes)

    @property
    def differs(self) -> int:
        """Units that are no longer what they were, over all parts."""
        return sum(change.differs for change in self.changes)

    @property
    def unit(self) -> str:
        """What is counted: steps, numbers, digits, sentences or replies, joined by +."""
        return "+".join(change.unit for change in self.changes)


def damage(
    reply: str | Opened,
    variant: Variant,
    key: str,
    donors: "Donors | None" = None,
    *,
    question: str = "",
    rewrite: Rewrite | None = None,
) -> Damaged:
    """An assistant's whole reply under a condition; one that is damaged often is opened once.

    `key` is the row's id; `question` is that of `Donors`, whose steps are not taken; `rewrite` is what
    the judge made of the thought. Raises ValueError for `wrong` and `short`: they are other rows.
    """
    if variant.name in WHOLE[1:]:
        raise ValueError(f"{variant.name} is no damage to a reply")
    opened = open_reply(reply) if isinstance(reply, str) else reply
    state, rng, changes = opened, draw_from(key, variant), []
    for part in variant.parts:
        state, change, fault = damages.apply(state, part, rng, Given(donors, question, rewrite))
        changes.append(change)
        if fault:  # what the parts before it did is void too
            void = tuple(Change(change.unit, change.of) for change in changes)
            return Damaged(opened.join(), void, fault, opened.texts)
    return Damaged(state.join(), tuple(changes), None, state.texts)


def draw_from(key: str, variant: Variant) -> random.Random:
    """The generator of one row under one condition."""
    return random.Random(f"{variant.name}/{key}")


def is_rewritten(key: str, variant: Variant) -> bool:
    """Whether the judge is asked about this row."""
    return variant.asks_judge and damages.is_drawn(variant.parts[0], draw_from(key, variant))


# ---- steps of other traces


@dataclass(frozen=True)
class Donors:
    """Traces that give steps: the question of each, in any one form, and its steps."""

    questions: tuple[str, ...]
    steps: tuple[tuple[str, ...], ...]

    def draw(self, rng: random.Random, question: str, count: int) -> list[str]:
        """`count` steps, each a random one of a random trace of another question; [] if none."""
        if all(other == question for other in self.questions):
            return []
        drawn: list[str] = []
        while len(drawn) < count:
            trace = rng.randrange(len(self.questions))
            if self.questions[trace] != question:
                drawn.append(rng.choice(self.steps[trace]))
        return drawn


def gather_donors(traces: Iterable[tuple[str, str, str]], size: int = DONORS) -> Donors:
    """A pool of (id, question, reply): the `size` sound traces with the smallest hashes of their ids,
    so that their order does not matter and memory stays bounded. Steps that hold a reply's tags are
    left out, for they would end the thought they were put into."""
    kept: list[tuple[int, str, str]] = []  # a heap, the largest hash first
    for key, question, reply in traces:
        rank = -hash_key(key)
        if len(kept) == size and rank <= kept[0][0]:
            continue
        trace = Trace("", "", None, (("user", question), ("assistant", reply)))
        format = chat.told_format(reply)
        if format != "plain" and chat.fault(trace, format) is None:
            push = heapq.heappush if len(kept) < size else heapq.heapreplace
            push(kept, (rank, question, reply))
    questions, steps = [], []
    for _, question, reply in sorted(kept, reverse=True):
        texts = tuple(t for t in open_reply(reply).texts if not any(tag in t for tag in _TAGS))
        if texts:
            questions.append(question)
            steps.append(texts)
    return Donors(tuple(questions), tuple(steps))


def hash_key(key: str) -> int:
    """A row's id as a number of 63 bits, the same on every machine; samples are drawn by it."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") >> 1

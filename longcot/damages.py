"""The ways to damage a reply: each takes it opened and gives it back damaged, or says why it cannot.

Content: digits, keywords, a judge's rewrite. Structure: steps deleted, shuffled, replaced. After arXiv
2502.07374, section 4, and the code its tables were made with; where the two differ both are here.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple, Protocol

from longcot import keywords, segment
from longcot.opened import Opened
from longcot.segment import Steps

DIGITS = tuple("0123456789")  # a digit's successors, in the paper's text
NUMBERS = (*DIGITS, "10")  # a number's, in its code
THIRDS = {33: Fraction(1, 3), 67: Fraction(2, 3)}


@dataclass(frozen=True)
class Part:
    """One damage: its kind, per cent, and options in the order of `perturb.OPTIONS`."""

    kind: str
    percent: int
    options: tuple[str, ...] = ()

    def count(self, n: int) -> int:
        """How many of n units are touched: round(p * n), halves up; 33 and 67 stand for thirds."""
        share = THIRDS.get(self.percent) or Fraction(self.percent, 100)
        return (2 * share.numerator * n + share.denominator) // (2 * share.denominator)


class Change(NamedTuple):
    """What one damage did: `touched` of `of` units were drawn, and so many of those now differ."""

    unit: str  # numbers, digits, sentences, replies or steps
    of: int
    touched: int = 0
    differs: int = 0


class Rewrite(NamedTuple):
    """What the judge made of a thought, or why that cannot be used."""

    thought: str
    fault: str | None


class Pool(Protocol):
    """Where steps of other traces come from (`perturb.Donors`)."""

    def draw(self, rng: random.Random, question: str, count: int) -> list[str]: ...


class Given(NamedTuple):
    """What a damage may need beside the reply."""

    donors: Pool | None = None
    question: str = ""
    rewrite: Rewrite | None = None


Made = tuple[Opened, Change, str | None]  # the reply after it, the figures, why it was not done


def apply(state: Opened, part: Part, rng: random.Random, given: Given) -> Made:
    """One damage to one reply."""
    if part.options == ("judge",):
        return _rewrite(state, part, rng, given)
    return _WAYS[part.kind](state, part, rng, given)


# ---- content


def _corrupt(state: Opened, part: Part, rng: random.Random, given: Given) -> Made:
    """Digits: every drawn number or digit is drawn anew, and may come out as it was."""
    single, inside = "single" in part.options, "thought" in part.options
    unit, new, cut = (
        ("digits", DIGITS, state.digits) if single else ("numbers", NUMBERS, state.numbers)
    )
    if inside and state.steps is None:
        return state, Change(unit, 0), state.fault
    found = [
        (number, place)
        for number in (range(1, len(cut) - 1) if inside else range(len(cut)))
        for place in range(1, len(cut[number]), 2)
    ]
    k, n = part.count(len(found)), len(found)
    if k == 0:
        return state, Change(unit, n), f"too few {unit}" if found else f"no {unit}"
    cut, differs = [pieces.copy() for pieces in cut], 0
    for (number, place), text in zip(_draw(found, k, rng), rng.choices(new, k=k), strict=True):
        differs += cut[number][place] != text
        cut[number][place] = text
    head, *texts, tail = map("".join, cut)
    before = len(state.tail) - len(state.solution)  # a tag and white space, without digits
    made = replace(
        state,
        head=head,
        steps=state.steps and Steps(tuple(texts), state.steps.gaps),
        tail=tail,
        solution=state.solution and tail[before:],
    )
    return made, Change(unit, n, k, differs), None


def _silence(state: Opened, part: Part, rng: random.Random, given: Given) -> Made:
    """Keywords: sentences of the thought with a reflection word go."""
    if state.steps is None:
        return state, Change("sentences", 0), state.fault
    cut, found = state.sentences
    k, n = part.count(len(found)), len(found)
    if k == 0:
        return state, Change("sentences", n), _few("reflection word", n)
    dropped: dict[int, set[int]] = {}
    for number, place in _draw(found, k, rng):
        dropped.setdefault(number, set()).add(place)
    texts = list(state.texts)
    for number, places in dropped.items():
        texts[number] = _without(cut[number], places).join()
    empty = {number for number in dropped if not texts[number]}
    if len(empty) == len(texts):
        return state, Change("sentences", n), "no sentence would be left"
    steps = _without(Steps(tuple(texts), state.steps.gaps), empty)
    return replace(state, steps=steps), Change("sentences", n, k, k), None


def _rewrite(state: Opened, part: Part, rng: random.Random, given: Given) -> Made:
    """Keywords by a judge: of a drawn reply the whole thought is replaced by the judge's."""
    if state.steps is None:
        return state, Change("replies", 0), state.fault
    if not is_drawn(part, rng):
        return state, Change("replies", 1), "not drawn"
    if not keywords.count(state.steps.join()):
        return state, Change("replies", 1), "no reflection word"
    if given.rewrite is None or given.rewrite.fault:
        fault = given.rewrite.fault if given.rewrite else "not rewritten"
        return state, Change("replies", 1), fault
    gaps = state.steps.gaps
    steps = segment.split_steps(gaps[0] + given.rewrite.thought.strip() + gaps[-1])
    differs = int(steps.texts != state.texts)
    return replace(state, steps=steps), Change("replies", 1, 1, differs), None


def is_drawn(part: Part, rng: random.Random) -> bool:
    """Whether the judge rewrites a reply: each with probability p, as in the paper's code."""
    return rng.random() * 100 < part.percent


# ---- structure


def _delete(state: Opened, part: Part, rng: random.Random, given: Given) -> Made:
    """Steps go; with all of them their tags, so that the solution alone is left."""
    places, change, fault = _choose(state, part, rng)
    if state.steps is None or fault:
        return state, change, fault
    if part.percent == 100:
        if state.fault:
            return state, Change("steps", change.of), state.fault
        return Opened("", None, state.solution, fault="no thought"), change, None
    if len(places) == len(state.texts):
        return state, Change("steps", change.of), "no step would be left"
    return replace(state, steps=_without(state.steps, set(places))), change, None


def _shuffle(state: Opened, part: Part, rng: random.Random, given: Given) -> Made:
    """The chosen steps change places, never all staying where they are."""
    places, change, fault = _choose(state, part, rng)
    if state.steps is None or fault:
        return state, change, fault
    if len(places) < 2:
        return state, Change("steps", change.of), "one step cannot change places"
    order = places.copy()
    while order == places:
        rng.shuffle(order)
    return _place(state, state.steps, change, places, [state.texts[place] for place in order])


def _insert(state: Opened, part: Part, rng: random.Random, given: Given) -> Made:
    """The chosen steps give way to steps of other correct traces of other questions."""
    places, change, fault = _choose(state, part, rng)
    if state.steps is None or fault:
        return state, change, fault
    drawn = given.donors.draw(rng, given.question, len(places)) if given.donors else []
    if not drawn:
        return state, Change("steps", change.of), "no donor"
    return _place(state, state.steps, change, places, drawn)


_WAYS: dict[str, Callable[[Opened, Part, random.Random, Given], Made]] = {
    "digits": _corrupt,
    "keywords": _silence,
    "delete": _delete,
    "shuffle": _shuffle,
    "insert": _insert,
}


def _choose(state: Opened, part: Part, rng: random.Random) -> tuple[list[int], Change, str | None]:
    """Which steps are touched, in order; they are taken to differ."""
    unit, found = "step", list(range(len(state.texts)))
    if state.steps is None:
        return [], Change("steps", 0), state.fault
    if "reflection" in part.options:
        unit = "reflection step"
        found = [place for place in found if segment.is_reflection(state.texts[place])]
    n, k = len(found), part.count(len(found))
    if k == 0:
        return [], Change("steps", n), _few(unit, n)
    begins = {"start": 0, "middle": (n - k) // 2, "end": n - k}
    where = next((begins[option] for option in part.options if option in begins), None)
    places = sorted(_draw(found, k, rng)) if where is None else found[where : where + k]
    return places, Change("steps", n, k, k), None


def _place(
    state: Opened, steps: Steps, change: Change, places: Sequence[int], new: Sequence[str]
) -> Made:
    """Write other texts into some steps' places."""
    texts, gaps = list(steps.texts), list(steps.gaps)
    for place, text in zip(places, new, strict=True):
        texts[place] = text
    for gap in {gap for place in places for gap in (place, place + 1)} - {0, len(texts)}:
        # The last line of a table or a code block must stay a line of its own.
        if "\n" not in gaps[gap] and ("\n" in texts[gap - 1] or "\n" in texts[gap]):
            gaps[gap] = "\n\n"
    differs = sum(texts[place] != steps.texts[place] for place in places)
    made = replace(state, steps=Steps(tuple(texts), tuple(gaps)))
    return made, change._replace(differs=differs), None


def _without(steps: Steps, dropped: set[int]) -> Steps:
    """The texts but some; of the gaps that meet, the one with most lines stays."""
    kept = [place for place in range(len(steps.texts)) if place not in dropped]
    if not kept:
        return Steps((), ("",))
    between = (
        max(steps.gaps[one + 1 : other + 1], key=lambda gap: gap.count("\n"))
        for one, other in pairwise(kept)
    )
    gaps = (steps.gaps[0], *between, steps.gaps[-1])
    return Steps(tuple(steps.texts[place] for place in kept), gaps)


def _draw(found: list, k: int, rng: random.Random) -> list:
    return found if k == len(found) else rng.sample(found, k)


def _few(unit: str, n: int) -> str:
    return f"too few {unit}s" if n else f"no {unit}"

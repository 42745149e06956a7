"""A thought into steps: by rules, or by a judge model that picks among numbered pieces.

A step runs until the next break of the linear line of thought: a paragraph or sentence that opens
with reflection, self-validation, backtracking or a new attempt, or a paragraph that opens a new
case or item. The Sky-T1 paper (arXiv 2502.07374, 4.2) has Llama-3.3-70B-Instruct find them; its
prompt was not published. Both ways cut only where whitespace stands and never inside code fences,
tables, display maths or tags, so that the steps joined are the thought again, byte for byte.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from longcot import blocks, chat, client, openings

SHORT = 20  # characters: "Hmm." or "Wait, no." goes with the sentence after it


@dataclass(frozen=True)
class Steps:
    """`texts` neither begin nor end with whitespace; `gaps`, one more, are nothing else."""

    texts: tuple[str, ...]
    gaps: tuple[str, ...]

    def join(self) -> str:
        """The thought that was split."""
        pairs = zip(self.gaps, (*self.texts, ""), strict=True)
        return "".join(piece for pair in pairs for piece in pair)


def split_steps(thought: str) -> Steps:
    """The steps of a thought by rules, in time linear in its length; whitespace alone has none."""
    return cut(thought, [place for place, _, is_break in _pieces(thought) if is_break])


def kind_of(step: str) -> str:
    """How a step opens: "reflection", "backtracking", "validation", "alternative" or "other"."""
    return openings.kind(step.lstrip()) or "other"


def is_reflection(step: str) -> bool:
    """Whether a step opens with any of the kinds but "other"."""
    return kind_of(step) != "other"


def cut(thought: str, places: Sequence[int]) -> Steps:
    """The steps that begin at the first character that is no space and at `places`, ascending."""
    start = len(thought) - len(thought.lstrip())
    if start == len(thought):
        return Steps((), (thought,))
    texts, gaps = [], [thought[:start]]
    for begin, end in zip([start, *places], [*places, len(thought)], strict=True):
        text = thought[begin:end].rstrip()
        texts.append(text)
        gaps.append(thought[begin + len(text) : end])
    return Steps(tuple(texts), tuple(gaps))


# ---- where a step may begin

_GAP = re.compile(r"\n\s*|[.!?][\"')\]*_\u201d\u2019]{0,3}\s+")
_NUMBER = re.compile(r"[-*+\u2022\s]{0,4}\(?(?:\d{1,3}|[ivx]{1,4}|[A-Za-z])[.)]")  # of a list item
_ABBREVIATED = re.compile(r"\b(?:e\.g|i\.e|vs|cf|Dr|Mrs?|Ms|St|Eq|Fig|No)\.$")
_BULLET = re.compile(r"[-*+\u2022]\s")


def _pieces(thought: str) -> Iterator[tuple[int, int, bool]]:
    """(offset, newlines before it, whether the rules begin a step here) of every paragraph, line
    and sentence outside blocks; the thought's own beginning is left out."""
    spans = [*blocks.find(thought), (len(thought), len(thought))]
    line = broken = len(thought) - len(thought.lstrip())
    index = 0
    for gap in _GAP.finditer(thought, line):
        place = gap.end()
        if place == len(thought):
            return
        while spans[index][1] <= place:
            index += 1
        if spans[index][0] < place:
            continue
        newlines = gap[0].count("\n")
        if newlines == 0 and _NUMBER.fullmatch(thought, line, gap.start() + 1):
            continue  # its number is no sentence
        is_close = newlines == 0 and place - broken < SHORT
        is_break = not is_close and _breaks(thought, place, newlines)
        yield place, newlines, is_break
        line = place if newlines else line
        broken = place if is_break else broken


def _breaks(thought: str, place: int, newlines: int) -> bool:
    """Whether what stands after a blank line (2 newlines), a line (1) or a sentence (0) is a break."""
    opening = thought[place : place + openings.OPENING]
    if newlines == 0 and opening[0].islower() and not opening.startswith(("wait", "hm")):
        return False  # after "e.g." or "vs."
    if openings.kind(opening) or (newlines > 1 and openings.is_item(opening)):
        return True
    return newlines == 1 and openings.is_labelled(opening)


def candidates(thought: str) -> list[int]:
    """Offsets of the pieces a judge chooses from: paragraphs, lines that are no bullets, sentences."""
    start = len(thought) - len(thought.lstrip())
    if start == len(thought):
        return []
    found = [start]
    for place, newlines, is_break in _pieces(thought):
        if newlines == 0:
            head = thought[max(0, place - 8) : place].rstrip()
            is_inner = thought[place].islower() or thought[place] in "+=<>"  # after "..."
            is_piece = not is_inner and not _ABBREVIATED.search(head)
        else:
            is_piece = newlines > 1 or not _BULLET.match(thought, place)
        if is_piece or is_break:
            found.append(place)
    return found


# ---- the judge way

_ASK = """\
You mark where the steps of somebody's thinking begin. Below are a question and what was written
while thinking about it, divided into numbered pieces; [7] stands before the seventh piece.

A step is a stretch of thought in one direction: the reading of the question, one calculation, one
attempt, one check, one case. A piece begins a new step where the line of thought breaks:
- it doubts, questions or reconsiders what was just said;
- it takes something back, corrects a mistake or gives up an attempt;
- it sets out to check a result;
- it tries another way or a new idea;
- it turns to the next part of the plan, to another case or to another item of a list.
A piece that carries on begins no step: the next line of the same calculation, a conclusion, a
remark on it, the outcome of a check just begun, the answer to a question just asked. What a piece
does decides, not its first word alone. Piece 1 always begins a step.

Do not solve the question and do not repeat the text. End with the numbers of all pieces that begin
a step, ascending, in double square brackets, such as [[1, 4, 5, 9]]."""


@dataclass(frozen=True)
class Judged:
    """A thought's steps; `fallback` says why they had to be told by rules, None where judged."""

    steps: Steps
    fallback: str | None


def judge_messages(question: str, thought: str) -> list[dict]:
    """The chat in which a judge model is shown the numbered pieces of one thought."""
    places = candidates(thought)
    pieces = cut(thought, places[1:])
    shown = [
        ("\n\n" if gap.count("\n") > 1 else "\n") * (number > 1) + f"[{number}] {text}"
        for number, (gap, text) in enumerate(zip(pieces.gaps, pieces.texts), 1)
    ]
    text = f"{_ASK}\n\nQuestion:\n\n{question.strip()}\n\nThinking:\n\n{''.join(shown)}"
    return [{"role": "user", "content": text}]


def judge_call(key: str, question: str, thought: str, sampling: dict[str, Any]) -> client.Call:
    """The call that asks the judge for one thought."""
    return client.Call(key, tuple(judge_messages(question, thought)), sampling)


def read_judge(thought: str, answer: client.Answer) -> Judged:
    """The steps a judge chose, or those of the rules where its reply cannot be used."""
    places = candidates(thought)
    numbers, fault = _read_numbers(answer, len(places))
    if fault:
        return Judged(split_steps(thought), fault)
    return Judged(cut(thought, [places[number - 1] for number in numbers if number > 1]), None)


def _read_numbers(answer: client.Answer, count: int) -> tuple[list[int], str | None]:
    """The numbers inside the last [[...]] after the judge's own thought, or why they are refused."""
    if answer.error:
        return [], f"call failed: {answer.error.partition(':')[0]}"
    if answer.finish_reason == "length":
        return [], "cut at max_tokens"
    if answer.finish_reason != "stop":
        return [], f"finish_reason {answer.finish_reason}"
    lists = re.findall(r"\[\[([^\[\]]*)\]\]", chat.split(answer.text).solution)
    if not lists:
        return [], "no list in double brackets"
    parts = lists[-1].split(",")
    if not all(re.fullmatch(r"\s*[0-9]{1,7}\s*", part) for part in parts):
        return [], "not a list of whole numbers"
    numbers = [int(part) for part in parts]
    if numbers != sorted(set(numbers)):
        return [], "numbers not ascending"
    if numbers[0] < 1 or numbers[-1] > count:
        return [], "a number of no piece"
    return numbers, None


def judge_all(
    rows: Iterable[tuple[str, str, str]], endpoint: client.Endpoint, sampling: dict[str, Any]
) -> dict[str, Judged]:
    """Ask the judge for all rows (key, question, thought) and return what it says by key.

    A thought of one piece is not asked about. Raises ClientError where nothing can be asked.
    """
    thoughts: dict[str, str] = {}
    judged: dict[str, Judged] = {}

    def calls() -> Iterator[client.Call]:
        for key, question, thought in rows:
            if len(candidates(thought)) < 2:
                judged[key] = Judged(split_steps(thought), None)
            else:
                thoughts[key] = thought
                yield judge_call(key, question, thought, sampling)

    def take(answer: client.Answer) -> None:
        judged[answer.key] = read_judge(thoughts.pop(answer.key), answer)

    client.ask_all(calls(), endpoint, take)
    return judged


def judge_fingerprint() -> str:
    """Hash of the judge's wording and of what it chooses from, for a stage file's settings."""
    words = repr(judge_messages("q", "One. Two.\nThree.\n\n- Four.\n- Five."))
    return hashlib.sha256(words.encode()).hexdigest()[:16]


# ---- agreement of two ways


@dataclass(frozen=True)
class Agreement:
    """Places where a step could begin, the thoughts' own beginnings left out, by who begins one."""

    both: int = 0
    first: int = 0
    second: int = 0
    neither: int = 0

    def __add__(self, other: "Agreement") -> "Agreement":
        return Agreement(*(a + b for a, b in zip(vars(self).values(), vars(other).values())))

    @property
    def f1(self) -> float:
        """F1 of the boundaries, the same whichever way is taken as right; 1 where there is none."""
        alone = self.first + self.second
        return 2 * self.both / (2 * self.both + alone) if self.both + alone else 1.0

    @property
    def kappa(self) -> float:
        """Cohen's kappa over the places; 1 where both ways begin a step everywhere or nowhere."""
        total = self.both + self.first + self.second + self.neither
        if not total:
            return 1.0
        a, b = (self.both + self.first) / total, (self.both + self.second) / total
        chance = a * b + (1 - a) * (1 - b)
        return 1.0 if chance == 1 else ((self.both + self.neither) / total - chance) / (1 - chance)


def agreement(first: Steps, second: Steps) -> Agreement:
    """Compare two ways to split one thought; raises ValueError for two different thoughts."""
    thought = first.join()
    if second.join() != thought:
        raise ValueError("the steps are of two different thoughts")
    a, b = _starts(first), _starts(second)
    places = len({*candidates(thought)[1:], *a, *b})
    return Agreement(len(a & b), len(a - b), len(b - a), places - len(a | b))


def _starts(steps: Steps) -> set[int]:
    """Offsets where steps begin, but for the first."""
    starts, place = set(), 0
    for gap, text in zip(steps.gaps, steps.texts):
        place += len(gap)
        starts.add(place)
        place += len(text)
    return starts - {len(steps.gaps[0])}

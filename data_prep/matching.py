"""What is known before the first row is written: a look at every row, wrong answers, solutions."""

import heapq
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_prep.conditions import NO_TAGS, Item, Task, name_question, read_item
from data_prep.cuts import Cuts
from data_prep.reflections import Edits
from longcot import perturb, rows
from longcot.errors import RowError

SAMPLE = 100  # rows whose tokens are counted: those with the smallest hashes of their ids


@dataclass
class Survey:
    """A training file at a glance; memory holds the donors, and some bytes a row."""

    path: str
    name: str  # for rows without id and source
    rows: int = 0
    left_out: Counter[str] = field(default_factory=Counter)  # what training refuses, by reason
    questions: Counter[str] = field(default_factory=Counter)  # of the others
    formats: Counter[str] = field(default_factory=Counter)
    solutions: int = 0  # rows with a column `solution`
    sample: frozenset[int] = frozenset()  # row numbers
    donors: perturb.Donors = perturb.Donors((), ())

    @property
    def format(self) -> str:
        """The chat.format of its rows."""
        return main_format(self.formats)

    @property
    def kept(self) -> int:
        """Rows that every condition starts from."""
        return self.rows - self.left_out.total()


def main_format(formats: Counter[str]) -> str:
    """The format most rows with a thought came in; plain where none has one."""
    tagged = Counter({name: n for name, n in formats.items() if name != "plain"})
    return tagged.most_common(1)[0][0] if tagged else "plain"


def take_survey(path: str, revision: str, donors: bool) -> Survey:
    """Read every row once; `donors` says whether their steps will be wanted. Raises RowError for a row
    in no known form and for a file without a usable row."""
    survey = Survey(path, name_file(path))
    ranked: list[tuple[bool, int, int]] = []  # a heap: has a thought, hash turned round, row number
    untagged: Counter[str] = Counter()

    def traces() -> Iterator[tuple[str, str, str]]:
        for item in tqdm(read_items(path, revision), "reading", unit=" rows", delay=2):
            read = read_item(item, survey.name)
            survey.rows += 1
            survey.solutions += own_solution(item.row) is not None
            if read.fault not in (None, NO_TAGS):
                survey.left_out[read.fault] += 1
                continue
            survey.formats[read.format] += 1
            push = heapq.heappush if len(ranked) < SAMPLE else heapq.heappushpop
            push(ranked, (not read.fault, -perturb.hash_key(read.key), item.number))
            (untagged if read.fault else survey.questions)[read.question] += 1
            if not read.fault:
                yield read.key, read.question, read.reply

    found = traces()
    if donors:
        survey.donors = perturb.gather_donors(found)
    for _ in found:
        pass
    if survey.format == "plain":
        survey.questions = untagged
    elif untagged:
        survey.left_out[NO_TAGS] = untagged.total()
    if not survey.kept:
        told = ", ".join(f"{n:,} x {fault}" for fault, n in survey.left_out.items())
        raise RowError(
            f"{path}:1: {told or 'no rows in it'}; a file of training rows is wanted ({rows.FORMS})"
        )
    survey.sample = frozenset(number for *_, number in ranked)
    return survey


def read_items(path: str, revision: str = "main") -> Iterator[Item]:
    """Every row of a file, numbered."""
    for number, (where, row) in enumerate(rows.read_rows(path, revision)):
        yield Item(number, where, row)


def name_file(path: str) -> str:
    """A file's or data set's name without its ending."""
    return Path(path).name.partition(".")[0]


# ---- wrong answers


@dataclass(frozen=True)
class Wrong:
    """Which rows of a file of wrong answers are taken."""

    path: str
    numbers: frozenset[int]
    rows: int  # in the file
    left_out: int  # of these: training would refuse them
    matched: int  # taken for their question
    drawn: int  # taken at random, because no wrong answer to a question was left
    missing: int  # to the number of correct rows

    def told(self) -> dict[str, Any]:
        """The manifest's entry."""
        columns = ("rows", "left_out", "matched", "drawn", "missing")
        counts = {name: getattr(self, name) for name in columns}
        return {"file": self.path, "hash": rows.hash_source(self.path, "main")} | counts


def match_wrong(path: str, survey: Survey) -> Wrong:
    """As many wrong answers as there are correct rows: to the same questions first, as the paper's
    code does, then of the others a seeded sample. Raises RowError where no row can be used."""
    wanted, matched, others, left_out = survey.questions.copy(), [], [], 0
    for item in read_items(path):
        read = read_item(item, name_file(path))
        if read.is_left_out(survey.format):
            left_out += 1
        elif wanted[read.question] > 0:
            wanted[read.question] -= 1
            matched.append(item.number)
        else:
            others.append(item.number)
    if not matched and not others:
        raise RowError(
            f"{path}:1: of {left_out:,} rows none can be trained on; rows like those of {survey.path} "
            "are wanted, with wrong answers"
        )
    room = survey.kept - len(matched)
    drawn = random.Random("wrong").sample(others, min(room, len(others)))
    numbers, count = frozenset(matched).union(drawn), left_out + len(matched) + len(others)
    return Wrong(path, numbers, count, left_out, len(matched), len(drawn), room - len(drawn))


# ---- written solutions


def own_solution(row: dict) -> str | None:
    """The row's own written solution."""
    text = row.get("solution")
    return text if isinstance(text, str) and text.strip() else None


def read_solutions(path: str, survey: Survey) -> dict[str, str]:
    """Written solutions by question, of the questions asked in the surveyed file alone.

    The file's rows have `solution`, and `problem` or `question` or a training row's turns. Raises
    RowError where no row has a solution or no question is met.
    """
    found: dict[str, str] = {}
    count = 0
    for item in read_items(path):
        text = own_solution(item.row)
        if text is None:
            continue
        count += 1
        question = _question_of(item, path)
        if question in survey.questions:
            found.setdefault(question, text)
    if not count:
        raise RowError(f"{path}:1: no row has a text in its column solution")
    if not found:
        raise RowError(
            f"{path}: none of its {count:,} solutions is to a question of {survey.path}; questions are "
            "compared by their text (column problem or question, or the user's turns)"
        )
    return found


def _question_of(item: Item, path: str) -> str:
    for column in ("problem", "question"):
        if isinstance(item.row.get(column), str):
            return name_question(item.row[column])
    return read_item(item, name_file(path)).question


def find_solution(item: Item, name: str, solutions: dict[str, str]) -> str | None:
    """A row's written solution: its own, or that to its question."""
    own = own_solution(item.row)
    return own if own or not solutions else solutions.get(read_item(item, name).question)


# ---- all of it, and the rows again with what their conditions need


@dataclass(frozen=True)
class Inputs:
    """All that is known before the first row is written."""

    survey: Survey
    source: str  # what identifies FILE
    variants: list[perturb.Variant]
    not_made: dict[str, str]
    wrong: Wrong | None
    solutions_path: str | None
    solutions: dict[str, str]  # by question

    def task(self, tokenizer: str | None) -> Task:
        """What is made of every row; wrong answers are other rows."""
        variants = tuple(variant for variant in self.variants if variant.name != "wrong")
        survey = self.survey
        return Task(survey.name, variants, survey.donors, tokenizer, survey.format)


def read_rows(
    survey: Survey,
    revision: str,
    solutions: dict[str, str],
    edits: Edits | None = None,
    cuts: Cuts | None = None,
) -> Iterator[Item]:
    """The surveyed rows with their written solutions, the judge's edits and cuts."""
    for item in read_items(survey.path, revision):
        solution = find_solution(item, survey.name, solutions)
        read = read_item(item, survey.name) if edits or cuts else None
        rewrite = edits.find(read) if edits and read else None
        starts = cuts.find(read) if cuts and read else None
        sampled = item.number in survey.sample
        yield item._replace(solution=solution, rewrite=rewrite, starts=starts, is_sampled=sampled)


def read_wrong(wrong: Wrong) -> Iterator[Item]:
    """The rows of wrong answers that were chosen."""
    ranked = sorted(wrong.numbers, key=lambda number: perturb.hash_key(str(number)))
    sample = set(ranked[:SAMPLE])
    for item in read_items(wrong.path):
        if item.number in wrong.numbers:
            yield item._replace(is_sampled=item.number in sample)

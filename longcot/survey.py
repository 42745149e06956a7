"""Trace statistics of stored answers or training rows: how long, how reflective, how they end.

Counted as the Sky-T1 paper counts (arXiv 2502.07374, Table 4, appendix D): tokens of the reply alone,
without prompt and end of turn, mean over all answers, those that ran into the limit included. So
counted, the stored answers behind Table 4's short MATH500 cell give its 515 tokens and 0.00 keywords.
"""

import json
import re
import statistics
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from longcot import chat, forms, keywords, metrics, rows, segment
from longcot.errors import AnswerError, RowError
from longcot.grade import find_boxes

REPEATS, CHARACTERS = 3, 200  # least of a loop
_WANTED = "give the file of verdicts that was written for these answers"
KINDS = ("reflection", "backtracking", "validation", "alternative", "other")
CORRECT = ("correct", "upstream_correct", "is_correct", "upstream_score", "score")  # of a row

_VERBS = "|".join(keywords.VERBS)
_OPENS = re.compile(
    rf"\W*(?:(?:{'|'.join(keywords.WORDS)})|let me (?:\w+ )?(?:{_VERBS}))\b", re.IGNORECASE
)


# ---- loops


@dataclass(frozen=True)
class Loop:
    """The end of a text that repeats itself: from offset `start` on, every `period` characters."""

    start: int
    period: int
    repeats: float  # the last one may be cut off


def find_loop(text: str) -> Loop | None:
    """The longest end of `text` (trailing white space aside) that is one unit said over and over:
    at least REPEATS times, CHARACTERS in all, the smallest such unit, with a letter or digit in it.
    Time linear in the text.

    A period p reaches back p + z[p] characters, z[p] being what the reversed text and itself p
    further on have in common (the Z function)."""
    text = text.rstrip()
    tail = text[-(CHARACTERS * (REPEATS - 1) // REPEATS) :]
    if text.find(tail) == len(text) - len(tail):
        return None  # the end was never said before
    common = _common_prefixes(text[::-1])
    reach, period = 0, 0
    for p in range(1, len(text) // REPEATS + 1):
        found = p + common[p]
        if found > reach and found >= max(REPEATS * p, CHARACTERS):
            reach, period = found, p
    if not any(map(str.isalnum, text[len(text) - period :])):
        return None
    return Loop(len(text) - reach, period, reach / period)


def _common_prefixes(text: str) -> list[int]:
    """For each offset, how many characters from there are those of the text's beginning."""
    common, left, right = [0] * len(text), 0, 0
    for i in range(1, len(text)):
        length = min(common[i - left], right - i) if i < right else 0
        while i + length < len(text) and text[length] == text[i + length]:
            length += 1
        if i + length > right:
            left, right = i, i + length
        common[i] = length
    return common


# ---- reading


@dataclass(frozen=True)
class Entry:
    """An answer, or one reply of a training row, as stored."""

    where: str
    problem: str
    text: str
    format: str = "auto"
    tokens: int | None = None
    cut: bool | None = None  # out of tokens; None: the file does not tell
    correct: bool | None = None  # None: not judged


def read_entries(path: str | Path, verdicts: str | Path | None = None) -> Iterator[Entry]:
    """The answers of a file in order, in any form of `longcot.forms` or `longcot.rows`; no gold is
    needed. `verdicts`, what `eval.py` wrote on these answers, replaces what the rows say themselves.
    Raises AnswerError or RowError with file and line."""
    told = None if verdicts is None else _read_verdicts(str(verdicts))
    for key, entry in _read_file(str(path)):
        if told is not None:
            if not told.get(key):
                raise AnswerError(f"{verdicts}: no verdict on {key} ({entry.where}); {_WANTED}")
            entry = replace(entry, correct=told[key].popleft())
        yield entry
    if left := [key for key, found in (told or {}).items() if found]:
        raise AnswerError(f"{verdicts}: a verdict on {left[0]}, to which {path} has no answer")


def _read_verdicts(path: str) -> dict[str, deque[bool | None]]:
    """Verdicts by answer; several of one answer, which then has no sample numbers, in order."""
    found: dict[str, deque] = {}
    for where, row in rows.read_rows(path):
        if missing := {"id", "correct"} - row.keys():
            raise AnswerError(f"{where}: column {min(missing)} is missing; {_WANTED}")
        found.setdefault(_key(row["id"], row), deque()).append(_as_verdict(row["correct"]))
    return found


def _key(id: Any, told: dict) -> str:
    parts = {"id": id, "task": told.get("task"), "sample": told.get("sample")}
    return json.dumps({name: part for name, part in parts.items() if part is not None})


def _read_file(path: str) -> Iterator[tuple[str, Entry]]:
    form, filters, where = None, {}, None
    for number, (where, row) in enumerate(forms.read_file(path)):
        row = {**row, "_number": number}
        if number == 0:
            form = _find_form(row, where)
        if form is None:
            correct = _verdicts(row, 1)[0]
            for text in _replies(row, where):
                yield _key(row.get("id"), row), Entry(where, where, text, correct=correct)
            continue
        if missing := form.missing(row, True):
            raise AnswerError(f"{where}: column {missing} is missing; it began as {form.name}")
        name = row.get("filter") if "resps" in row else None
        if filters.setdefault(row.get("doc_id"), name) != name:
            continue  # lm-eval writes a response once per filter
        found = list(form.read(row, where))
        for answer, correct in zip(found, _verdicts(row, len(found)), strict=True):
            yield _key(answer.id, answer.meta), _as_entry(answer, correct, where)
    if where is None:
        raise AnswerError(f"{path}:1: no rows in it")


def _find_form(row: dict, where: str) -> forms.Form | None:
    """None: training rows."""
    try:
        return forms.find_form(row, where, True)
    except AnswerError as error:
        if {"conversations", "messages", "completion"} & row.keys():
            return None
        raise AnswerError(f"{error}; or training rows ({rows.FORMS})") from None


def _replies(row: dict, where: str) -> list[str]:
    """Every reply of a training row; a thought in a field of its own is set before it in tags."""
    trace = rows.to_trace(row, where, "")
    replies = [text for role, text in trace.turns if role == "assistant"]
    if not replies:
        raise RowError(f"{where}: no reply in this row; remove it")
    if trace.thinking:
        replies[-1] = chat.lay_out(trace.thinking, replies[-1], "think")
    return replies


def _as_entry(answer: forms.Answer, correct: bool | None, where: str) -> Entry:
    if not isinstance(answer.response, str):
        raise AnswerError(f"{where}: the response is {answer.response!r:.40}; text is wanted")
    format = answer.meta.get("format", "auto")
    if format not in ("auto", "plain", *chat.FORMATS):
        raise AnswerError(f"{where}: format {format!r}; auto, plain or {', '.join(chat.FORMATS)}")
    tokens = answer.meta.get("tokens")
    tokens = tokens if isinstance(tokens, int) else None
    cut = None if answer.finish_reason is None else answer.finish_reason == "length"
    problem = json.dumps([answer.meta.get("task"), answer.id])
    return Entry(where, problem, answer.response, format, tokens, cut, correct)


def _verdicts(row: dict, count: int) -> list[bool | None]:
    """What the row itself says of its responses."""
    told: Any = next((row[name] for name in CORRECT if row.get(name) is not None), None)
    if isinstance(row.get("responses"), dict):  # SkyThought
        items = row["responses"].values()
        told = [item.get("correctness") if isinstance(item, dict) else None for item in items]
    told = told if isinstance(told, list) else [told]
    return list(map(_as_verdict, told)) if len(told) == count else [None] * count


def _as_verdict(value: Any) -> bool | None:
    return bool(value) if value in (0, 1) else None


# ---- measuring


@dataclass(frozen=True)
class Measure:
    """What is counted of one answer."""

    problem: str
    correct: bool | None
    length: dict[str, int | None]  # by unit
    keywords: int
    steps: Counter[str] | None  # by kind; None: there is no thought
    loop: Loop | None
    unclosed_thought: bool
    unclosed_solution: bool
    cut: bool | None
    opens: bool  # its first word is a reflection word
    boxed: bool


def measure(entry: Entry, tokens: int | None = None) -> Measure:
    """Count what an answer holds; `tokens` replaces the length the file tells."""
    parts = chat.split(entry.text, entry.format)
    format = chat.told_format(entry.text) if entry.format == "auto" else entry.format
    tags = chat.FORMATS.get(format, chat.Tags("", ""))
    _, solution, rest = entry.text.rpartition(tags.open_solution or "\0")
    steps = segment.split_steps(parts.thought or "").texts
    return Measure(
        entry.problem,
        entry.correct,
        {"tokens": entry.tokens if tokens is None else tokens, "words": len(entry.text.split())},
        keywords.count(entry.text),
        None if parts.thought is None else Counter(map(segment.kind_of, steps)),
        find_loop(entry.text),
        parts.status == "unclosed_thought",
        bool(solution) and tags.close_solution not in rest,
        entry.cut,
        bool(_OPENS.match(parts.solution if parts.thought is None else parts.thought)),
        bool(find_boxes(entry.text)),
    )


# ---- figures


def summarise(measures: Sequence[Measure], unit: str) -> dict:
    """The figures of some answers; `unit` is "tokens" or "words". A mean is over problems of each
    problem's mean, with its 95% interval: Wilson for shares with one answer a problem, a bootstrap
    over problems otherwise. What no answer tells is None."""
    lengths = sorted(m.length[unit] or 0 for m in measures)
    kinds = Counter(kind for m in measures for kind in (m.steps or Counter()).elements())
    loops = [m.loop for m in measures if m.loop]
    starts = [loop.start / (loop.start + loop.period * loop.repeats) for loop in loops]
    total = sum(m.keywords for m in measures)
    return {
        "n": len(measures),
        "problems": len({m.problem for m in measures}),
        "length": {
            **_mean(measures, lambda m: m.length[unit]),
            "median": statistics.median(lengths),
            "p90": lengths[-(-9 * len(lengths) // 10) - 1],
            "max": lengths[-1],
        },
        "keywords": _mean(measures, lambda m: m.keywords),
        "keywords_per_1000": _round(1000 * total / sum(lengths)) if any(lengths) else None,
        "steps": _mean(measures, lambda m: None if m.steps is None else m.steps.total()) or None,
        "kinds": {k: _round(kinds[k] / kinds.total()) for k in KINDS} if kinds else None,
        "loops": _mean(measures, lambda m: m.loop is not None),
        "loop_start": _round(statistics.fmean(starts)) if starts else None,
        "loop_period": statistics.median(loop.period for loop in loops) if loops else None,
        "unclosed_thoughts": _mean(measures, lambda m: m.unclosed_thought),
        "unclosed_solutions": _mean(measures, lambda m: m.unclosed_solution),
        "out_of_tokens": _mean(measures, lambda m: m.cut) or None,
        "opens_with_reflection": _mean(measures, lambda m: m.opens),
        "boxed": _mean(measures, lambda m: m.boxed),
        "accuracy": _mean(measures, lambda m: m.correct) or None,
    }


def _mean(measures: Sequence[Measure], value: Callable[[Measure], float | None]) -> dict:
    """{mean, interval, n} of what is told, {} if nothing is; of shares also the `count`."""
    told: dict[str, list[float]] = {}
    for one in measures:
        if (found := value(one)) is not None:
            told.setdefault(one.problem, []).append(found)
    if not told:
        return {}
    means = list(map(statistics.fmean, told.values()))
    values = [found for part in told.values() for found in part]
    is_share = all(isinstance(found, bool) for found in values)
    if is_share and len(values) == len(means):
        interval = metrics.wilson(round(sum(values)), len(means))
    else:
        interval = metrics.bootstrap(means)
    found = {"mean": _round(statistics.fmean(means)), "interval": list(map(_round, interval))}
    return found | {"n": len(values)} | ({"count": sum(values)} if is_share else {})


def _round(value: float) -> float:
    """Six digits: the last ones of a sum differ between processors."""
    return float(f"{value:.6g}")

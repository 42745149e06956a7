r"""Blocks of a text that must stay in one piece: code fences, tables, display maths, tags."""

import re
from collections.abc import Iterator


def find(text: str) -> list[tuple[int, int]]:
    """The spans of the blocks of `text`, ascending and disjoint, in time linear in its length."""
    fences = _fences(text)
    others = [*_tables(text), *_display(text, fences), *_elements(text, fences)]
    merged: list[tuple[int, int]] = []
    for start, end in sorted(fences + others):
        if merged and start < merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return merged


_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})([^\n]*)", re.MULTILINE)


def _fences(text: str) -> list[tuple[int, int]]:
    """Code fences; one that is never closed runs to the end."""
    if "```" not in text and "~~~" not in text:
        return []
    spans, mark, start = [], "", 0
    for found in _FENCE.finditer(text):
        run, rest = found.groups()
        if not mark:
            if run[0] == "~" or "`" not in rest:
                mark, start = run, found.start(1)
        elif run.startswith(mark) and not rest.strip():
            spans.append((start, found.end(1)))
            mark = ""
    return [*spans, (start, len(text))] if mark else spans


def _tables(text: str) -> list[tuple[int, int]]:
    """Runs of rows between pipes, and rows around a line of dashes and pipes."""
    if "|" not in text:
        return []
    spans, start, place, previous = [], -1, 0, ""
    for line in text.split("\n"):
        row = line.strip()
        is_rule = "|" in row and "-" in row and set(row) <= set("|-: ")
        if start < 0 and is_rule and "|" in previous:
            start = place - len(previous) - 1
        elif start < 0 and len(row) > 1 and row[0] == row[-1] == "|":
            start = place
        elif start >= 0 and "|" not in row:
            spans.append((start, place))
            start = -1
        place, previous = place + len(line) + 1, line
    return [*spans, (start, len(text))] if start >= 0 else spans


_MATHS = re.compile(r"\\(?:\\|\[|\]|(?:begin|end)\{[^{}\n]{1,30}\})|\$\$")


def _display(text: str, fences: list[tuple[int, int]]) -> list[tuple[int, int]]:
    r"""\[...\], $$...$$ and \begin{...}...\end{...}; the last one left open runs to a blank line."""
    spans, dollars, opened = [], [], {}
    for found in _outside(_MATHS, text, fences):
        mark = found[0]
        if mark == "$$":
            dollars.append(found.start())
        elif mark == r"\[" or mark.startswith(r"\begin"):
            opened.setdefault(mark, []).append(found.start())
        elif mark != "\\\\":
            starts = opened.get(r"\[" if mark == r"\]" else mark.replace("end", "begin", 1))
            if starts:
                spans.append((starts.pop(), found.end()))
    paired, stray = _pair_dollars(text, dollars)
    spans += paired
    start = max([starts[-1] for starts in opened.values() if starts] + stray, default=-1)
    if start > max(spans, default=(-1, 0))[0]:
        blank = _BLANK.search(text, start)
        spans.append((start, blank.start() if blank else len(text)))
    return spans


_BLANK = re.compile(r"\n[^\S\n]*\n")


def _pair_dollars(text: str, places: list[int]) -> tuple[list[tuple[int, int]], list[int]]:
    """The spans between `$$` and the last `$$` without a partner, if any.

    An odd one would turn all others around: then no pair may hold a blank line.
    """
    spans, stray, index = [], [], 0
    is_odd = len(places) % 2 == 1
    while index < len(places):
        pair = places[index : index + 2]
        if len(pair) == 2 and not (is_odd and _BLANK.search(text, *pair)):
            spans.append((pair[0], pair[1] + 2))
            index += 2
        else:
            stray, index = pair if len(pair) == 1 else [], index + 1
    return spans, stray


_TAG = re.compile(r"<(/?)([A-Za-z][\w:.-]{0,40})(?:\s[^<>\"'=]{1,60}=[\"'][^<>]{0,300}|\s*/)?>")
_WRAPPERS = {"think", "thinking", "thought", "reasoning"}  # hold the steps themselves


def _elements(text: str, fences: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Tags themselves and, but for wrappers of a whole thought, what stands between a pair."""
    if "<" not in text:
        return []
    spans, opened = [], {}
    for found in _outside(_TAG, text, fences):
        closes, name = found.groups()
        spans.append(found.span())
        if not closes and name.lower() not in _WRAPPERS:
            opened.setdefault(name, []).append(found.start())
        elif opened.get(name):
            spans.append((opened[name].pop(), found.end()))
    return spans


def _outside(pattern: re.Pattern, text: str, spans: list[tuple[int, int]]) -> Iterator[re.Match]:
    """What `pattern` finds between the spans."""
    begin = 0
    for start, end in [*spans, (len(text), len(text))]:
        yield from pattern.finditer(text, begin, start)
        begin = end

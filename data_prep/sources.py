"""Questions: known sets and the user's own files, read row by row into one form.

A question has an id, a source and COLUMNS; what a set does not have is null. Rows that cannot be
asked are yielded as drops with a reason. No set could be opened here; columns were seen in:

| layout | hub set | columns seen in |
|---|---|---|
| numina | AI-MO/NuminaMath-CoT | dataset_info of its copies |
| apps, taco | codeparrot/apps, BAAI/TACO | their dataset cards |
| livecodebench | a local file of its rows | its own runner |
| still2 | RUC-AIBOX/long_form_thought_data_5k | the format page of its repository |
| questions | any file with problem or question, and more of COLUMNS |  |

`datasets` refuses the loading scripts of APPS and TACO, so `config` is a glob of their files: APPS at
revision refs/convert/parquet, all/test/*.parquet (its folders overlap: without a glob every row
comes twice), or at main, test.jsonl; TACO, by report, at main, ALL/train-*.parquet.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from data_prep.hub import read_source
from longcot import chat, code
from longcot.answers import infer_kind
from longcot.errors import RecipeError, RowError
from longcot.grade import GRADERS, extract_math

COLUMNS = ("kind", "problem", "gold", "tests", "starter_code", "difficulty", "reference")
MAX_TESTS = 10_000_000  # characters in one row's tests


@dataclass(frozen=True, kw_only=True)
class Source:
    """One set of questions in a data recipe."""

    path: str  # hub id, or a local .jsonl, .jsonl.gz, .json or .parquet file
    revision: str  # hub branch or commit; ignored for a local file
    split: str  # ignored for a local file and for a glob
    config: str | None  # hub configuration, or a glob of .parquet or .jsonl files in the repository
    layout: Literal["numina", "apps", "taco", "livecodebench", "still2", "questions"]
    where: tuple[str, ...] | None  # column=value or column=value|value; all must hold
    first: int | None  # only the first N rows where `where` holds, before any other filter
    label: bool  # the judge model labels the difficulty of each question, 1 to 10
    difficulty_min: int | None
    difficulty_max: int | None
    count: int | None  # traces in the mix; null: all
    licence: str  # for the data card


def broken_rules(source: Source) -> list[tuple[str, str]]:
    """(key, what is wrong) for every value that has the right type and no sense."""
    bounds = [b for b in (source.difficulty_min, source.difficulty_max) if b is not None]
    rules = [
        (any("=" not in text.partition("|")[0] for text in source.where or ()), "where",
         "each entry is column=value or column=value|value"),
        (source.first is not None and source.first < 1, "first", "must be at least 1, or null"),
        (bounds != sorted(bounds) or set(bounds) - set(range(1, 11)), "difficulty_min",
         "difficulty_min and difficulty_max must be from 1 to 10 and in order"),
        (bounds and not source.label and source.layout != "questions", "label",
         f"rows of layout {source.layout} have no difficulty from 1 to 10; set label: true"),
        (source.count is not None and source.count < 1, "count", "must be at least 1, or null"),
    ]  # fmt: skip
    return [(key, message) for broken, key, message in rules if broken]


def difficulty_fault(difficulty: int | None, source: Source) -> str | None:
    """Why a question of this difficulty (None: no label could be read) is left out, or None."""
    if difficulty is None:
        return "no difficulty"
    if difficulty < (source.difficulty_min or 1):
        return f"difficulty below {source.difficulty_min}"
    too_hard = difficulty > (source.difficulty_max or 10)
    return f"difficulty above {source.difficulty_max}" if too_hard else None


# ---- reading rows


def _require(row: dict, columns: tuple[str, ...], where: str, layout: str) -> None:
    """Raise RowError when a row lacks columns; "a|b" asks for one of two."""
    missing = [wanted for wanted in columns if not row.keys() & set(wanted.split("|"))]
    if missing:
        raise RowError(
            f"{where}: column {', '.join(missing).replace('|', ' or ')} is missing; {layout} has "
            f"{', '.join(columns).replace('|', ' or ')}, found {', '.join(map(str, row)) or 'none'}"
        )


def read_questions(name: str, source: Source) -> Iterator[tuple[dict | None, str, str]]:
    """Yield (question, file:line, "") or (None, file:line, reason) for every row of a source.

    `name` is the source's in the recipe and begins the ids. Two rows with one problem are one
    question. Raises RecipeError for a senseless source, RowError for changed columns, an empty file
    and a filter that nothing passes.
    """
    for key, message in broken_rules(source):
        raise RecipeError(f"{name}.{key}: {message}")
    columns, read = LAYOUTS[source.layout]
    conditions = [_condition(text) for text in source.where or ()]
    seen: dict[str, str] = {}
    passed, met = 0, {column: set() for column, _, _ in conditions}
    for where, row in read_source(source.path, source.revision, source.split, source.config):
        _require(row, (*columns, *met), where, f"layout {source.layout}")
        failed = [text for column, values, text in conditions if str(row[column]) not in values]
        for column, values in met.items() if not passed else ():
            values.update([str(row[column])[:30]] if len(values) < 12 else [])
        if failed:
            yield None, where, f"not {failed[0]}"
            continue
        passed += 1
        question = _question(name, row, read(row, where), source, seen, where)
        if isinstance(question, str):
            yield None, where, question
        else:
            yield question, where, ""
        if passed == source.first:
            return
    if not passed:
        found = "; ".join(f"{column} is {', '.join(sorted(v))}" for column, v in met.items() if v)
        told = f"nothing where {' and '.join(source.where or ())}; {found}" if found else "no rows"
        raise RowError(f"{source.path}:1: {told}; check the file and {name}.where")


def _condition(text: str) -> tuple[str, set[str], str]:
    column, _, values = text.partition("=")
    return column.strip(), {value.strip() for value in values.split("|")}, text


def _question(
    name: str, row: dict, found: dict | str, source: Source, seen: dict[str, str], where: str
) -> dict | str:
    """The row's question, or the reason why there is none; `seen` gets its id."""
    if isinstance(found, str):
        return found
    if not isinstance(found["problem"], str) or not found["problem"].strip():
        return "no problem text"
    own = row.get("id") if source.layout == "questions" else None
    digest = hashlib.sha256(found["problem"].encode(errors="replace")).hexdigest()[:12]
    key = f"{name}-{digest}" if own is None else str(own)
    question = {"id": key, "source": name, **dict.fromkeys(COLUMNS), **found}
    try:
        json.dumps(question, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return "half a character (a lone surrogate)"
    if key in seen:
        if own is None:
            return "the same problem as an earlier row"
        raise RowError(f"{where}: id {key!r} is that of {seen[key]} too; make the ids differ")
    seen[key] = where
    bounds = source.difficulty_min or source.difficulty_max
    late = source.label or not bounds  # labelled questions are weighed once they are labelled
    return question if late else difficulty_fault(question["difficulty"], source) or question


# ---- the layouts: each reader gives the columns it has, or a reason


def _read_numina(row: dict, where: str) -> dict | str:
    solution = row["solution"]
    if not isinstance(solution, str) or "boxed" not in solution:
        return "no box in the written solution"  # as Sky-T1 filtered
    gold = _boxed(solution)
    if gold is None:
        return "no whole box in the written solution"
    kind = infer_kind(gold)
    return {"problem": row["problem"], "kind": kind, "gold": gold, "reference": solution}


def _boxed(solution: str) -> str | None:
    answer, way = extract_math(solution)
    return answer if answer and way == "last box" else None


def _read_still2(row: dict, where: str) -> dict | str:
    trace = row["combined_text"] if isinstance(row["combined_text"], str) else ""
    gold = _boxed(chat.split(trace).solution)
    kind = infer_kind(gold) if gold else "math"  # without a gold answer it is asked, never judged
    return {"problem": row["question"], "kind": kind, "gold": gold, "reference": trace or None}


def _read_code(row: dict, where: str) -> dict | str:
    tests = read_tests(row["input_output"])
    if isinstance(tests, str):
        return tests
    starter = row["starter_code"] or None
    return {"problem": row["question"], "kind": "code", "tests": tests, "starter_code": starter}


def _read_livecodebench(row: dict, where: str) -> dict | str:
    tests = code.read_tests(row, where)
    if not tests:
        return "no tests"
    starter = row.get("starter_code") or None
    return {
        "problem": row["question_content"], "kind": "code", "tests": tests, "starter_code": starter,
    }  # fmt: skip


def read_tests(value: Any) -> list[dict] | str:
    """APPS and TACO's `input_output` (JSON text) as tests, or why it has none to be used.

    With `fn_name` a test is a call: the argument list and the expected value exactly as published.
    Many published values are wrapped in a list of one; APPS's own runner accepts a result equal to
    the value or to its first item, so the judge decides. Otherwise a test is standard input and
    output; a list of lines is joined.
    """
    if not value:
        return "no tests"
    if isinstance(value, str) and len(value) > MAX_TESTS:
        return f"tests of more than {MAX_TESTS // 1_000_000} million characters"
    try:
        tests = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):  # also whole numbers of more than 4300 digits
        return "tests that cannot be decoded"
    inputs, outputs = (
        tests.get(key) if isinstance(tests, dict) else None for key in ("inputs", "outputs")
    )
    if not isinstance(inputs, list) or not isinstance(outputs, list):
        return "tests without inputs and outputs" if tests else "no tests"
    if len(inputs) != len(outputs):
        return "as many inputs as outputs are wanted"
    if not inputs:
        return "no tests"
    if name := tests.get("fn_name"):
        if not all(isinstance(arguments, list) for arguments in inputs):
            return "a call without an argument list"
        pairs = zip(inputs, outputs, strict=True)
        calls = ({"fn_name": name, "input": given, "output": wanted} for given, wanted in pairs)
        return [{**call, "wrapped": True} for call in calls]
    texts = [(_lines(given), _lines(wanted)) for given, wanted in zip(inputs, outputs, strict=True)]
    if any(None in pair for pair in texts):
        return "standard input or output that is no text"
    return [{"input": given, "output": wanted} for given, wanted in texts]


def _lines(value: Any) -> str | None:
    if isinstance(value, list) and all(isinstance(line, str | int | float) for line in value):
        return "\n".join(map(str, value))
    return value if isinstance(value, str) else None


def _read_own(row: dict, where: str) -> dict | str:
    gold, tests = row.get("gold", row.get("answer")), row.get("tests")
    if isinstance(gold, int | float) and not isinstance(gold, bool):
        gold = str(gold)
    if gold is not None and (not isinstance(gold, str) or not gold.strip()):
        return "an answer that is no text or number"
    kind = row.get("kind") or ("code" if tests else infer_kind(gold or ""))
    if kind not in GRADERS:
        raise RowError(f"{where}: kind {kind!r}; one of {', '.join(GRADERS)} is wanted")
    if kind == "code" and not (isinstance(tests, list) and tests):
        return "no tests"
    kept = {name: row[name] for name in (*COLUMNS, "source") if row.get(name) is not None}
    if type(kept.get("difficulty")) is not int:
        kept["difficulty"] = None  # words of another scale
    problem = row.get("problem") or row.get("question")
    return {**kept, "problem": problem, "kind": kind, "gold": gold}


LAYOUTS: dict[str, tuple[tuple[str, ...], Callable[[dict, str], dict | str]]] = {
    "numina": (("problem", "solution"), _read_numina),
    "apps": (("question", "input_output", "starter_code"), _read_code),
    "taco": (("question", "input_output", "starter_code"), _read_code),
    "livecodebench": (("question_content", "public_test_cases"), _read_livecodebench),
    "still2": (("question", "combined_text"), _read_still2),
    "questions": (("problem|question",), _read_own),
}

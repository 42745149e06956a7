"""Import published sets of long traces: told by their columns, written as our training rows.

    row = {"id", "source", "system"?, "conversations": [user, assistant, ...], "gold"?, "kind"?}

Texts are not changed. A reply keeps the tags it was written in; a thought that has a column of its
own is put into <think> tags. What cannot be a training row is yielded as a drop with a reason.

Where the columns were seen; no set could be opened here, so what the texts hold is by report only:

| form | sets | columns seen in |
|---|---|---|
| conversations | Sky-T1_data_17k, Bespoke-Stratos-17k, OpenThoughts-114k | dataset_info of copies |
|  | OpenThoughts3-1.2M (no system prompt; roles human and gpt) | dataset_info of a copy |
| openr1 | OpenR1-Math-220k | dataset_info of a copy |
| openthoughts | OpenThoughts-114k, config metadata | dataset card |
| s1k_1_1, s1k | s1K-1.1, s1K | dataset_info of copies |
| still2 | long_form_thought_data_5k | the format page of its repository |
| limo | LIMO; most texts are said to end with "**Final Answer**" and a box | code that reads it |
| responses | stored answers: problem or question, response, gold | opened |
"""

import difflib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.hub import read_source
from longcot import chat, rows
from longcot.answers import infer_kind
from longcot.errors import RowError
from longcot.grade import extract_math, find_boxes


@dataclass(frozen=True)
class Published:
    """Where a set lies on the hub. No revision is pinned, for none could be looked at."""

    repository: str
    config: str | None = None
    split: str = "train"
    revision: str = "main"


PUBLISHED = {
    "sky_t1_17k": Published("NovaSky-AI/Sky-T1_data_17k"),
    "stratos_17k": Published("bespokelabs/Bespoke-Stratos-17k"),
    "openthoughts_114k": Published("open-thoughts/OpenThoughts-114k", "default"),
    "openthoughts_114k_metadata": Published("open-thoughts/OpenThoughts-114k", "metadata"),
    "openthoughts3": Published("open-thoughts/OpenThoughts3-1.2M"),
    "openr1_math": Published("open-r1/OpenR1-Math-220k", "default"),
    "s1k": Published("simplescaling/s1K"),
    "s1k_1_1": Published("simplescaling/s1K-1.1"),
    "limo": Published("GAIR/LIMO"),
    "still2": Published("RUC-AIBOX/long_form_thought_data_5k"),
}


def import_rows(
    name_or_path: str,
    *,
    revision: str | None = None,
    split: str | None = None,
    config: str | None = None,
) -> Iterator[tuple[dict | None, str]]:
    """Yield (training row, "") or (None, reason) for every row of a published set, in order.

    Read from the hub by a name of PUBLISHED or by `owner/name`, or from a local copy of its files.
    Raises RowError for an unknown name, unknown columns and an empty file.
    """
    known = PUBLISHED.get(name_or_path)
    if known is None and not rows.is_local(name_or_path) and name_or_path.count("/") != 1:
        near = difflib.get_close_matches(name_or_path, PUBLISHED, 1)
        raise RowError(
            f"{name_or_path}: no such set{f', did you mean {near[0]!r}?' if near else ''}; known: "
            f"{', '.join(PUBLISHED)}, a hub id owner/name, or a file ({', '.join(rows.SUFFIXES)})"
        )
    place = known or Published(name_or_path)
    found = read_source(
        place.repository,
        revision or place.revision,
        split or place.split,
        config or place.config,
    )
    name = name_or_path if known else Path(name_or_path).name
    for suffix in rows.SUFFIXES:
        name = name.removesuffix(suffix)
    yield from convert(found, name, name_or_path)


def convert(
    found: Iterable[tuple[str, dict]], name: str, path: str
) -> Iterator[tuple[dict | None, str]]:
    """Turn (file:line, row) into training rows or drops; the first row's columns tell the form.

    A row without an id of its own gets `<name>-<row number>`, one without a source `name`.
    """
    form = None
    for number, (where, row) in enumerate(found, 1):
        form = form or _recognise(row, where)
        columns, read = FORMS[form]
        missing = [wanted for wanted in columns if not _has(row, wanted)]
        if missing:
            raise RowError(
                f"{where}: column {', '.join(missing)} is missing, which the rows before have "
                f"(form {form}); found {', '.join(row)}"
            )
        made = _finish(read(row), row, f"{name}-{number:06d}", name, where)
        if isinstance(made, str):
            yield None, made
        else:
            yield made, ""
    if form is None:
        raise RowError(f"{path}:1: no rows in it; check the file or the split")


def _has(row: dict, wanted: str) -> bool:
    return any(name in row for name in wanted.split("|"))


def _recognise(row: dict, where: str) -> str:
    for form, (columns, _) in FORMS.items():
        if all(_has(row, wanted) for wanted in columns):
            return form
    known = "; ".join(f"{form}: {', '.join(c)}" for form, (c, _) in FORMS.items())
    found = ", ".join(map(str, row)) or "(none)"
    raise RowError(f"{where}: columns {found} are no known form ({known.replace('|', ' or ')})")


def _finish(made: dict | str, row: dict, key: str, name: str, where: str) -> dict | str:
    """Check what a reader made as training would, and give it id, source and kind."""
    if isinstance(made, str):
        return made
    own = next((row[c] for c in ("id", "uuid") if isinstance(row.get(c), str) and row[c]), key)
    source = row.get("source")
    try:
        trace = rows.to_trace({**made, "source": source or name}, where, name)
    except RowError as error:  # one bad row of many; its columns were right
        return str(error).removeprefix(f"{where}: ")
    format = chat.told_format(trace.turns[-1][1])
    if fault := chat.fault(trace, "think" if trace.thinking else format):
        return fault
    turns = [{"from": role, "value": text} for role, text in trace.turns]
    if trace.thinking:
        turns[-1]["value"] = chat.lay_out(trace.thinking, trace.turns[-1][1], "think")
    result = {"id": own, "source": trace.source}
    if trace.system is not None:
        result["system"] = trace.system
    result["conversations"] = turns
    gold = "" if isinstance(made.get("gold"), list | bool | None) else str(made["gold"])
    if gold.strip():
        result["gold"] = gold
    if kind := made.get("kind") or (gold.strip() and infer_kind(gold)):
        result["kind"] = kind
    return result


# ---- the forms: each reader gives conversations and gold, or the reason why it cannot


def _talk(problem: Any, reply: Any, gold: Any = None, **more: Any) -> dict | str:
    if not isinstance(problem, str) or not problem.strip():
        return "no problem text"
    turns = [{"from": "user", "value": problem}, {"from": "assistant", "value": reply}]
    return {"conversations": turns, "gold": gold, **more}


def _think(problem: Any, thought: Any, solution: Any, gold: Any = None, **more: Any) -> dict | str:
    if not isinstance(thought, str) or not thought.strip():
        return "empty thought"
    if not isinstance(solution, str) or not solution.strip():
        return "empty solution"
    return _talk(problem, chat.lay_out(thought, solution, "think"), gold, **more)


def _read_conversations(row: dict) -> dict | str:
    kept = ("conversations", "messages", "system", "gold", "kind")
    return {name: row[name] for name in kept if name in row}


def _read_openr1(row: dict) -> dict | str:
    """The first generation that is complete and that either of the set's two judges (math-verify, an
    instruct model) found correct."""
    generations, finished = row["generations"] or [], row["is_reasoning_complete"] or []
    judges = [row.get("correctness_math_verify") or [], row.get("correctness_llama") or []]
    complete = [
        (number, text)
        for number, text in enumerate(generations)
        if isinstance(text, str) and number < len(finished) and finished[number]
    ]
    if not complete:
        return "no complete generation"
    for number, text in complete:
        if any(number < len(judged) and judged[number] for judged in judges):
            return _talk(row["problem"], text, row["answer"])
    return "no complete generation was judged correct"


def _read_openthoughts(row: dict) -> dict | str:
    is_code = row.get("domain") == "code"
    gold = None if is_code else _boxed(row.get("ground_truth_solution"))
    problem = row["problem"]
    if isinstance(problem, str) and row.get("starter_code"):
        problem = f"{problem}\n\n{row['starter_code']}"
    kind = {"kind": "code"} if is_code else {}
    return _think(problem, row["deepseek_reasoning"], row["deepseek_solution"], gold, **kind)


def _boxed(solution: Any) -> str | None:
    answer, way = extract_math(solution) if isinstance(solution, str) else (None, "")
    return answer if way == "last box" else None


def _read_s1k(row: dict) -> dict | str:
    """s1K-1.1's DeepSeek trace, or s1K's Gemini trace. `solution` is an answer or a whole solution."""
    thought = row.get("deepseek_thinking_trajectory")
    solution = row.get("deepseek_attempt", row.get("attempt"))
    if thought is None:
        thought = next(iter(row.get("thinking_trajectories") or []), None)
    gold = row.get("solution")
    if isinstance(gold, str):
        is_answer = "\n" not in gold.strip() and len(gold) <= 60
        gold = _boxed(gold) or (gold if is_answer else None)
    return _think(row["question"], thought, solution, gold)


_HEADING = re.compile(
    r"^[^\w\n]{0,40}final answer[^\w\n]{0,40}(?:\\boxed.*)?$", re.IGNORECASE | re.MULTILINE
)


def _read_limo(row: dict) -> dict | str:
    """LIMO's solution is one plain text without tags. It is cut, never changed: at the last heading
    "Final Answer" if the next box is in the last box's paragraph, else before that paragraph."""
    text = row["solution"] if isinstance(row["solution"], str) else ""
    if chat.told_format(text) != "plain":
        return _talk(row["question"], text, row["answer"])
    starts = [start for start, _, _ in find_boxes(text)]
    if not starts:
        return "no box, so no place to cut the thought from the solution"
    paragraph = text.rfind("\n\n", 0, starts[-1])
    headings = [found.start() for found in _HEADING.finditer(text) if found.start() < starts[-1]]
    is_last = headings and min(s for s in starts if s > headings[-1]) > paragraph
    cut = headings[-1] if is_last else paragraph
    if not text[: max(cut, 0)].strip():
        return "one paragraph, so no place to cut the thought from the solution"
    return _think(row["question"], text[:cut], text[cut:], row["answer"])


def _read_still2(row: dict) -> dict | str:
    return _talk(row["question"], row["combined_text"])


def _read_response(row: dict) -> dict | str:
    problem, gold = row.get("problem", row.get("question")), row.get("gold")
    return _talk(problem, row["response"], gold, kind=row.get("kind"))


# The first form whose columns a row has is its form, so the most telling come first.
FORMS: dict[str, tuple[tuple[str, ...], Callable[[dict], dict | str]]] = {
    "openr1": (("problem", "answer", "generations", "is_reasoning_complete"), _read_openr1),
    "openthoughts": (("problem", "deepseek_reasoning", "deepseek_solution"), _read_openthoughts),
    "s1k_1_1": (("question", "deepseek_thinking_trajectory", "deepseek_attempt"), _read_s1k),
    "s1k": (("question", "thinking_trajectories", "attempt"), _read_s1k),
    "still2": (("question", "combined_text"), _read_still2),
    "responses": (("problem|question", "response"), _read_response),
    "conversations": (("conversations|messages",), _read_conversations),
    "limo": (("question", "solution", "answer"), _read_limo),
}

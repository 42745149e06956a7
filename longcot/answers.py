"""Read stored answers, ours or another harness's, and judge them without a model.

The form of a file is told by its columns, never by its name. Ids and order stay as they are; a
row that holds several responses gives one answer each, numbered by `sample`.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from longcot import metrics, rows
from longcot.errors import AnswerError
from longcot.grade import GRADERS, Verdict, find_boxes, judge_many


@dataclass(frozen=True)
class Answer:
    """One stored response. `gold` is a text, or the list of tests of a code row."""

    id: Any  # as in the file
    kind: str
    gold: Any
    response: str
    finish_reason: str | None = None
    meta: dict = field(default_factory=dict)  # task, sample, format, tokens, where


# ---- the forms: each reader turns one row into answers


def _read_own(row: dict, where: str) -> Iterator[Answer]:
    is_code = row.get("kind") == "code" or "gold" not in row
    gold = row["tests"] if is_code and "tests" in row else row.get("gold")
    if isinstance(gold, int | float) and not isinstance(gold, bool):
        gold = _as_text(gold, where)
    kind = row.get("kind") or ("code" if is_code else infer_kind(str(gold)))
    if kind not in GRADERS:
        raise AnswerError(f"{where}: kind {kind!r}; one of {', '.join(GRADERS)} is wanted")
    keep = {name: row[name] for name in ("task", "sample", "format", "tokens") if name in row}
    yield Answer(row["id"], kind, gold, row["response"], row.get("finish_reason"), keep)


def _read_qwen(row: dict, where: str) -> Iterator[Answer]:
    gold = _find_gold(row, where, "gt", "gold", "answer")
    responses = row["code"] if "code" in row else row["responses"]
    yield from _several(row.get("idx", row.get("id")), gold, responses, where)


def _read_skythought(row: dict, where: str) -> Iterator[Answer]:
    gold = _find_gold(
        row, where, "answer", "final_answer", "Answer", "gt", "gold", "Correct Answer"
    )
    found = row["responses"]
    found = list(found.values()) if isinstance(found, dict) else found  # older: by temperature
    usages = row.get("token_usages") or []
    usages = list(usages.values()) if isinstance(usages, dict) else usages
    tokens = [u.get("completion_tokens") for u in usages if isinstance(u, dict)]
    texts = [item["content"] if isinstance(item, dict) else item for item in found]
    yield from _several(row["_key"], gold, texts, where, tokens)


def _read_lm_eval(row: dict, where: str) -> Iterator[Answer]:
    found = row.get("raw_resps") or row["resps"]
    texts = found[0] if found and isinstance(found[0], list) else found
    if not all(isinstance(text, str) for text in texts):
        raise AnswerError(
            f"{where}: this lm-evaluation-harness task stored log-likelihoods, no text; only "
            "generative tasks can be judged again"
        )
    target = row["target"]
    if target in ("", None, []):
        target = _find_gold(row["doc"], where, "answer", "Answer", "solution")
    yield from _several(row["doc_id"], read_gold(target, where), texts, where)


def _read_lighteval(row: dict, where: str) -> Iterator[Answer]:
    doc, reply = (
        _as_object(row.get(name, row.get(f"__{name}__"))) for name in ("doc", "model_response")
    )
    choices, index = list(doc["choices"]), doc["gold_index"]
    index = index[0] if isinstance(index, list) else index
    several = len(choices) > 1 and index < 10
    gold = "ABCDEFGHIJ"[index] if several else read_gold(choices[index], where)
    tokens = [len(ids) for ids in reply.get("output_tokens") or [] if isinstance(ids, list)]
    task = {"task": doc["task_name"]} if doc.get("task_name") else {}
    yield from _several(doc.get("id") or row["_number"], gold, reply["text"], where, tokens, task)


def _read_old_lighteval(row: dict, where: str) -> Iterator[Answer]:
    gold, texts = _as_object(row["gold"]), _as_object(row["predictions"])
    yield from _several(row["_number"], read_gold(gold, where), texts, where)


@dataclass(frozen=True)
class Form:
    """A file form: the columns that make it out, and its reader."""

    name: str
    columns: tuple[tuple[str, ...], ...]  # one of each group must be there
    read: Callable[[dict, str], Iterator[Answer]]


FORMS = (
    Form("our answers", (("id",), ("gold", "tests"), ("response",)), _read_own),
    Form("SkyThought results.json", (("_key",), ("responses",)), _read_skythought),
    Form(
        "Qwen2.5-Math output",
        (("idx", "id"), ("question",), ("gt", "gold", "answer"), ("code", "responses")),
        _read_qwen,
    ),
    Form(
        "lm-evaluation-harness samples",
        (("doc_id",), ("doc",), ("target",), ("resps",)),
        _read_lm_eval,
    ),
    Form(
        "lighteval details",
        (("doc", "__doc__"), ("model_response", "__model_response__")),
        _read_lighteval,
    ),
    Form(
        "lighteval details (2024)",
        (("predictions",), ("gold",), ("full_prompt", "example")),
        _read_old_lighteval,
    ),
)


def _several(
    id: Any, gold: str, texts: Any, where: str, tokens: list | tuple = (), keep: dict | None = None
) -> Iterator[Answer]:
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(texts, list) or not texts or not all(isinstance(t, str) for t in texts):
        raise AnswerError(f"{where}: the responses are {texts!r:.60}; a list of texts is wanted")
    for sample, text in enumerate(texts):
        meta = dict(keep or {})
        if len(texts) > 1:
            meta["sample"] = sample
        if len(tokens) == len(texts):
            meta["tokens"] = tokens[sample]
        yield Answer(id, infer_kind(gold), gold, text, None, meta)


def infer_kind(gold: str) -> str:
    """Other harnesses do not store a kind: a lone letter A to J is a choice, the rest is math."""
    return "choice" if re.fullmatch(r"\s*\(?[A-J]\)?\s*", gold) else "math"


def read_gold(value: Any, where: str) -> str:
    """A harness's target as a gold answer: the first of a list, what follows "####", the last box
    of a whole solution, without a leading "ANSWER:"."""
    if isinstance(value, list) and value:
        value = value[0]
    text = _as_text(value, where)
    text = re.sub(r"^\s*ANSWER:\s*", "", text.rpartition("####")[2]).strip()
    boxes = find_boxes(text)
    return boxes[-1][2].strip() if boxes else text


def _find_gold(row: dict, where: str, *names: str) -> str:
    for name in names:
        if row.get(name) not in (None, "", []):
            return read_gold(row[name], where)
    raise AnswerError(
        f"{where}: no gold answer; one of {', '.join(names)} is wanted, found {', '.join(row)}"
    )


def _as_text(value: Any, where: str) -> str:
    value = int(value) if isinstance(value, float) and value.is_integer() else value
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise AnswerError(f"{where}: the gold answer is {value!r:.60}; text or a number is wanted")
    return str(value)


def _as_object(value: Any) -> Any:
    """Nested columns of a Parquet file may have been stored as JSON text."""
    return json.loads(value) if isinstance(value, str) and value[:1] in "[{" else value


# ---- one file


def read_answers(path: str | Path) -> Iterator[Answer]:
    """The answers of a file in order; AnswerError or rows.RowError name file and line."""
    form, filters = None, {}
    for number, (where, row) in enumerate(_read_file(str(path))):
        row = {**row, "_number": number}
        if form is None:
            form = _find_form(row, where)
        if missing := _missing(form, row):
            raise AnswerError(
                f"{where}: column {missing} is missing; the file began as {form.name}"
            )
        if form.read is _read_lm_eval:  # writes a response once per filter; one row is enough
            chosen = filters.setdefault(row["doc_id"], row.get("filter"))
            if chosen != row.get("filter"):
                continue
        yield from form.read(row, where)
    if form is None:
        raise AnswerError(f"{path}:1: no rows in it")


def _read_file(path: str) -> Iterator[tuple[str, dict]]:
    if not path.endswith(".json"):
        yield from rows.read_rows(path)
        return
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise AnswerError(f"{path}:{error.lineno}: broken JSON ({error.msg})") from None
    except (OSError, UnicodeDecodeError) as error:
        raise AnswerError(f"{path}: cannot be read: {error}") from None
    keyed = isinstance(value, dict) and value and all(isinstance(v, dict) for v in value.values())
    items = value.items() if keyed else enumerate(value if isinstance(value, list) else [value])
    for key, row in items:
        if not isinstance(row, dict):
            raise AnswerError(f"{path}: entry {key}: an object is wanted, found {row!r:.40}")
        yield f"{path}: entry {key}", ({**row, "_key": key} if keyed else row)


def _missing(form: Form, row: dict) -> str | None:
    for group in form.columns:
        if not any(name in row for name in group):
            return " or ".join(group)
    return None


def _find_form(row: dict, where: str) -> Form:
    for form in FORMS:
        if _missing(form, row) is None:
            return form
    accepted = "; ".join(
        f"{form.name} ({', '.join('|'.join(group) for group in form.columns)})" for form in FORMS
    ).replace("_key", "an object by index")
    found = ", ".join(name for name in row if not name.startswith("_") or name.startswith("__"))
    raise AnswerError(
        f"{where}: columns {found or '(none)'} are no known form; accepted: {accepted}"
    )


def score_file(path: str | Path, out: str | Path, *, workers: int | None = None) -> dict:
    """Judge every answer of `path`, write one line each to `out` (id, status, correct, extracted,
    reason; sample where there are several), in input order and only when all are judged, and
    return the figures of `metrics.summarise`, by task when the file names several."""
    if Path(path).resolve() == Path(out).resolve():
        raise AnswerError(f"{out}: the verdicts would overwrite the answers; give another --out")
    answers = list(read_answers(path))
    judged = list(
        judge_many(
            (
                (a.kind, a.gold, a.response, a.meta.get("format", "auto"), a.finish_reason)
                for a in answers
            ),
            workers=workers,
        )
    )
    rows.write_jsonl(out, (_line(a, verdict) for a, verdict in zip(answers, judged, strict=True)))
    tasks: dict = {}
    for answer, verdict in zip(answers, judged, strict=True):
        tasks.setdefault(answer.meta.get("task"), []).append((answer, verdict))
    figures = {task: _summary(pairs) for task, pairs in tasks.items()}
    if len(figures) == 1:
        return next(iter(figures.values()))
    return {"tasks": {str(task): summary for task, summary in figures.items()}}


def _line(answer: Answer, verdict: Verdict) -> dict:
    line = {"id": answer.id}
    for name in ("task", "sample"):
        if name in answer.meta:
            line[name] = answer.meta[name]
    extracted, reason = (  # half a surrogate pair cannot be written as UTF-8
        text and text.encode("utf-8", "replace").decode()
        for text in (verdict.extracted, verdict.reason)
    )
    line |= {"status": verdict.status, "correct": verdict.correct}
    return line | {"extracted": extracted, "reason": reason}


def _summary(pairs: list[tuple[Answer, Verdict]]) -> dict:
    problems: dict = {}
    for answer, verdict in pairs:
        problems.setdefault(json.dumps(answer.id), []).append(verdict)
    tokens = [a.meta["tokens"] for a, _ in pairs if isinstance(a.meta.get("tokens"), int)]
    return metrics.summarise(problems, tokens=tokens if len(tokens) == len(pairs) else ())

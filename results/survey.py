"""Trace statistics of answers files: python -m results.survey FILE... [--tokenizer PATH]

Reads stored answers in any form that `eval.py score` takes, and training rows. Prints one table and
writes one record a file, results/surveys/<name>.json; the same input gives the same bytes.
"""

import argparse
import platform
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from longcot import rows, survey
from longcot.errors import AnswerError, plainly

SURVEYS = Path(__file__).parent / "surveys"
PUBLISHED = Path(__file__).parent / "published.yaml"
BATCH = 64  # texts tokenised at a time
SHORT = "Sky-T1-math-correct-5K-32B-short-ckpts--math500"
LONG = "Sky-T1-math-correct-5K-32B-ckpts__checkpoint-133--aime24"
# Surveys beside cells of the paper: (name, table and row in published.yaml, task, whether the same)
CELLS = [
    (SHORT, "lengths", "short", "math500", "the same run"),
    (LONG, "lengths", "correct", "aime24", "another run of the same accuracy"),
    (LONG, "damage", "correct", "aime24", "another run"),
]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m results.survey",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="+", metavar="FILE")
    parser.add_argument("--tokenizer", metavar="PATH", help="folder or tokenizer.json; else the "
                        "rows' own `tokens` are taken, else words")  # fmt: skip
    parser.add_argument("--verdicts", metavar="FILE", action="append", default=[],
                        help="what `eval.py` wrote on FILE; as many of them, in the same order")  # fmt: skip
    parser.add_argument("--out", metavar="FOLDER", type=Path, default=SURVEYS)
    parser.add_argument("--name", help="of the record, for a single FILE; else the file's own")
    arguments = parser.parse_args()
    with plainly():
        write_surveys(arguments)


def write_surveys(arguments: argparse.Namespace) -> None:
    files, verdicts = arguments.files, arguments.verdicts
    if verdicts and len(verdicts) != len(files):
        raise AnswerError(f"{len(verdicts)} --verdicts for {len(files)} files; one for each wanted")
    if arguments.name and len(files) > 1:
        raise AnswerError("--name is for one file; several keep their own names")
    names = [arguments.name or name_of(path) for path in files]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise AnswerError(f"two files would be written as {twice}; survey them one by one, --name")
    records = []
    for path, name, told in zip(files, names, verdicts or [None] * len(files), strict=True):
        records.append(survey_file(path, name, tokenizer=arguments.tokenizer, verdicts=told))
        rows.write_json(arguments.out / f"{name}.json", records[-1])
    print("\n".join(table(records)))


def name_of(path: str) -> str:
    """A file's name without suffix; for the answers of a run, `<run>--<task>`."""
    file = Path(path)
    stem = file.name.removesuffix(".gz").rpartition(".")[0] or file.name
    return f"{file.parents[1].name}--{stem}" if file.parent.name == "answers" else stem


# ---- one file


def survey_file(
    path: str, name: str, *, tokenizer: str | None = None, verdicts: str | None = None
) -> dict[str, Any]:
    """The record of a file: what was read and how, the figures of all its answers and, where
    verdicts are known, of the right and the wrong ones. Raises AnswerError or RowError."""
    found = list(_measure(survey.read_entries(path, verdicts), tokenizer))
    unit = "tokens" if all(one.length["tokens"] is not None for one in found) else "words"
    source = _tokenizer_file(tokenizer).parent.name if tokenizer else "told by the file"
    packages = ("numpy", "tokenizers") if tokenizer else ("numpy",)
    judged = {True: "right", False: "wrong"}
    parts = {part: [one for one in found if one.correct is said] for said, part in judged.items()}
    return {
        "name": name,
        "file": Path(path).name,
        "sha256": rows.hash_file(path),
        "n": len(found),
        "settings": {
            "unit": unit,
            "counted_by": source if unit == "tokens" else "white space",
            "tokenizer": rows.hash_file(_tokenizer_file(tokenizer)) if tokenizer else None,
            "verdicts": Path(verdicts).name if verdicts else "of the file" if any(parts.values()) else None,
            "loop": {"repeats": survey.REPEATS, "characters": survey.CHARACTERS},
        },
        "versions": {"python": platform.python_version(), **{p: version(p) for p in packages}},
        "all": survey.summarise(found, unit),
        **{part: survey.summarise(of, unit) if of else None for part, of in parts.items()},
    }  # fmt: skip


def _measure(entries: Iterable[survey.Entry], tokenizer: str | None) -> Iterator[survey.Measure]:
    if tokenizer is None:
        yield from map(survey.measure, entries)
        return
    from tokenizers import Tokenizer

    counter, entries = Tokenizer.from_file(str(_tokenizer_file(tokenizer))), iter(entries)
    while batch := list(islice(entries, BATCH)):
        # Half a surrogate pair is no UTF-8.
        texts = [one.text.encode("utf-8", "replace").decode() for one in batch]
        found = counter.encode_batch_fast(texts, add_special_tokens=False)
        yield from (survey.measure(one, len(ids)) for one, ids in zip(batch, found, strict=True))


def _tokenizer_file(path: str) -> Path:
    file = Path(path) / "tokenizer.json" if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise AnswerError(f"--tokenizer {path}: no tokenizer.json there")
    return file.resolve()


# ---- pages


def read_records(folder: Path = SURVEYS) -> list[dict[str, Any]]:
    """Every survey in a folder, by name."""
    return [rows.read_json(path) for path in sorted(folder.glob("*.json"))]


COLUMNS = {
    "length": "length: mean [95%]",
    "median": "median / p90 / max",
    "keywords": "reflection words",
    "keywords_per_1000": "per 1,000",
    "steps": "steps of a thought",
    "kinds": "reflective steps",
    "loops": "loops",
    "unclosed_thoughts": "open thoughts",
    "unclosed_solutions": "open solutions",
    "out_of_tokens": "out of tokens",
    "opens_with_reflection": "opens with a reflection word",
    "boxed": "boxed",
    "accuracy": "accuracy",
}


def table(records: Sequence[dict], part: str = "all") -> list[str]:
    """Markdown: a row for each record, of all its answers or of its "right" or "wrong" ones."""
    columns = [name for name in COLUMNS if part == "all" or name != "accuracy"]
    lines = _header("file", "n", "unit", *(COLUMNS[name] for name in columns))
    for record in records:
        if figures := record[part]:
            unit = record["settings"]["unit"]
            cells = [_tell(figures, name) for name in columns]
            lines.append(_line(f"`{record['name']}`", str(figures["n"]), unit, *cells))
    return lines


def _tell(figures: dict, column: str) -> str:
    if column == "median":
        return " / ".join(f"{figures['length'][name]:,.0f}" for name in ("median", "p90", "max"))
    found = figures[column]
    if found is None:
        return "-"
    if column == "keywords_per_1000":
        return f"{found:.2f}"
    if column == "kinds":
        return f"{100 * (1 - found['other']):.1f}%"
    low, high = found["interval"]
    if "count" in found:
        return f"{100 * found['mean']:.1f}% [{100 * low:.1f}, {100 * high:.1f}]"
    digits = 0 if column == "length" else 2
    return f"{found['mean']:,.{digits}f} [{low:,.{digits}f}, {high:,.{digits}f}]"


def markdown(records: Sequence[dict]) -> list[str]:
    """The section of a page on some surveys: all answers, right and wrong ones, kinds of steps,
    loops, and what the paper counted of the same."""
    lines = ["## Trace statistics", "", *LEGEND, "", *table(records)]
    for part in ("right", "wrong"):
        if any(record[part] for record in records):
            lines += ["", f"The {part} answers alone:", "", *table(records, part)]
    kinds = [record for record in records if record["all"]["kinds"]]
    if kinds:
        lines += ["", "Kinds of steps, told by how they open:", ""]
        lines += _header("file", "steps", *survey.KINDS)
        for record in kinds:
            found = record["all"]["kinds"]
            total = record["all"]["steps"]
            cells = [f"{100 * found[kind]:.1f}%" for kind in survey.KINDS]
            lines.append(_line(f"`{record['name']}`", f"{total['mean'] * total['n']:,.0f}", *cells))
    return [*lines, *_loops(records), *_cells(records)]


LEGEND = [
    "`python -m results.survey FILE...`, intervals 95%: Wilson for shares with one answer a problem,",
    "bootstrap over problems otherwise. Reflection words: `longcot/keywords.py`, a reply and 1,000",
    f"tokens (or words). Loop: the end of a reply is one unit said {survey.REPEATS} times or more,",
    f"{survey.CHARACTERS} characters at least. Steps: `longcot/segment.py`, where there is a thought.",
]


def _loops(records: Sequence[dict]) -> list[str]:
    found = [record for record in records if record["all"]["loops"]["count"]]
    if not found:
        return []
    lines = ["", "Loops: where they start, and the median unit that is repeated:", ""]
    lines += _header("file", "loops", "of", "start at", "unit, characters")
    for record in found:
        figures = record["all"]
        start, period = f"{100 * figures['loop_start']:.0f}%", f"{figures['loop_period']:,.0f}"
        counts = str(figures["loops"]["count"]), str(figures["n"])
        lines.append(_line(f"`{record['name']}`", *counts, start, period))
    return lines


def _cells(records: Sequence[dict]) -> list[str]:
    made = {r["name"]: r["all"] for r in records if r["settings"]["unit"] == "tokens"}
    cells = [cell for cell in CELLS if cell[0] in made]
    if not cells:
        return []
    published = yaml.safe_load(PUBLISHED.read_text(encoding="utf-8"))["structure"]
    lines = ["", "Beside the paper's own counts:", ""]
    lines += _header(
        "file", "tokens", "published", "reflection words", "published", "where", "what"
    )
    for name, kind, row, task, what in cells:
        told, figures = published[kind], made[name]
        if kind == "lengths":
            tokens, words = told["cells"][task][row]
        else:
            place = told["tasks"].index(task)
            tokens, words = (told[key][row][place] for key in ("mean_tokens", "keywords"))
        ours = _tell(figures, "length"), _tell(figures, "keywords")
        where = told["source"].partition(";")[0]
        lines.append(
            _line(f"`{name}`", ours[0], f"{tokens:,}", ours[1], f"{words:.2f}", where, what)
        )
    return lines


def _header(*cells: str) -> list[str]:
    return [_line(*cells), "|" + "---|" * len(cells)]


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()

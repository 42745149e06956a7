"""What made a training file: manifest, data card and report beside it."""

from collections import Counter
from functools import partial
from pathlib import Path

from tqdm import tqdm

from data_prep import card, report, stages
from data_prep.mixture import SECTIONS, Mixture, result_settings
from longcot import record, rows


def tally_line(tally: dict) -> str:
    """`stage: rows in, rows out; dropped: reason count, ...`, most frequent reason first."""
    dropped = sorted(tally["dropped"].items(), key=lambda item: (-item[1], item[0]))
    reasons = ", ".join(f"{count:,} x {reason}" for reason, count in dropped) or "none"
    return (
        f"{tally['stage']}: {tally['rows_in']:,} in, {tally['rows_out']:,} out; dropped: {reasons}"
    )


def write_manifest(mixture: Mixture, folder: Path, tallies: list[dict], counts: Counter) -> dict:
    """What made train.jsonl, and its hash."""
    commit, dirty = record.read_commit()
    usage: Counter = Counter()
    for _, row in rows.read_jsonl(folder / "4_sample.jsonl"):
        usage.update(prompt_tokens=row["prompt_tokens"], tokens=row["tokens"])
    manifest = {
        "name": mixture.name,
        "seed": mixture.mix.seed,
        "commit": commit,
        "dirty": dirty,
        "versions": record.read_versions(),
        "recipe": stages.settings_of(mixture, *SECTIONS),
        "teacher": result_settings(mixture.teacher),
        "teacher_tokens": dict(usage),
        "stages": tallies,
        "rows": counts.total(),
        "counts": dict(counts),
        "licences": {name: source.licence for name, source in mixture.sources.items()},
        "sha256": rows.hash_file(folder / "train.jsonl"),
    }
    rows.write_json(folder / "manifest.json", manifest)
    print(f"{folder / 'train.jsonl'}: {counts.total():,} rows, sha256 {manifest['sha256'][:12]}")
    return manifest


def describe(mixture: Mixture, folder: Path, manifest: dict, spread: dict) -> None:
    """The data card and, where the recipe names a student, the report with its picture."""
    found, clean = None, mixture.decontaminate
    if mixture.student and manifest["rows"]:
        found = report.measure(
            str(folder / "train.jsonl"),
            tokenizer_path=mixture.student.tokenizer,
            max_length=mixture.student.max_length,
            benchmarks=list(clean.benchmarks or ()),
            ngram=clean.ngram,
            overlap=clean.overlap,
            near_duplicate=clean.near_duplicate,
            progress=partial(tqdm, desc="report", unit=" rows"),
            **spread,
        )
        report.write(found, folder)
    text = card.data_card(manifest, found)
    rows.write_atomic(folder / "data_card.md", lambda to: to.write_text(text, encoding="utf-8"))
    print(f"{folder}: manifest.json, data_card.md" + (", report.md, report.png" if found else ""))

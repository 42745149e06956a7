"""What was done under each condition, added up, and the page that tells it."""

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from data_prep import matching, sidebyside
from data_prep.conditions import NO_SOLUTION, Cell, Made
from data_prep.matching import Inputs
from longcot import record, rows


@dataclass
class Tally:
    """The figures of one condition, row by row."""

    rows: int = 0
    left_out: int = 0  # rows without a written solution, of `short`
    unchanged: Counter[str] = field(default_factory=Counter)
    units: dict[int, list] = field(default_factory=dict)  # part: unit, of, touched, differs
    compared: int = 0  # rows with steps before and after
    steps: int = 0  # of those, before
    distance: int = 0
    sampled: int = 0
    before: int = 0  # tokens of the sampled replies
    after: int = 0
    formats: Counter[str] = field(default_factory=Counter)
    digest: Any = field(default_factory=hashlib.sha256)
    example: tuple[str, str] | None = (
        None  # the shortest changed reply of the sample, and its change
    )

    def add(self, made: Made, cell: Cell) -> None:
        """Count one row."""
        if not cell.line:
            self.left_out += 1
            return
        self.rows += 1
        self.digest.update(cell.line)
        self.formats[made.format] += 1
        if cell.unchanged:
            self.unchanged[cell.unchanged] += 1
        for part, change in enumerate(cell.changes):
            total = self.units.setdefault(part, [change.unit, 0, 0, 0])
            total[1:] = [a + b for a, b in zip(total[1:], change[1:], strict=True)]
        if cell.distance is not None and made.steps:
            self.compared += 1
            self.steps += made.steps
            self.distance += cell.distance
        if cell.tokens:
            self.sampled += 1
            self.before += made.tokens
            self.after += cell.tokens
        is_short = made.reply and (self.example is None or len(made.reply) < len(self.example[0]))
        if made.reply and cell.reply is not None and is_short:
            self.example = made.reply, cell.reply

    def told(self, format: str) -> dict[str, Any]:
        """The manifest's entry: means are per row; `edited` is the share of the steps."""
        entry: dict[str, Any] = {"rows": self.rows, "chat.format": format}
        entry["unchanged"] = dict(sorted(self.unchanged.items()))
        if self.left_out:
            entry["left_out"] = {NO_SOLUTION: self.left_out}
        names = ("unit", "of", "touched", "differs")
        entry["changes"] = [dict(zip(names, total, strict=True)) for total in self.units.values()]
        if self.compared:
            entry["edit_distance"] = {
                "rows": self.compared,
                "mean_steps": round(self.steps / self.compared, 3),
                "mean": round(self.distance / self.compared, 3),
                "edited": round(self.distance / self.steps, 4),
            }
        if self.sampled:
            means = (round(total / self.sampled, 1) for total in (self.before, self.after))
            entry["tokens"] = {"rows": self.sampled} | dict(zip(("before", "after"), means))
        return entry | {"sha256": self.digest.hexdigest()}


def describe(inputs: Inputs, found: dict[str, Tally], used: dict[str, Any]) -> dict[str, Any]:
    """The manifest: what was made of what, and how; `used` are the tokenizer and the judge."""
    survey, wrong = inputs.survey, inputs.wrong
    commit, dirty = record.read_commit()
    entries = {}
    for variant in inputs.variants:
        tally = found[variant.name]
        of = matching.main_format(tally.formats) if variant.name == "wrong" else survey.format
        entries[variant.name] = tally.told(of if variant.has_thought else "plain")
    manifest: dict[str, Any] = {
        "name": survey.name,
        "file": survey.path,
        "hash": inputs.source,
        "rows": survey.kept,
        "left_out": dict(sorted(survey.left_out.items())),
        "donors": len(survey.donors.steps),
        "commit": commit,
        "dirty": dirty,
        "versions": record.read_versions(),
        **{name: value for name, value in used.items() if value},
        "conditions": entries,
        "not_made": inputs.not_made,
    }
    if wrong:
        manifest["wrong"] = wrong.told()
    if path := inputs.solutions_path:
        told = {"file": path, "hash": rows.hash_source(path, "main")}
        manifest["solutions"] = told | {"matched": len(inputs.solutions)}
    return manifest


def tell(manifest: dict[str, Any], examples: dict[str, tuple[str, str]]) -> str:
    """The report as Markdown: a table of all conditions, what was not done and why, examples."""
    lines = [f"# {manifest['name']} under {len(manifest['conditions'])} conditions", ""]
    left_out = ", ".join(f"{n:,} x {fault}" for fault, n in manifest["left_out"].items())
    lines += [
        f"{manifest['rows']:,} rows of `{manifest['file']}`, {manifest['donors']:,} of them donors of "
        f"steps. Left out everywhere, because training refuses them: {left_out or 'none'}."
    ]
    if wrong := manifest.get("wrong"):
        lines += [
            f"Wrong answers: {wrong['matched']:,} matched by question, {wrong['drawn']:,} drawn of the "
            f"others, {wrong['missing']:,} missing to the number of correct rows; "
            f"{wrong['left_out']:,} of {wrong['rows']:,} left out."
        ]
    lines += [""]
    lines += _table(manifest["conditions"]) + [""]
    for name, why in manifest["not_made"].items():
        lines += [f"Not made: `{name}` {why}."]
    for name, entry in manifest["conditions"].items():
        for why, n in entry.get("left_out", {}).items():
            lines += [f"- `{name}` goes without {n:,} rows: {why}"]
        if reasons := ", ".join(f"{n:,} x {why}" for why, n in entry["unchanged"].items()):
            lines += [f"- `{name}` leaves rows as they are: {reasons}"]
    lines += ["", f"One sampled row each; {sidebyside.MARKS}."]
    for name, (before, after) in examples.items():
        lines += ["", f"## {name}", "", sidebyside.write_markdown(before, after)]
    return "\n".join(lines) + "\n"


COLUMNS = (
    "condition", "chat.format", "rows", "unchanged", "touched", "differ", "steps edited",
    "tokens before", "tokens after",
)  # fmt: skip


def _table(conditions: dict[str, dict]) -> list[str]:
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---" * 2 + "|--:" * (len(COLUMNS) - 2) + "|"]
    for name, entry in conditions.items():
        changes, edited = entry["changes"], entry.get("edit_distance")
        tokens = entry.get("tokens", {"before": "", "after": ""})
        cells = (
            name, entry["chat.format"], f"{entry['rows']:,}", f"{sum(entry['unchanged'].values()):,}",
            ", ".join(f"{c['touched']:,} of {c['of']:,} {c['unit']}" for c in changes),
            ", ".join(f"{c['differs']:,}" for c in changes),
            f"{edited['mean']:.1f} of {edited['mean_steps']:.1f}" if edited else "",
            tokens["before"], tokens["after"],
        )  # fmt: skip
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return lines

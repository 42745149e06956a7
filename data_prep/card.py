"""The pages about a training file: report.md, report.png and data_card.md, generated from figures.

The data card has the layout of the hub's data set cards: a YAML header, then Markdown.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from longcot.plots import BLUE, GREY, ORANGE

COLOURS = (BLUE, ORANGE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe-Ito
SIZES = (("n<1K", 1_000), ("1K<n<10K", 10_000), ("10K<n<100K", 100_000), ("100K<n<1M", 1_000_000))
SHOWN = 30  # sources in a table; report.json has all
MADE_BY = ("difficulty", "teacher", "rewrite", "reject", "decontaminate", "mix")  # recipe sections


def tell(report: dict[str, Any]) -> str:
    """report.md: the figures as tables."""
    rates = ", ".join(f"{w} {rate:.2f}" for w, rate in report["tokens"]["reflection"].items())
    return "\n\n".join(
        [
            f"# What is in {Path(report['file']).name}",
            f"{report['rows']:,} rows, {report['tokens']['sample']['total']:,} tokens of "
            f"{report['tokenizer']}; `{report['hash']}`",
            "![tokens per row](report.png)",
            "## Tokens per row",
            _tell_sources(report),
            f"Reflection words per 1,000 words of the reply: {rates}.",
            _tell_parts(report),
            "Thought and solution are counted with their tags and the end of the turn.",
            "## What a max_length drops",
            _tell_limits(report),
            "Of the rows without a fault; over-long rows are dropped whole.",
            "## Rows to look at",
            _tell_rows(report),
            _tell_systems(report),
            "## Benchmark overlap",
            _tell_overlap(report),
            "",
        ]
    )


def _tell_sources(report: dict[str, Any]) -> str:
    most = sorted(report["sources"].items(), key=lambda item: (-item[1]["rows"], item[0]))
    every = (f"all {len(most):,} sources", {"rows": report["rows"], **report["tokens"]})
    lines = [
        [_cell(name), found["rows"], *found["sample"].values(), sum(found["reflection"].values())]
        for name, found in [*most[:SHOWN], every]
    ]
    return _table(
        "source | rows | tokens | mean | median | p90 | p99 | longest | reflection", lines
    )


def _tell_parts(report: dict[str, Any]) -> str:
    head = "part | tokens | mean | median | p90 | p99 | longest"
    parts = ("sample", "thought", "solution")
    return _table(head, [[part, *report["tokens"][part].values()] for part in parts])


def _tell_limits(report: dict[str, Any]) -> str:
    lines = []
    for limit, lost in report["limits"].items():
        shares = [f"{lost[of]:.1%}" for of in ("share", "tokens_share")]
        lines.append([int(limit), lost["rows"], shares[0], lost["tokens"], shares[1]])
    return _table("max_length | rows | of rows | tokens | of tokens", lines)


def _tell_rows(report: dict[str, Any]) -> str:
    answers, repeats = report["answers"], report["duplicates"]
    found = [(f"malformed: {fault}", seen) for fault, seen in report["malformed"].items()]
    found += [
        ("answer: boxed", {**answers["boxed"], "examples": []}),
        ("answer: a fenced block, no box (code)", answers["code"]),
        ("answer: boxed only in the thought", answers["boxed only in the thought"]),
        ("answer: neither box nor fenced block", answers["neither"]),
        ("the question of an earlier row", repeats["question"]),
        ("question and reply of an earlier row", repeats["question_and_reply"]),
        ("nearly the question of an earlier row", repeats["near_question"]),
    ]
    lines = [
        [_cell(what), seen["rows"], f"{seen['rows'] / report['rows']:.1%}",
         _lines_of(seen["examples"], report["file"])]
        for what, seen in found
    ]  # fmt: skip
    return _table("what | rows | share | lines, for example", lines)


def _tell_systems(report: dict[str, Any]) -> str:
    systems = report["systems"]
    return (
        f"Distinct system prompts: {systems['distinct']:,}; rows without one: "
        f"{systems['rows_without']:,}."
    )


def _tell_overlap(report: dict[str, Any]) -> str:
    overlap = report["overlap"]
    if not overlap["benchmarks"]:
        return "No benchmark was compared."
    lines = [
        [_cell(name), seen["problems"], seen["problems_met"], seen["rows"], f"{seen['share']:.2%}",
         _lines_of(seen["examples"], report["file"])]
        for name, seen in overlap["benchmarks"].items()
    ]  # fmt: skip
    return (
        f"Rows whose question holds at least {overlap['share']:.0%} of a benchmark question's runs "
        f"of {overlap['ngram']} words.\n\n"
        + _table("benchmark | problems | met | rows | share | lines, for example", lines)
    )


def _lines_of(examples: list, file: str) -> str:
    """Examples without the file's name: `4; 9 repeats 7`."""
    told = (one if isinstance(one, str) else " repeats ".join(one) for one in examples)
    return _cell("; ".join(told).replace(f"{file}:", ""))


def _table(head: str, lines: list[list[Any]]) -> str:
    """A Markdown table; columns of figures are set to the right."""
    columns = head.split(" | ")
    body = [[_figure(value) for value in line] for line in lines]
    figures = [
        all(re.fullmatch(r"[\d.,]+%?", line[n]) for line in body) for n in range(len(columns))
    ]
    rule = ["---:" if of_figures else "---" for of_figures in figures]
    return "\n".join(f"| {' | '.join(line)} |" for line in (columns, rule, *body))


def _figure(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")


def draw(report: dict[str, Any], path: Path) -> None:
    """report.png: rows by length in tokens, stacked by source, and the max_length line."""
    from matplotlib.figure import Figure

    width, bars = report["histogram"]["width"], report["histogram"]["rows"]
    most = sorted(bars, key=lambda name: (-sum(bars[name]), name))
    groups = {name: bars[name] for name in most[: len(COLOURS)]}
    if rest := most[len(COLOURS) :]:
        groups[f"{len(rest)} other sources"] = [sum(n) for n in zip(*(bars[name] for name in rest))]
    figure = Figure(figsize=(9, 4.5))
    axis = figure.subplots()
    edges = [width * place for place in range(len(bars[most[0]]))]
    floor = [0] * len(edges)
    for name, colour in zip(groups, (*COLOURS, GREY), strict=False):
        label = name.replace("$", r"\$").lstrip("_")  # no formulas; matplotlib hides "_name"
        axis.bar(edges, groups[name], width, floor, align="edge", color=colour, label=label)
        floor = [low + high for low, high in zip(floor, groups[name], strict=True)]
    limit, longest = report["max_length"], report["tokens"]["sample"]["longest"]
    lost = report["limits"][str(limit)]["rows"]
    axis.axvline(limit, color="black", linestyle="--")
    axis.set_xlim(0, 1.05 * max(longest, limit if limit < 2 * longest else 0))
    axis.set_xlabel("tokens per row")
    axis.set_ylabel("rows")
    malformed = sum(found["rows"] for found in report["malformed"].values())
    title = f"max_length {limit:,} (dashed) drops {lost:,} rows; {malformed:,} more are malformed"
    axis.set_title(title, loc="left")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, format="png", dpi=120, metadata={"Software": None})


# ---- the data card


def data_card(manifest: dict[str, Any], report: dict[str, Any] | None) -> str:
    """data_card.md of a made data set; without a report, without figures in tokens."""
    rows = manifest["rows"]
    parts = [
        _header(manifest),
        f"# {manifest['name']}",
        f"{rows:,} long chain-of-thought traces: a question, a thought and a solution each. "
        "Generated by `data_prep/distill.py`; the same sources, seed and answers give the same file.",
        "## Rows by source",
        _card_sources(manifest),
        "## How the rows were made",
        "Every stage takes what the one before it kept.",
        _card_stages(manifest),
        *_card_settings(manifest),
        "## Decontamination",
        _card_overlap(manifest, report),
    ]
    if report is not None:
        parts += ["## Lengths in tokens", f"Tokenizer: {report['tokenizer']}.",
                  _tell_parts(report), _tell_limits(report)]  # fmt: skip
    parts += ["## Known limits", _card_limits(report), "## Provenance", _card_provenance(manifest)]
    return "\n\n".join(parts) + "\n"


def _header(manifest: dict[str, Any]) -> str:
    size = next((name for name, limit in SIZES if manifest["rows"] < limit), "n>1M")
    stated = any(manifest.get("licences", {}).values())
    tags = [
        "long-chain-of-thought",
        "distillation",
        *(["synthetic"] if manifest["teacher"] else []),
    ]
    lines = [
        "---",
        f"pretty_name: {json.dumps(manifest['name'])}",
        f"license: {'other' if stated else 'unknown'}",
        *(["license_name: by-source"] if stated else []),
        "language:\n- en",
        "task_categories:\n- text-generation",
        f"size_categories:\n- {size}",
        "tags:\n" + "\n".join(f"- {tag}" for tag in tags),
        "configs:\n- config_name: default\n  data_files: train.jsonl",
        "---",
    ]
    return "\n".join(lines)


def _card_sources(manifest: dict[str, Any]) -> str:
    licences = manifest.get("licences", {})
    lines = [[_cell(name), count, _cell(licences.get(name) or "not stated")]
             for name, count in sorted(manifest["counts"].items())]  # fmt: skip
    return _table("source | rows | licence", lines)


def _card_stages(manifest: dict[str, Any]) -> str:
    lines = []
    for stage in manifest["stages"]:
        most = sorted(stage["dropped"].items(), key=lambda item: (-item[1], item[0]))
        reasons = "; ".join(f"{count:,} x {reason}" for reason, count in most)
        lines.append([stage["stage"], stage["rows_in"], stage["rows_out"], _cell(reasons)])
    return _table("stage | rows in | rows out | dropped", lines)


def _card_settings(manifest: dict[str, Any]) -> Iterable[str]:
    sections = {**manifest.get("recipe", {}), "teacher": manifest["teacher"]}
    for name in (name for name in MADE_BY if name in sections):
        section = sections[name] or {}
        told = "; ".join(f"{key} {_short(value)}" for key, value in section.items())
        yield f"**{name}**: {told or 'none'}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return f"`{text}`" if len(text) <= 120 else f"`{text[:100]} ...` ({len(text):,} characters)"


def _card_overlap(manifest: dict[str, Any], report: dict[str, Any] | None) -> str:
    known = next((s for s in manifest["stages"] if s["stage"].endswith("decontaminate")), None)
    told = "No stage removed benchmark questions."
    if known:
        fell = known["rows_in"] - known["rows_out"]
        told = f"{fell:,} of {known['rows_in']:,} questions fell as known or repeated."
    left = _tell_overlap(report) if report else "What is left was not measured."
    return f"{told} In the rows of this file:\n\n{left}"


def _card_limits(report: dict[str, Any] | None) -> str:
    told = [
        "A right final answer does not make every step of a thought right.",
        "Only questions were compared with benchmarks, and only with those named above.",
    ]
    if report is None:
        return "\n".join(f"- {line}" for line in [*told, "Lengths and faults were not measured."])
    malformed = sum(found["rows"] for found in report["malformed"].values())
    limit = report["limits"][str(report["max_length"])]
    facts = {
        "rows with a malformed reply, which training drops": malformed,
        f"further rows above {report['max_length']:,} tokens, which training drops": limit["rows"],
        "rows with the question of an earlier row": report["duplicates"]["question"]["rows"],
        "rows with nearly such a question": report["duplicates"]["near_question"]["rows"],
        "rows whose solution has neither a box nor a fenced block": sum(
            report["answers"][name]["rows"] for name in ("boxed only in the thought", "neither")
        ),
    }
    return "\n".join(
        f"- {line}" for line in [*told, *(f"{n:,} {what}." for what, n in facts.items())]
    )


def _card_provenance(manifest: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in manifest["versions"].items())
    lines = [
        ["train.jsonl, sha256", f"`{manifest['sha256']}`"],
        ["seed", str(manifest["seed"])],
        ["commit", manifest["commit"] + (" with local changes" if manifest.get("dirty") else "")],
        ["versions", versions],
    ]
    return "\n".join(f"- {name}: {value}" for name, value in lines)

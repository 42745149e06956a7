"""The page of `structure`, what in a trace teaches: every condition compared with `correct`.

Each interval has the Bonferroni level of all comparisons of the page, so that they hold together.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from longcot import plots
from longcot.sets import TABLE
from results import cells, survey
from results.cells import (
    NOT_RUN,
    Tasks,
    beside,
    heads,
    number,
    paragraph,
    table_row,
    tell_difference,
)

FAMILYWISE = 0.05  # chance that any of a page's differences lies outside its interval


def compared(page: Mapping) -> list[dict]:
    """The rows that are compared with `correct`."""
    return [row for row in page["rows"] if row["condition"] not in ("base", "correct")]


def find_level(page: Mapping) -> float:
    """The level of each interval at which all of a page's hold together (Bonferroni)."""
    return 1 - FAMILYWISE / len(compared(page))


def find_row(page: Mapping, condition: str) -> dict:
    return next(row for row in page["rows"] if row["condition"] == condition)


def standard_errors(row: Mapping, page: Mapping) -> dict[str, float]:
    """Points by benchmark: binomial, of one greedy answer to each problem of the whole benchmark."""
    return {
        task: math.sqrt(row[task] * (100 - row[task]) / max(TABLE[task].counts))
        for task in page["tasks"]
    }


def error_of_mean(rows: Sequence[Mapping], page: Mapping) -> float:
    """Standard error in points of the mean of benchmarks, or of a difference of two such means."""
    errors = [error for row in rows for error in standard_errors(row, page).values()]
    return math.hypot(*errors) / len(page["tasks"])


def published_gap(row: Mapping, page: Mapping) -> tuple[float, float]:
    """(difference of the published mean from that of `correct`, its standard error), in points."""
    correct = find_row(page, "correct")
    gap = (number(row["average"]) or 0) - (number(correct["average"]) or 0)
    return gap, error_of_mean([row, correct], page)


def is_clear_drop(row: Mapping, page: Mapping) -> bool:
    """Whether the published loss is beyond twice its own standard error."""
    gap, error = published_gap(row, page)
    return gap < -2 * error


def run_of(page: Mapping, condition: str) -> tuple[str, str]:
    """(run, recipe) of a condition at full size."""
    if condition == "base":
        return page["base"], page["base"]
    return f"{page['recipe']}_{condition}", page["recipe"]


def simultaneous(page: Mapping) -> str:
    count, level = len(compared(page)), find_level(page)
    return (
        f"{count} conditions are compared; each interval has the level 1 - {FAMILYWISE}/{count} = "
        f"{level:.2%} (Bonferroni), so that all of them hold together with about {1 - FAMILYWISE:.0%}."
    )


# ---- the 32B sweep


def write_page(runs: Path, page: Mapping, folder: Path) -> str:
    """`structure.md`; its figure is written into `folder`."""
    found = {
        row["condition"]: cells.figures_of(*run_of(page, row["condition"]), runs)
        for row in page["rows"]
    }
    differences = {
        row["condition"]: cells.difference(
            found["correct"], found[row["condition"]], list(page["tasks"]), find_level(page)
        )
        for row in compared(page)
    }
    draw_forest(page, differences, folder / "structure.svg")
    lines = [cells.HEADER, f"# {page['title']}", ""]
    lines += [*table_of_conditions(page, found, differences), "", *noise(page), ""]
    lines += ["![difference of every condition to correct traces](structure.svg)", ""]
    lines += [*table_of_lengths(page, found), "", *tables_of_damage(page, found), ""]
    records = survey.read_records(runs.parent / "surveys")
    lines += survey.markdown(records) if records else ["## Trace statistics", "", f"{NOT_RUN}."]
    names = [run_of(page, row["condition"])[0] for row in page["rows"]]
    lines += ["", *cells.provenance(runs, names)]
    return "\n".join(lines).rstrip() + "\n"


def table_of_conditions(
    page: Mapping, found: Mapping[str, Tasks], differences: Mapping
) -> list[str]:
    """Table 2, and the short solutions of Table 4 as one more condition."""
    tasks = list(page["tasks"])
    lines = [
        "## Conditions",
        "",
        f"Published: {page['source']}.",
        *paragraph(
            f"Ours: `recipes/{page['recipe']}.yaml`, one seed. Accuracy with its 95% interval; of the "
            "mean of four, by a bootstrap over problems within each benchmark. To `correct`: the paired "
            f"difference of that mean on the same problems, in points. {simultaneous(page)}"
        ),
        "",
        *heads("condition", *beside([*page["tasks"].values(), "mean of four", "to `correct`"])),
    ]
    for one in page["rows"]:
        condition = one["condition"]
        ours = found[condition]
        told = [f"{one['label']} (`{run_of(page, condition)[0]}`)"]
        for task in tasks:
            told += [cells.tell(ours.get(task)), one[task]]
        told += [cells.tell(cells.average(ours, tasks)), one["average"]]
        told.append(tell_difference(differences[condition]) if condition in differences else "-")
        told.append("-" if condition == "correct" else f"{published_gap(one, page)[0]:+.1f}")
        lines.append(table_row(*told))
    return lines


def noise(page: Mapping) -> list[str]:
    """What the published numbers can tell, from the binomial alone."""
    correct = find_row(page, "correct")
    errors = standard_errors(correct, page)
    each = ", ".join(f"{name} {errors[task]:.1f}" for task, name in page["tasks"].items())
    clear = [f"`{row['condition']}`" for row in compared(page) if is_clear_drop(row, page)]
    mean, gap = error_of_mean([correct], page), error_of_mean([correct, correct], page)
    return paragraph(
        "**Noise.** The published numbers are of one greedy run each. Their binomial standard errors "
        f"near the scores of `correct` are {each} points: {mean:.1f} on the mean of four, {gap:.1f} on "
        "the difference of two such means. Beyond twice its own error lies the loss of "
        f"{', '.join(clear)}; of the others these numbers tell neither the sign nor the order."
    )


def draw_forest(page: Mapping, differences: Mapping, path: Path) -> None:
    untrained = published_gap(find_row(page, "base"), page)[0]
    plots.plot_forest(
        forest_rows(page, differences),
        path,
        "What damage to the traces costs, Qwen2.5-32B-Instruct",
        "difference to correct traces, mean of four benchmarks, points",
        level=find_level(page),
        marks=[("no training (published)", untrained)],
    )


def forest_rows(page: Mapping, differences: Mapping) -> list[dict[str, Any]]:
    """Every condition's difference, ours and published, for the figure."""
    return [
        {
            "label": one["label"],
            "ours": in_points(differences[one["condition"]]),
            "published": published_gap(one, page),
        }
        for one in compared(page)
    ]


def in_points(found: Mapping | str) -> dict[str, Any] | None:
    if isinstance(found, str):
        return None
    return {
        "difference": 100 * found["difference"],
        "interval": [100 * end for end in found["interval"]],
        "seeds": [100 * value for value in found.get("seeds", {}).values()],
    }


def table_of_lengths(page: Mapping, found: Mapping[str, Tasks]) -> list[str]:
    """Table 4: short and long chains of thought on the same problems."""
    lengths = page["lengths"]
    lines = [
        "## Short and long chains of thought",
        "",
        f"Published: {lengths['source']}. The short set's difference to the long one stands above.",
        "",
        *heads("benchmark", "trained on", *beside(["tokens", "keywords", "solved"])),
    ]
    for task, published in lengths["cells"].items():
        for condition, (tokens, words) in published.items():
            ours = found[condition].get(task)
            told = [page["tasks"][task], lengths["labels"][condition]]
            told += [count(ours, "mean_tokens"), f"{tokens:,}"]
            told += [count(ours, "keywords"), f"{words:.2f}"]
            lines.append(table_row(*told, cells.tell(ours), find_row(page, condition)[task]))
    return lines


def count(ours: Mapping | None, key: str) -> str:
    """Mean tokens or keywords of a reply of ours."""
    if ours is None or key not in ours:
        return NOT_RUN
    return f"{ours[key]:,.0f}" if key == "mean_tokens" else f"{ours[key]:.2f}"


def tables_of_damage(page: Mapping, found: Mapping[str, Tasks]) -> list[str]:
    """Appendix D: tokens and keywords of a reply after structural damage."""
    damage = page["damage"]
    lines = [
        "## Tokens and keywords of a reply under damage",
        "",
        f"Published: {damage['source']}.",
    ]
    names = [page["tasks"][task] for task in damage["tasks"]]
    for key, what in (("mean_tokens", "tokens"), ("keywords", "keywords")):
        lines += ["", *heads(what, *beside(names))]
        for condition, published in damage[key].items():
            told = [find_row(page, condition)["label"]]
            for task, value in zip(damage["tasks"], published, strict=True):
                told += [count(found[condition].get(task), key), f"{value:,}"]
            lines.append(table_row(*told))
    return lines

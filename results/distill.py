"""The figures of `distill.md`: teachers, amount of data, students, best of N (Figs 1, 2, 4 and 5)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from longcot import plots
from results import cells
from results.cells import NOT_RUN, beside, figures_of, heads, is_marked, number, table_row

MARKED = "A star marks what was not simply read: OCR, recalled or derived, as the tables say."


def write_figures(runs: Path, page: Mapping, folder: Path) -> str:
    """Draw the page's figures into `folder`; returns the lines of the page that show them."""
    lines = []
    for figure in (teachers, amount, students, best_of):
        lines += ["", *figure(runs, page, folder)]
    return "\n".join(lines) + "\n"


def opening(figure: Mapping) -> list[str]:
    told = [f"{who.capitalize()}: {figure[who]}." for who in ("published", "ours") if who in figure]
    return [f"## {figure['title']}", "", *told, *([""] if told else [])]


def ours_of(numbers: Mapping | None) -> dict[str, Any] | None:
    """Accuracy with its interval in per cent, for a figure."""
    if numbers is None:
        return None
    interval = [100 * end for end in numbers["interval"]]
    return {"value": 100 * numbers["accuracy"], "interval": interval}


def published_of(cell: Any) -> tuple[float, bool] | None:
    value = number(cell)
    return None if value is None else (value, is_marked(cell))


def row_of(page: Mapping, run: str) -> dict:
    """A row of the first table, by its run."""
    return next(row for row in page["tables"][0]["rows"] if row.get("run") == run)


def teachers(runs: Path, page: Mapping, folder: Path) -> list[str]:
    """Figure 1: benchmarks by teacher, the first table's rows."""
    figure, tasks = page["teachers"], page["tables"][0]["tasks"]
    series = []
    for run in figure["rows"]:
        row, found = row_of(page, run), figures_of(run, run, runs)
        published = [published_of(row.get(task)) for task in tasks]
        ours = [ours_of(found.get(task)) for task in tasks]
        if any(published) or any(ours):
            series.append({"label": row["label"], "published": published, "ours": ours})
    path = folder / "distill_teachers.svg"
    plots.plot_groups(list(tasks.values()), series, path, figure["title"], "solved, per cent")
    return [*opening(figure), f"Rows of the first table. {MARKED}", "",
            f"![problems solved on five benchmarks by training set]({path.name})"]  # fmt: skip


def amount(runs: Path, page: Mapping, folder: Path) -> list[str]:
    """Figure 2: mean of four benchmarks by number of traces."""
    figure, tasks = page["amount"], page["mean_of"]
    lines = [*opening(figure), *heads("traces", "ours", "published")]
    points: dict[str, list] = {"ours, 95% interval": [], "published": []}
    for row in figure["rows"]:
        recipe = row.get("recipe", figure["recipe"])
        found = cells.average(figures_of(row.get("run"), recipe, runs), tasks)
        if ours := ours_of(found):
            points["ours, 95% interval"].append((row["traces"], ours["value"], ours["interval"]))
        if "mean" in row:
            points["published"].append((row["traces"], row["mean"], None))
        run = f" (`{row['run']}`)" if "run" in row else ""
        lines.append(table_row(f"{row['traces']:,}{run}", cells.tell(found), row.get("mean", "-")))
    series = [
        {"label": label, "points": some, "joined": label != "published"}
        for label, some in points.items()
        if some
    ]
    path = folder / "distill_amount.svg"
    axes = ("training traces", "mean of four benchmarks, per cent")
    plots.plot_curve(series, path, figure["title"], axes)
    return [*lines, "", f"![mean of four benchmarks by number of traces]({path.name})"]


def students(runs: Path, page: Mapping, folder: Path) -> list[str]:
    """Figure 4: students before and after training; only those of whom something is known."""
    figure, tasks = page["students"], page["mean_of"]
    lines = [*opening(figure), *heads("student", *beside(["untrained", "17k R1"]))]
    series = {
        when: {"label": label, "published": [], "ours": []}
        for when, label in (("untrained", "untrained"), ("tuned", "17k R1"))
    }
    known = []
    for row in figure["rows"]:
        told = [row["label"]]
        found = {}
        for when in series:
            run = row.get(f"{when}_run")
            found[when] = cells.average(figures_of(run, run or "", runs), tasks)
            run = f" (`{run}`)" if run else ""
            told += [f"{cells.tell(found[when])}{run}", row.get(when, "-")]
        lines.append(table_row(*told))
        if any(found.values()) or any(when in row for when in series):
            known.append(row["label"])
            for when, one in series.items():
                one["published"].append(published_of(row.get(when)))
                one["ours"].append(ours_of(found[when]))
    path = folder / "distill_students.svg"
    label = "mean of four, per cent"
    plots.plot_groups(known, list(series.values()), path, figure["title"], label)
    return [*lines, "", f"The figure has the students of whom a number is known. {MARKED}", "",
            f"![mean of four benchmarks of each student]({path.name})"]  # fmt: skip


def best_of(runs: Path, page: Mapping, folder: Path) -> list[str]:
    """Figure 5: pass@N of the untrained student, with horizontal lines of tuned runs."""
    figure = page["bestof"]
    task = figure["task"]
    found = figures_of(figure["run"], figure["run"], runs).get(task)
    lines = opening(figure)
    if found is None:
        return [*lines, f"`recipes/{figure['run']}.yaml`: {NOT_RUN}."]
    drawn = []
    for run in figure["lines"]:
        row, ours = row_of(page, run), figures_of(run, run, runs).get(task)
        if ours:
            drawn.append((f"{row['label']}, ours", 100 * ours["accuracy"]))
        elif published := published_of(row.get(task)):
            star = "*" if published[1] else ""
            drawn.append((f"{row['label']}, published{star}", published[0]))
    return [*lines, *best_of_lines(found, drawn, folder / "distill_bestof.svg", figure["title"])]


def best_of_lines(
    numbers: Mapping, drawn: Sequence[tuple[str, float]], path: Path, title: str
) -> list[str]:
    """Draw pass@N and maj@N of one task's figures; returns their table and the figure's line."""
    curve = cells.pass_curve(numbers)
    votes = {k: 100 * numbers[f"maj@{k}"] for k, _, _ in curve if f"maj@{k}" in numbers}
    lines = heads("N", "one of N is right (pass@N, 95% interval)", "the vote of N is right (maj@N)")
    points = []
    for k, value, interval in curve:
        ends = [100 * end for end in interval] if interval else None
        points.append((k, 100 * value, ends))
        told = f"{100 * value:.1f}%" + (f" [{ends[0]:.1f}, {ends[1]:.1f}]" if ends else "")
        lines.append(table_row(k, told, f"{votes[k]:.1f}%" if k in votes else "-"))
    series = [{"label": "pass@N: an oracle picks, 95% interval", "points": points, "joined": True}]
    if votes:
        most = [(k, value, None) for k, value in votes.items()]
        series.append({"label": "maj@N: the samples vote", "points": most, "joined": True})
    plots.plot_curve(series, path, title, ("samples of a problem, N", "solved, per cent"),
                     lines=drawn, log=True)  # fmt: skip
    return [*lines, "", f"n {numbers['n']}, {numbers['samples']:,} samples.", "",
            f"![problems solved by the best of N samples]({path.name})"]  # fmt: skip

"""The page of the CPU-sized twin of `structure`: every condition with several seeds."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from longcot import plots
from results import cells
from results.cells import NOT_RUN, OTHER, heads, paragraph, table_row, tell_difference
from results.distill import best_of_lines
from results.structure import (
    compared,
    find_level,
    find_row,
    forest_rows,
    published_gap,
    simultaneous,
)

SEEDS = (0, 1, 2)
TASK = "test"  # the held-out problems
HALF = 0.5  # of what correct traces gain over the base: a large drop loses more
AMOUNTS = ("rehearsal_base", "rehearsal_n500", "rehearsal_n1000", "rehearsal")
BEST_OF = "rehearsal_structure_bestof"
Seeds = Mapping[int, Mapping[str, Any]]  # a condition's figures by seed, of those that ran


def write_page(runs: Path, published: Mapping, folder: Path) -> str:
    """`rehearsal_structure.md`; its figures are written into `folder`."""
    page = published["structure"]
    found = {one["condition"]: read_seeds(runs, one["condition"]) for one in page["rows"]}
    differences = {
        one["condition"]: difference(found["correct"], found[one["condition"]], find_level(page))
        for one in compared(page)
    }
    line = line_of(found)
    lines = [cells.HEADER, "# Rehearsal of structure: what in a trace teaches, at CPU size", ""]
    lines += explanation(page, published["rehearsal_structure"]["note"], line)
    lines += table(page, found, differences, line)
    lines += ["", *summary(page, differences, line), ""]
    lines += forest(page, differences, line, folder)
    lines += ["", *amount(runs, folder), "", *best_of(runs, found["correct"], folder)]
    names = ["rehearsal_base", BEST_OF]
    names += [run_of(condition, seed) for condition in found for seed in SEEDS]
    return "\n".join([*lines, "", *cells.provenance(runs, names)]).rstrip() + "\n"


def run_of(condition: str, seed: int) -> str:
    return f"rehearsal_structure_{condition}_s{seed}"


def read_seeds(runs: Path, condition: str) -> Seeds:
    """A condition's figures by seed; the base has one run."""
    names = {0: "rehearsal_base"} if condition == "base" else {
        seed: run_of(condition, seed) for seed in SEEDS
    }  # fmt: skip
    records = {seed: cells.scored(name, runs) for seed, name in names.items()}
    return {seed: one["eval"][TASK] for seed, one in records.items() if one and TASK in one["eval"]}


def difference(correct: Seeds, other: Seeds, level: float) -> dict[str, Any] | str:
    """Paired difference from `correct`: of each problem the mean over the seeds that both ran, then
    over problems. {difference, interval, n, seeds: {seed: its own difference}}, or why there is none:
    no seed ran in both, or not all were asked the same problems."""
    seeds = [seed for seed in correct if seed in other]
    hashes = {side[seed]["task_hash"] for side in (correct, other) for seed in seeds}
    if len(hashes) != 1:
        return OTHER if hashes else NOT_RUN
    sides = {seed: (cells.shares(correct[seed]), cells.shares(other[seed])) for seed in seeds}
    judged = set.intersection(*(set(side) for pair in sides.values() for side in pair))
    gaps = {seed: [b[i] - a[i] for i in sorted(judged)] for seed, (a, b) in sides.items()}
    means = [sum(each) / len(seeds) for each in zip(*gaps.values(), strict=True)]
    own = {seed: sum(values) / len(values) for seed, values in gaps.items()}
    return {**cells.summed_up([means], level), "seeds": own}


def line_of(found: Mapping[str, Seeds]) -> float:
    """Points, negative: where half of our own gain by correct traces is lost; NaN while unknown."""
    if not found["correct"] or not found["base"]:
        return math.nan
    correct, base = (mean([s["accuracy"] for s in found[c].values()]) for c in ("correct", "base"))
    return -100 * HALF * (correct - base)


def verdict(found: Mapping, line: float) -> str:
    """What an interval says about a loss of more than half the gain."""
    low, high = (100 * end for end in found["interval"])
    if high < line:
        return "large drop"
    return "no large drop" if low > line else "undecided"


def claim(one: Mapping, page: Mapping) -> str:
    """What the paper's means say of a condition by the same rule; its noise is not in it."""
    untrained, _ = published_gap(find_row(page, "base"), page)
    return "large drop" if published_gap(one, page)[0] < HALF * untrained else "no large drop"


def shown(one: Mapping, page: Mapping, found: Mapping | str, line: float) -> str:
    """Whether the paper's finding shows here: yes, no, undecided, or why that is not known."""
    if isinstance(found, str):
        return found
    told = verdict(found, line)
    return told if told == "undecided" else "yes" if told == claim(one, page) else "no"


def explanation(page: Mapping, note: str, line: float) -> list[str]:
    seeds = ", ".join(map(str, SEEDS))
    paragraphs = (
        "The rehearsal's base model, trained on damaged traces: every condition with the seeds "
        f"{seeds}, scored on the held-out problems, greedy. {note}",
        "**To `correct`**: the difference, paired by problem and averaged over the seeds that both "
        f"ran, in points, with a bootstrap over problems. {simultaneous(page)} The interval is "
        "conditional on these seeds: it tells what other problems would have given, not what other "
        "seeds would; each seed's own difference stands beside it.",
        "**Paper**: its difference, the mean of four benchmarks at 32B ([structure.md](structure.md)). "
        'One rule for both: a "large drop" loses more than half of what correct traces gain over the '
        f"untrained model, {-HALF * published_gap(find_row(page, 'base'), page)[0]:.1f} points there and "
        f"{-line:.1f} here. The paper's one run is taken by its mean (standard error about 4 points); "
        "here the whole interval has to lie on one side, else undecided. **Shown here?** is yes where "
        "the two say the same. The rule was put in terms of the gain while the sweep was running.",
    )
    return [line for text in paragraphs for line in (*paragraph(text), "")]


def table(
    page: Mapping, found: Mapping[str, Seeds], differences: Mapping, line: float
) -> list[str]:
    """One line a condition."""
    lines = heads("condition", "solved, each seed", "mean [range]", "n", "mean tokens", "keywords",
                  "to `correct`", "each seed", "paper", "paper says", "here", "shown here?")  # fmt: skip
    for one in page["rows"]:
        condition = one["condition"]
        told = [f"{one['label']} (`{condition}`)", *solved(found[condition], condition)]
        if condition not in differences:
            lines.append(table_row(*told, *["-"] * 6))
            continue
        gap, paper = differences[condition], f"{published_gap(one, page)[0]:+.1f}"
        if isinstance(gap, str):
            told += [gap, gap, paper, claim(one, page), gap, gap]
        else:
            told += [tell_difference(gap), told_by_seed(gap["seeds"], "+.1f"), paper]
            told += [claim(one, page), verdict(gap, line), shown(one, page, gap, line)]
        lines.append(table_row(*told))
    return lines


def told_by_seed(shares: Mapping[int, float], form: str, seeds: Sequence[int] = SEEDS) -> str:
    """Per cent or points, one for each seed; "-" where it did not run."""
    return " ".join(f"{100 * shares[s]:{form}}" if s in shares else "-" for s in seeds)


def solved(seeds: Seeds, condition: str) -> list[str]:
    """Cells: each seed's accuracy, mean with range, n, mean tokens, keywords."""
    if not seeds:
        return [NOT_RUN] * 5
    found = {seed: one["accuracy"] for seed, one in seeds.items()}
    each = told_by_seed(found, ".1f", (0,) if condition == "base" else SEEDS)
    shares = [100 * share for share in found.values()]
    span = f"{mean(shares):.1f}% [{min(shares):.1f}, {max(shares):.1f}]"
    n = " ".join(dict.fromkeys(str(one["n"]) for one in seeds.values()))
    words = [one["keywords"] for one in seeds.values() if "keywords" in one]
    tokens = mean([one["mean_tokens"] for one in seeds.values()])
    return [each, span, n, f"{tokens:.0f}", f"{mean(words):.1f}" if words else "-"]


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def summary(page: Mapping, differences: Mapping, line: float) -> list[str]:
    """How many of the paper's findings show, and which do not."""
    told = {
        one["condition"]: shown(one, page, differences[one["condition"]], line)
        for one in compared(page)
    }
    meaning = {"yes": "shown here", "no": "not shown, but its opposite"}
    lines = [f"Of {len(told)} findings of the paper:", ""]
    for answer in dict.fromkeys(("yes", "no", "undecided", NOT_RUN, *told.values())):
        names = [f"`{condition}`" for condition, said in told.items() if said == answer]
        of_them = f" ({', '.join(names)})" if names else ""
        lines.append(f"- {meaning.get(answer, answer)}: {len(names)}{of_them}")
    return lines


def forest(page: Mapping, differences: Mapping, line: float, folder: Path) -> list[str]:
    if all(isinstance(found, str) for found in differences.values()):
        return [f"Differences to correct traces, the figure: {NOT_RUN}."]
    plots.plot_forest(
        forest_rows(page, differences),
        folder / "rehearsal_structure.svg",
        "What damage to the traces costs: the rehearsal, and the paper at 32B",
        "difference to correct traces, points",
        level=find_level(page),
        marks=[("half of the gain lost, here", line)],
    )
    return ["![difference of every condition to correct traces](rehearsal_structure.svg)"]


def amount(runs: Path, folder: Path) -> list[str]:
    """Figure 2's twin: traces against problems solved, from the records of `rehearsal.md`."""
    points = []
    for run in AMOUNTS:
        if found := cells.scored(run, runs):
            numbers, samples = found["eval"][TASK], found.get("train", {}).get("samples", 0)
            interval = [100 * end for end in numbers["interval"]]
            points.append((samples, 100 * numbers["accuracy"], interval))
    lines = ["## Amount of data, the twin of Figure 2", ""]
    if not points:
        return [*lines, f"{NOT_RUN}."]
    series = [{"label": "seed 0, 95% interval", "points": points, "joined": True}]
    labels = ("training traces", "held-out problems solved, per cent")
    plots.plot_curve(
        series, folder / "rehearsal_amount.svg", "Traces against problems solved, rehearsal", labels
    )
    source = "From the records of [rehearsal.md](rehearsal.md); fewer traces also mean fewer steps."
    return [*lines, source, "", "![problems solved by number of traces](rehearsal_amount.svg)"]


def best_of(runs: Path, correct: Seeds, folder: Path) -> list[str]:
    """Figure 5's twin: the base sampled N times, and the tuned model as a line."""
    lines = ["## Best of N of the untrained model, the twin of Figure 5", ""]
    found = cells.scored(BEST_OF, runs)
    if not found:
        return [*lines, f"{NOT_RUN}."]
    tuned = [100 * one["accuracy"] for one in correct.values()]
    drawn = [("tuned on correct traces, greedy, mean of seeds", mean(tuned))] if tuned else []
    path, title = folder / "rehearsal_bestof.svg", "The untrained rehearsal model, best of N"
    return [*lines, *best_of_lines(found["eval"][TASK], drawn, path, title)]

"""Figures, drawn from records and published numbers only, each one SVG.

Colours are Okabe and Ito's, told apart by the colour-blind, and never alone: ours and published
differ in marker and fill, series in hatch and line style. The same numbers give the same bytes (no
date, fixed identifiers), so staleness can be tested.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from longcot.rows import write_atomic

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#7F7F7F"
SERIES = (  # colour, hatch, marker, line
    (GREY, "", "s", "-"),
    (BLUE, "//", "o", "-"),
    ("#56B4E9", "..", "^", "--"),
    (ORANGE, "xx", "D", "-."),
    ("#E69F00", "--", "v", ":"),
)


@contextmanager
def _drawing(path: Path, size: tuple[float, float], title: str) -> Iterator[Any]:
    """Axes to draw on; written to `path` afterwards."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot as plt

    with plt.rc_context({"svg.hashsalt": "longcot", "font.size": 11, "svg.fonttype": "none"}):
        figure, axis = plt.subplots(figsize=size)
        yield axis
        figure.suptitle(title, x=0.02, ha="left")
        axis.spines[["top", "right"]].set_visible(False)
        figure.tight_layout()
        write_atomic(
            path,
            lambda to: figure.savefig(to, format="svg", metadata={"Date": None, "Creator": None}),
        )
        plt.close(figure)


def _reach(value: float, interval: Sequence[float] | None) -> list[list[float]] | None:
    """An interval as matplotlib's error: how far below and above, never negative."""
    if interval is None:
        return None
    return [[max(0.0, value - interval[0])], [max(0.0, interval[1] - value)]]


def plot_accuracy(bars: list[dict[str, Any]], path: Path, title: str) -> None:
    """Horizontal bars with their intervals: {label, accuracy, interval, base (bool)}; SVG."""
    with _drawing(path, (8, 0.55 * len(bars) + 1.3), title) as axis:
        for row, bar in enumerate(reversed(bars)):
            low, high = bar["interval"]
            value = bar["accuracy"]
            axis.barh(row, 100 * value, color=GREY if bar["base"] else BLUE, height=0.62)
            error = [[100 * (value - low)], [100 * (high - value)]]
            axis.errorbar(100 * value, row, xerr=error, color=ORANGE, capsize=4, linewidth=2)
            axis.text(min(100 * high + 1.5, 101), row, f"{value:.1%}", va="center")
        axis.set_yticks(range(len(bars)), [bar["label"] for bar in reversed(bars)])
        axis.set_xlim(0, 112)
        axis.set_xticks(range(0, 101, 20))
        axis.set_xlabel("held-out problems solved, per cent (95% interval)")


def plot_groups(
    groups: Sequence[str],
    series: Sequence[Mapping[str, Any]],
    path: Path,
    title: str,
    axis_label: str,
) -> None:
    """Bars side by side, a cluster for each of `groups`; all values per cent.

    A series is {label, published, ours}: `published` has a value, a (value, marked) pair or None for
    each group and is drawn as a hatched bar, a star behind it where marked; `ours` has {value,
    interval} or None and is drawn as a diamond with its interval.
    """  # fmt: skip
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    width = 0.84 / len(series)
    handles: list[Any] = []
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    with _drawing(path, (1.6 + 1.55 * len(groups), 4.8), title) as axis:
        for place, one in enumerate(series):
            colour, hatch, _, _ = SERIES[place]
            look = {"facecolor": colour, "hatch": hatch, "edgecolor": "white", "linewidth": 0}
            handles.append(Patch(label=one["label"], **look))
            for group, (published, ours) in enumerate(
                zip(one["published"], one["ours"], strict=True)
            ):
                x = group + (place - (len(series) - 1) / 2) * width
                if published is not None:
                    value, marked = published
                    axis.bar(x, value, width * 0.94, **look)
                    text = f"{value}{'*' if marked else ''}"
                    axis.text(x, 2, text, ha="center", fontsize=8, bbox=box)
                if ours is not None:
                    reach = _reach(ours["value"], ours["interval"])
                    axis.errorbar(x, ours["value"], yerr=reach, fmt="D", color="black",
                                  markersize=6, markeredgecolor="white", capsize=3)  # fmt: skip
        axis.set_xticks(range(len(groups)), [group.replace(" ", "\n") for group in groups])
        axis.set_ylim(0, 105)
        axis.set_ylabel(axis_label)
        label = "ours, 95% interval (bars: published)"
        handles.append(Line2D([], [], marker="D", color="black", linewidth=0, label=label))
        axis.legend(handles=handles, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.16),
                    frameon=False, fontsize=9, handlelength=2.4, handleheight=1.2)  # fmt: skip


def plot_curve(
    series: Sequence[Mapping[str, Any]],
    path: Path,
    title: str,
    axis_labels: tuple[str, str],
    *,
    lines: Sequence[tuple[str, float]] = (),
    log: bool = False,
) -> None:
    """Points over an amount, per cent: a series is {label, points, joined}, a point (x, value,
    interval or None). Points not joined are hollow, because what lies between is not known. `lines`
    are (label, value) across the figure, three at most; `log` puts amounts at powers of two."""
    with _drawing(path, (8, 4.8), title) as axis:
        for number, one in enumerate(series, 1):
            known = one["joined"]
            colour, _, marker, style = SERIES[number] if known else (ORANGE, "", "D", "none")
            xs, values = [p[0] for p in one["points"]], [p[1] for p in one["points"]]
            axis.plot(xs, values, color=colour, marker=marker, linestyle=style, markersize=8,
                      markerfacecolor=colour if known else "white", markeredgewidth=2,
                      label=one["label"])  # fmt: skip
            for x, value, interval in one["points"]:
                if interval is not None:
                    axis.errorbar(x, value, yerr=_reach(value, interval), color=colour, capsize=4)
                place = (8, -13 if value > 10 else 6)
                axis.annotate(f"{value:.1f}", (x, value), place, textcoords="offset points",
                              fontsize=9)  # fmt: skip
        for place, (label, value) in enumerate(lines):
            colour, _, _, style = (("black", "", "", "--"), *SERIES[3:])[place]
            axis.axhline(value, color=colour, linestyle=style, label=f"{label}, {value:.1f}")
        if log:
            axis.set_xscale("log", base=2)
            axis.xaxis.set_major_formatter("{x:.0f}")
        else:
            axis.xaxis.set_major_formatter("{x:,.0f}")
        axis.set_ylim(0, 105)
        axis.set_xlabel(axis_labels[0])
        axis.set_ylabel(axis_labels[1])
        axis.legend(frameon=False, fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.16),
                    ncols=2)  # fmt: skip


def plot_forest(
    rows: Sequence[Mapping[str, Any]],
    path: Path,
    title: str,
    axis_label: str,
    *,
    level: float,
    marks: Sequence[tuple[str, float]] = (),
) -> None:
    """Differences in points, one row each: {label, ours, published}. `ours` is None or {difference,
    interval, seeds}, a disc with its simultaneous interval of `level` and a tick for each seed;
    `published` is None or (difference, standard error), a hollow diamond with two standard errors.
    `marks` are (label, value) of vertical lines besides the one at zero."""
    with _drawing(path, (8.5, 0.42 * len(rows) + 1.9), title) as axis:
        places = range(len(rows) - 1, -1, -1)
        for place, row in zip(places, rows, strict=True):
            if place % 2:
                axis.axhspan(place - 0.5, place + 0.5, color="#F2F2F2", zorder=0)
            if row["published"] is not None:
                value, error = row["published"]
                axis.errorbar(value, place - 0.18, xerr=2 * error, fmt="D", color=ORANGE,
                              markerfacecolor="white", markersize=6, capsize=3)  # fmt: skip
            if row["ours"] is not None:
                ours = row["ours"]
                reach = _reach(ours["difference"], ours["interval"])
                axis.errorbar(ours["difference"], place + 0.18, xerr=reach, fmt="o", color=BLUE,
                              markersize=7, capsize=3, linewidth=2)  # fmt: skip
                seeds = ours["seeds"]
                axis.plot(seeds, [place + 0.18] * len(seeds), "|", color="black", markersize=11)
        axis.axvline(0, color="black", linewidth=1)
        for (label, value), style in zip(marks, (":", "--"), strict=False):
            axis.axvline(value, color=GREY, linestyle=style, label=label)
        _legend_of_forest(axis, rows, level)
        axis.set_yticks(list(places), [row["label"] for row in rows])
        axis.set_ylim(-0.6, len(rows) - 0.4)
        axis.set_xlabel(axis_label)


def _legend_of_forest(axis: Any, rows: Sequence[Mapping[str, Any]], level: float) -> None:
    """What the marks mean, of those only that are drawn."""
    from matplotlib.lines import Line2D

    handles, labels = axis.get_legend_handles_labels()
    if any(row["ours"] for row in rows):
        handles.append(Line2D([], [], marker="o", color=BLUE, linewidth=2))
        labels.append(f"ours, {level:.2%} interval")
    if any(row["ours"] and row["ours"]["seeds"] for row in rows):
        handles.append(Line2D([], [], marker="|", color="black", linewidth=0, markersize=11))
        labels.append("ours, each seed")
    if any(row["published"] for row in rows):
        handles.append(Line2D([], [], marker="D", color=ORANGE, markerfacecolor="white"))
        labels.append("published, two standard errors")
    axis.legend(handles, labels, loc="upper center", bbox_to_anchor=(0.4, -1.3 / len(rows)),
                frameon=False, fontsize=9, ncols=2)  # fmt: skip

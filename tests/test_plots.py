"""Figures: the same numbers give the same bytes, and nothing is told by colour alone."""

import re

import pytest

from longcot import plots
from longcot.plots import plot_accuracy

BARS = [
    {"label": "base", "accuracy": 0.01, "interval": [0.0, 0.03], "base": True},
    {"label": "tuned", "accuracy": 0.95, "interval": [0.92, 0.97], "base": False},
]


def test_figure_shows_every_bar_and_is_the_same_twice(tmp_path):
    one, two = tmp_path / "one.svg", tmp_path / "two.svg"
    plot_accuracy(BARS, one, "title")
    plot_accuracy(BARS, two, "title")
    text = one.read_text()
    assert one.read_bytes() == two.read_bytes()
    for word in ("base", "tuned", "95.0%", "1.0%", "title", "per cent"):
        assert f">{word}" in text or word in text
    assert "#0072b2" in text and "#7f7f7f" in text


def test_changed_number_changes_the_figure(tmp_path):
    plot_accuracy(BARS, tmp_path / "one.svg", "title")
    moved = [BARS[0], {**BARS[1], "accuracy": 0.94}]
    plot_accuracy(moved, tmp_path / "two.svg", "title")
    assert (tmp_path / "one.svg").read_bytes() != (tmp_path / "two.svg").read_bytes()


def test_no_temporary_file_stays(tmp_path):
    plot_accuracy(BARS, tmp_path / "one.svg", "title")
    assert [path.name for path in tmp_path.iterdir()] == ["one.svg"]


# ---- groups, curves, forests

OKABE_ITO = {"#000000", "#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7"}
GROUPS = [
    {"label": "one", "published": [(12.5, False), (70.0, True)], "ours": [None, None]},
    {"label": "two", "published": [(33.3, False), None],
     "ours": [None, {"value": 44.0, "interval": [40.0, 50.0]}]},
]  # fmt: skip
CURVE = [
    {"label": "joined", "points": [(1, 20.0, [15.0, 25.0]), (2, 30.0, None)], "joined": True},
    {"label": "apart", "points": [(1, 22.0, None), (4, 90.0, None)], "joined": False},
]
FOREST = [
    {"label": "first", "ours": None, "published": (-3.0, 4.0)},
    {"label": "second", "ours": {"difference": -20.0, "interval": [-30.0, -11.0],
                                 "seeds": [-25.0, -15.0]}, "published": None},
]  # fmt: skip


def draw(kind: str, path):
    if kind == "groups":
        plots.plot_groups(["left", "right side"], GROUPS, path, "title", "per cent")
    elif kind == "curve":
        lines = [("tuned", 81.5)]
        plots.plot_curve(CURVE, path, "title", ("samples", "per cent"), lines=lines, log=True)
    else:
        marks = [("line", -10)]
        plots.plot_forest(FOREST, path, "title", "points", level=0.9972, marks=marks)
    return path.read_text()


@pytest.mark.parametrize("kind", ["groups", "curve", "forest"])
def test_the_same_numbers_give_the_same_bytes(tmp_path, kind):
    assert draw(kind, tmp_path / "a.svg") == draw(kind, tmp_path / "b.svg")


@pytest.mark.parametrize("kind", ["groups", "curve", "forest"])
def test_colours_are_told_apart_by_the_colour_blind(tmp_path, kind):
    colours = {found.lower() for found in re.findall("#[0-9a-fA-F]{6}", draw(kind, tmp_path / "a"))}
    hues = {c for c in colours if len({c[1:3], c[3:5], c[5:7]}) > 1}  # the rest are greys
    assert hues and hues <= OKABE_ITO


def test_no_series_is_known_by_its_colour_alone():
    for place in range(4):
        assert len({style[place] for style in plots.SERIES[1:]}) == len(plots.SERIES) - 1


def test_groups_show_what_is_known_and_star_what_is_marked(tmp_path):
    text = draw("groups", tmp_path / "a.svg")
    for word in (">12.5<", ">70.0*<", ">33.3<", ">one<", ">two<", ">right<", ">side<"):
        assert word in text, word
    assert text.count("<pattern") >= 1  # hatches
    assert ">44" not in text  # ours is a mark with an interval, beside the bars' numbers


def test_a_curve_names_its_points_and_lines(tmp_path):
    text = draw("curve", tmp_path / "a.svg")
    for word in (">20.0<", ">90.0<", ">tuned, 81.5<", ">joined<", ">apart<", ">samples<"):
        assert word in text, word


def test_a_forest_explains_only_what_it_shows(tmp_path):
    text = draw("forest", tmp_path / "a.svg")
    for word in (">first<", ">second<", ">ours, 99.72% interval<", ">ours, each seed<", ">line<"):
        assert word in text, word
    plots.plot_forest(FOREST[:1] * 2, tmp_path / "b.svg", "title", "points", level=0.95)
    text = (tmp_path / "b.svg").read_text()
    assert ">published, two standard errors<" in text and ">ours" not in text


@pytest.mark.parametrize("kind", ["groups", "curve", "forest"])
def test_a_moved_number_moves_the_figure(tmp_path, kind, monkeypatch):
    before = draw(kind, tmp_path / "a.svg")
    monkeypatch.setitem(GROUPS[1], "ours", [None, {"value": 45.0, "interval": [40.0, 50.0]}])
    monkeypatch.setitem(CURVE[0], "points", [(1, 20.0, [16.0, 25.0]), (2, 30.0, None)])
    monkeypatch.setitem(FOREST[0], "published", (-3.0, 5.0))
    assert draw(kind, tmp_path / "a.svg") != before

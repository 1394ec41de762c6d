"""Pages and the plots in them: figures where they belong, names as text, nothing from elsewhere."""

from __future__ import annotations

import numpy as np
import pytest

from otfew.reporting import pages
from otfew.reporting.forest import Entry, forest


def entries():
    return [
        Entry("first", 91.25, (90.5, 92.0), (88.0, 94.5), "91.25", strong=True),
        Entry("second", 88.0, (87.0, 89.0), None, "88.00"),
        Entry("third", 80.5),
    ]


def test_a_forest_is_linear_and_ends_at_its_ticks():
    plot = forest("accuracy", entries())
    values = np.array([91.25, 90.5, 92.0, 88.0, 94.5])
    first = plot.bars[0]
    places = np.array([first["x"], *first["inner"], *first["outer"]])
    ticks = np.array([[float(t["text"]), t["x"]] for t in plot.ticks])
    slope = (ticks[-1, 1] - ticks[0, 1]) / (ticks[-1, 0] - ticks[0, 0])
    assert places == pytest.approx(ticks[0, 1] + slope * (values - ticks[0, 0]), abs=0.11)
    assert ticks[0, 0] <= 80.5 < 94.5 <= ticks[-1, 0]
    assert 4 <= len(ticks) <= 12
    assert [ticks[0, 1], ticks[-1, 1]] == [pytest.approx(plot.left, abs=0.1), pytest.approx(plot.right, abs=0.1)]
    assert plot.left < plot.right < plot.width == 920
    assert [bar["y"] for bar in plot.bars] == sorted(bar["y"] for bar in plot.bars)
    assert plot.zero is None


def test_zero_is_on_the_axis_where_it_is_wanted():
    plot = forest("difference", [Entry("a", 3.0, (2.5, 3.5))], zero=True)
    assert plot.left <= plot.zero < plot.bars[0]["inner"][0]


@pytest.mark.parametrize("value", [0.0, -1e-9, 1e9, 5.0])
def test_a_forest_of_one_figure(value):
    plot = forest("x", [Entry("only", value)])
    assert plot.left <= plot.bars[0]["x"] <= plot.right


def test_a_forest_of_nothing():
    assert forest("x", []) is None


def test_what_a_template_is_given_is_text():
    trap = '<b onclick="x">\'&{{ 1 }}\x1b[0m\u202e'
    lines = ["fine", trap]
    made = pages.render(
        "classify.html", trap, known=lines, accuracy=forest(trap, [Entry(trap, 1.0)]),
        confusions={"names": [trap, "b"], "counts": [[1, 2], [0, 4]]}, candidates=None, reason="",
        answers=pages.Grid([trap], [[trap], [None]]), left_out="", skipped=lines,
        explained=[{"title": trap, "sentences": lines, "panels": [pages.panel(trap, None)]}], protocol=lines,
    )  # fmt: skip
    assert "<b " not in made
    assert "\x1b" not in made
    assert "\u202e" not in made
    assert made.count("&lt;b onclick=&quot;x&quot;&gt;&#x27;&amp;{{ 1 }}\\x1b[0m\\u202e") >= 10


def test_a_name_that_a_template_asks_for_and_nobody_gives_is_a_fault():
    from jinja2 import UndefinedError

    with pytest.raises(UndefinedError):
        pages.render("classify.html", "x")


def test_marks_are_in_pixels_of_the_picture_that_is_shown():
    picture = np.zeros((1400, 2800, 3), np.uint8)
    shown = pages.panel("x", picture, pages.numbered([(400.0, 200.0, 800.0, 600.0), (400.0, 200.0, 900.0, 700.0)]))
    assert (shown.width, shown.height) == (700, 350)
    first, second = shown.marks
    assert [first[key] for key in ("x", "y", "width", "height", "text")] == [100, 50, 100, 100, "1"]
    assert second["left"] > first["left"] == 100
    assert first["colour"] != second["colour"]
    assert shown.uri.startswith("data:image/jpeg;base64,")


def test_outlines_without_a_number_have_no_label():
    shown = pages.panel("first\nsecond", np.zeros((20, 20, 3), np.uint8), [pages.Mark((2.0, 2.0, 9.0, 9.0))])
    made = pages.render(
        "classify.html", "x", known=[], accuracy=None, confusions=None, candidates=None, reason="",
        answers=pages.Grid(["a"], []), left_out="", skipped=[], protocol=[],
        explained=[{"title": "x", "sentences": [], "panels": [shown]}],
    )  # fmt: skip
    assert made.count("<rect") == 2
    assert "first<br>second" in made

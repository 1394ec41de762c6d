"""A line a minute, by a clock of the test's."""

from __future__ import annotations

import pytest

from otfew.runs.lines import Lines


class Clock:
    """Stands where it is put."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def test_a_line_a_minute_and_no_more():
    clock, said = Clock(), []
    lines = Lines(said.append, "episodes", clock=clock)
    for second in range(1, 301):
        clock.now = 1000.0 + second
        lines(second * 2, 1200, "episodes: deepemd-fcn")
    assert said == [
        "episodes: deepemd-fcn 120 of 1,200, about 9 min left",
        "episodes: deepemd-fcn 240 of 1,200, about 8 min left",
        "episodes: deepemd-fcn 360 of 1,200, about 7 min left",
        "episodes: deepemd-fcn 480 of 1,200, about 6 min left",
        "episodes: deepemd-fcn 600 of 1,200, about 5 min left",
    ]


def test_what_was_there_already_says_nothing_of_the_speed():
    clock, said = Clock(), []
    lines = Lines(said.append, "queries", clock=clock)
    lines(9000, 10000)
    for second in range(1, 121):
        clock.now = 1000.0 + second
        lines(9000 + second, 10000)
    # The first line can't know better; the second counts what was done since the first.
    assert said[1] == "queries 9,120 of 10,000, about 15 min left"


@pytest.mark.parametrize(
    ("done", "left"),
    [
        (590, ", less than a minute left"),
        (300, ", about 1 min left"),
        (10, ", about 59 min left"),
        (1, ", about 9 h 59 min left"),
        (0, ""),
    ],
)
def test_time_that_is_left(done, left):
    clock, said = Clock(), []
    lines = Lines(said.append, "x", clock=clock)
    clock.now += 60
    lines(done, 600)
    assert said == [f"x {done} of 600{left}"]


def test_nothing_is_said_at_the_end_or_within_the_first_minute():
    clock, said = Clock(), []
    lines = Lines(said.append, "x", "MB", clock)
    clock.now += 59
    lines(300, 600)
    clock.now += 60
    lines(600, 600)
    assert said == []
    lines(599, 600)
    assert said == ["x 599 of 600 MB, less than a minute left"]

"""Progress on a console: a bar on a terminal, a line a minute on a pipe, by a clock of the test's."""

from __future__ import annotations

import io

from rich.console import Console

from otfew.experiments.common.watch import ConsoleWatch, counted


class Clock:
    """Stands where it is put."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def test_a_task_on_a_pipe_and_on_a_terminal():
    clock = Clock()
    pipe, screen = io.StringIO(), io.StringIO()
    for file, terminal in ((pipe, False), (screen, True)):
        watch = ConsoleWatch(Console(file=file, width=40, force_terminal=terminal), clock)
        with watch.task("episodes") as step:
            more = counted(step, 600, "episodes")
            for _ in range(2):
                clock.now += 60
                more(100, "[red]")
    assert pipe.getvalue() == (
        "episodes: [red] 100 of 600, about 5 min left\nepisodes: [red] 200 of 600, about 4 min left\n"
    )
    assert "episodes: [red]" in screen.getvalue()
    assert "min left" not in screen.getvalue()

"""Progress of the library on a console."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

from otfew.experiments.common.cli import translated
from otfew.runs.lines import Lines
from otfew.runs.watch import Step


class ConsoleWatch:
    """Shows sentences as lines; tasks as bars on a terminal, and as a plain line a minute elsewhere.

    Args:
        console: Where they go.
        clock: Seconds, of any zero.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock

    def note(self, text: str) -> None:
        """Print a sentence, with options where it names arguments."""
        self._say(translated(text))

    def _say(self, text: str) -> None:
        """Print a line as it is."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def task(self, title: str) -> Iterator[Step]:
        """Show how far a task is, from the first step on; nothing where all is there already."""
        if not self._console.is_terminal:
            yield Lines(self._say, title, clock=self._clock)
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._console, transient=True) as bar:
            task = bar.add_task(title, total=None, visible=False)

            def step(done: int, total: int, what: str = "") -> None:
                bar.update(task, completed=done, total=total, visible=True, description=what or title)

            yield step


def counted(step: Step, total: int, title: str) -> Callable[[int, str], None]:
    """Turn steps of so many units each, with what goes on, into how far the task is.

    Args:
        step: Of a task.
        total: Units in all.
        title: What is counted; what goes on is written behind it.
    """
    done = 0

    def more(units: int, what: str) -> None:
        nonlocal done
        done += units
        step(done, total, f"{title}: {what}")

    return more

"""Progress of the library on a console."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from otfew.runs.watch import Step


class ConsoleWatch:
    """Shows sentences as lines, and tasks as bars where the console is a terminal.

    Args:
        console: Where they go.
    """

    def __init__(self, console: Console) -> None:
        self._console = console

    def note(self, text: str) -> None:
        """Print a sentence."""
        self._console.print(text, markup=False, highlight=False)

    @contextmanager
    def task(self, title: str) -> Iterator[Step]:
        """Show a bar from the first step on; nothing where all is there already."""
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        console = self._console
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task(title, total=None, visible=False)

            def step(done: int, total: int, what: str = "") -> None:
                bar.update(task, completed=done, total=total, visible=True, description=what or title)

            yield step

"""How work that takes a while tells that it goes on: lines and steps, wherever they are shown."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Step(Protocol):
    """Told how far a task is."""

    def __call__(self, done: int, total: int, what: str = "") -> None:
        """Take note.

        Args:
            done: Units that are finished.
            total: Units in all.
            what: What goes on now, in place of the task's title.
        """
        ...


class Watch(Protocol):
    """Where progress is shown: a terminal, a notebook, nowhere."""

    def note(self, text: str) -> None:
        """Say a sentence that the user should know of."""
        ...

    def task(self, title: str) -> AbstractContextManager[Step]:
        """Begin a task; its end is that of the context."""
        ...


class Silent:
    """Shows nothing."""

    def note(self, text: str) -> None:
        """Drop the sentence."""

    @contextmanager
    def task(self, title: str) -> Iterator[Step]:
        """Hand out a step that does nothing."""
        del title
        yield _ignore


def _ignore(done: int, total: int, what: str = "") -> None:
    """Do nothing."""


SILENT = Silent()
"""The default of the library, which prints nothing by itself."""

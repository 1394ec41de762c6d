"""Progress where nobody watches a bar: one plain line a minute, for logs and pipes."""

from __future__ import annotations

import time
from collections.abc import Callable

EVERY = 60.0
"""Seconds from one line to the next."""


class Lines:
    """Tells how far a task is, at most once a minute; a ``Step``.

    What is left is told by the speed since the line before: what was found finished at the start says nothing of it.

    Args:
        write: Called with a line, without its end.
        title: What the task is.
        unit: What is counted, written behind the total.
        clock: Seconds, of any zero.
    """

    def __init__(
        self,
        write: Callable[[str], object],
        title: str,
        unit: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._write, self._title, self._unit, self._clock = write, title, unit, clock
        self._last, self._done = clock(), 0

    def __call__(self, done: int, total: int, what: str = "") -> None:
        """Take note, and write a line where the last one is a minute old.

        Args:
            done: Units that are finished.
            total: Units in all.
            what: What goes on now, in place of the title.
        """
        now = self._clock()
        since = now - self._last
        if since < EVERY or done >= total:
            return
        made = done - self._done
        left = f", {_left((total - done) * since / made)} left" if made > 0 else ""
        self._last, self._done = now, done
        unit = f" {self._unit}" if self._unit else ""
        self._write(f"{what or self._title} {done:,} of {total:,}{unit}{left}")


def _left(seconds: float) -> str:
    """Write a time as well as it can be known."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return "less than a minute"
    hours, minutes = divmod(minutes, 60)
    return f"about {f'{hours:,} h ' if hours else ''}{minutes} min"

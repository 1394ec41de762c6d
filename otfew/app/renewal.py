"""Figures that are found while the page goes on: in a thread of their own, and anew where things change meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from otfew.errors import UserError

T = TypeVar("T")


class Renewal(Generic[T]):
    """Finds something slow about a thing that changes, without holding those up who change it.

    What was found about an earlier state is let go, and the search begins again; so what is taken is always of the
    present state.

    Args:
        lock: Around the thing; not held while a search goes on.
        prepare: Called with the lock: returns the search, which must not depend on what changes later.
        take: Called with the lock and what was found; the thing is as it was when the search began.
    """

    def __init__(self, lock: threading.Lock, prepare: Callable[[], Callable[[], T]], take: Callable[[T], None]) -> None:
        self.failure = ""
        """Why the last search has found nothing, or ""."""
        self._prepare, self._take = prepare, take
        self._done = threading.Condition(lock)
        self._version = 0
        self._worker: threading.Thread | None = None

    @property
    def running(self) -> bool:
        """Whether something is still to be found; ask with the lock."""
        return self._worker is not None

    def start(self) -> None:
        """Search, or search again: the thing has changed. Call it with the lock."""
        self._version += 1
        self.failure = ""
        if self._worker is None:
            self._worker = threading.Thread(target=self._work, name="otfew figures")
            self._worker.start()

    def wait(self) -> None:
        """Wait until all is found, or cannot be; call it with the lock, which others may have meanwhile."""
        self._done.wait_for(lambda: self._worker is None)

    def _work(self) -> None:
        """Search until what is found is of the present state."""
        try:
            while not self._once():
                pass
        except BaseException:
            # Whoever waits is told; the rest is for whoever reads the terminal.
            with self._done:
                self.failure = "something went wrong that is no fault of yours: see the terminal of otfew serve."
                self._end()
            raise

    def _once(self) -> bool:
        """Search once; return whether that was of the present state."""
        with self._done:
            version, search = self._version, self._prepare()
        found: list[T] = []
        said = ""
        try:
            found.append(search())
        except UserError as error:
            said = str(error)
        with self._done:
            if version != self._version:
                return False
            for one in found:
                self._take(one)
            self.failure = said
            self._end()
            return True

    def _end(self) -> None:
        self._worker = None
        self._done.notify_all()

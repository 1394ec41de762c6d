"""One line to whoever waits for numba, the first time."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_lock = threading.Lock()


@contextmanager
def announced(what: str) -> Iterator[None]:
    """Say on stderr that ``what`` is being compiled, if it is; loading what is kept goes unsaid."""
    from numba.core import event

    from otfew.transport.jit import writable_folder

    class Notice(event.Listener):
        """Speaks at the first compilation; loading from the cache triggers none."""

        said = False

        def on_start(self, _event: Any) -> None:
            if not self.said:
                self.said = True
                kept = "; this happens once, later runs load it" * (writable_folder(Path(__file__)) is not None)
                sys.stderr.write(f"otfew: compiling {what}{kept}\n")

        def on_end(self, _event: Any) -> None:
            """Nothing to say at the end."""

    with _lock, event.install_listener("numba:compile", Notice()):
        yield

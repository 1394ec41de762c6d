"""What a command prints never costs its work: whatever stdout can't show is spelled out, and if it ends, work goes on.

Results are files, always in UTF-8; stdout and stderr take the encoding of the terminal, or the one that the user sets,
which may have no "±".
"""

from __future__ import annotations

import codecs
import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SPELLINGS = {
    "±": "+/-", "–": "-", "—": "-", "−": "-", "×": "x", "·": "*", "…": "...", "→": "->", "←": "<-", "≤": "<=",
    "≥": ">=", "≈": "~", "µ": "u", "μ": "u", "²": "^2", "‘": "'", "’": "'", "“": '"', "”": '"', "•": "*",
    "─": "-", "━": "-", "╸": "-", "╺": "-", "│": "|", "┃": "|", "═": "=", "╭": "+", "╮": "+", "╰": "+", "╯": "+",
}  # fmt: skip
"""How a character is written where it can't be shown; any other becomes an escape such as \\u9ce5."""

_HANDLER = "otfew.spelled"


def _spell(error: UnicodeError) -> tuple[str, int]:
    """Replace what can't be encoded, as ``codecs`` wants it."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lost = error.object[error.start : error.end]
    plain = (SPELLINGS.get(c) or c.encode("ascii", "backslashreplace").decode("ascii") for c in lost)
    return "".join(plain), error.end


codecs.register_error(_HANDLER, _spell)


def spelled(text: str) -> str:
    """Return a text as stdout will show it, so that it can be laid out by its width there."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, _HANDLER).decode(encoding)


class Stream:
    """Stands before a text stream: the first failure to write is remembered, and what comes after is dropped.

    Args:
        inner: stdout or stderr; None, as Python has it where it was closed, shows nothing.

    Attributes:
        failure: Why it could not be written, or None.
    """

    def __init__(self, inner: Any) -> None:
        self._inner = open(os.devnull, "w", encoding="utf-8") if inner is None else inner  # noqa: SIM115
        self.failure: OSError | None = None
        if hasattr(self._inner, "reconfigure"):
            self._inner.reconfigure(errors=_HANDLER)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def write(self, text: str) -> int:
        """Write, or drop."""
        try:
            self._inner.write(text)
        except OSError as error:
            self._fail(error)
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write each."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Send on what is buffered, or drop it."""
        try:
            self._inner.flush()
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        """Remember the first failure, and let what is still buffered go nowhere."""
        self.failure = self.failure or error
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), self._inner.fileno())

    @property
    def loss(self) -> OSError | None:
        """The failure, where somebody wanted what could not be written: a pipe's reader that left had enough."""
        ended = self.failure is not None and self.failure.errno in {errno.EPIPE, errno.EINVAL}
        return None if ended else self.failure


@contextmanager
def guarded() -> Iterator[Stream]:
    """Put a ``Stream`` in the place of stdout and of stderr; yields that of stdout."""
    before = sys.stdout, sys.stderr
    output, errors = Stream(sys.stdout), Stream(sys.stderr)
    sys.stdout, sys.stderr = output, errors
    try:
        yield output
    finally:
        output.flush()
        errors.flush()
        sys.stdout, sys.stderr = before

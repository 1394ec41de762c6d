"""Whether something large may be fetched: as the caller says, else as somebody at the terminal does."""

from __future__ import annotations

import sys
from pathlib import Path

from otfew.errors import UserError
from otfew.runs import processes

LARGE = 100 * 10**6
"""Bytes that are fetched without a word."""


def ask(name: str, url: str, missing: int, into: Path, *, download: bool | None, instead: str) -> None:
    """Return where so much may be fetched.

    Args:
        name: Of the file.
        url: Where it is.
        missing: Bytes still to be fetched.
        into: Folder for it.
        download: True is a yes. None asks at a terminal about more than ``LARGE`` bytes, if one process runs.
        instead: What the user can do by hand, as the end of a sentence.

    Raises:
        UserError: Nobody has agreed.
    """
    if download or (download is None and missing <= LARGE):
        return
    size = in_words(missing)
    if download is None and processes.world().size == 1 and sys.stdin.isatty() and sys.stderr.isatty():
        sys.stderr.write(f"fetch {name}, {size}, from {url} into {into}? [y/N] ")
        sys.stderr.flush()
        if sys.stdin.readline().strip().lower() in {"y", "yes"}:
            return
        raise UserError(f"{name} was not fetched, as you chose: {instead}.")
    raise UserError(f"{name} is missing, {size} at {url}: give `download` to have it fetched, or {instead}.")


def in_words(size: int) -> str:
    """Write a number of bytes with three digits: "1.15 GB"."""
    for unit, scale in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= scale:
            return f"{size / scale:.3g} {unit}"
    return f"{size} bytes"

"""Caches made smaller, beside whatever runs: what is being written or read by others stays, and that is said."""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from otfew.caches import receipts
from otfew.caches.kinds import Item, items
from otfew.choices import CacheKind
from otfew.errors import UserError
from otfew.runs.files import reason

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_DAYS = {"h": 1 / 24, "d": 1.0, "w": 7.0}


@dataclass(frozen=True)
class Tidied:
    """What became of a cache.

    Attributes:
        removed: What is gone, or with ``dry_run`` would be.
        left: What should have gone, and why it could not.
        kept: What stays.
    """

    removed: tuple[Item, ...]
    left: tuple[tuple[Item, str], ...]
    kept: tuple[Item, ...]


def limit(
    kinds: Sequence[CacheKind], size: int | None = None, days: float | None = None, *, dry_run: bool = False
) -> Tidied:
    """Remove what has not been used for long, then what was used least lately until the rest is small enough.

    Args:
        kinds: Of caches; ``size`` is that of all together.
        size: The most bytes that stay; None for any number, 0 for nothing.
        days: Since an item was last used, before it goes; None for ever.
        dry_run: Remove nothing.

    Raises:
        UserError: Neither limit is given, or one is negative.
    """
    if size is None and days is None:
        raise UserError("nothing limits the cache: give `size`, `age` or both.")
    if (size or 0) < 0 or (days or 0) < 0:
        raise UserError("`size` and `age` must be at least 0.")
    now = time.time()
    found = sorted((item for kind in dict.fromkeys(kinds) for item in items(kind, now)), key=lambda item: item.used)
    total = sum(item.bytes for item in found)
    removed, left, kept = [], [], []
    for item in found:
        old = days is not None and now - item.used > 86_400 * days
        # What has no bytes goes too where nothing shall stay.
        large = size is not None and (total > size or size == 0)
        if not old and not large:
            kept.append(item)
            continue
        why = None if dry_run else remove(item)
        if why is None:
            removed.append(item)
            total -= item.bytes
        else:
            left.append((item, why))
    return Tidied(tuple(removed), tuple(left), tuple(kept))


def remove(item: Item) -> str | None:
    """Remove an item unless somebody needs it; say why it could not be.

    Files of features that another process has mapped stay readable to it until it ends; on systems where they cannot be
    removed then, they stay.
    """
    try:
        with _unlocked(item) as free:
            if not free:
                return "in use"
            if item.receipt is None:
                for path in item.paths:
                    path.unlink(missing_ok=True)
                return None
            return _remove_download(item, item.receipt)
    except OSError as error:
        return reason(error)


def _remove_download(item: Item, receipt: receipts.Receipt) -> str | None:
    path, file = item.paths
    with receipts.alone():
        if receipts.used(receipt):
            return "in use"
        if not receipt.intact():
            return "changed since it was fetched: remove it yourself"
        if path.is_dir() and not path.is_symlink():
            # Out of sight at once: a process that comes now finds all of it or nothing.
            away = path.with_name(f".removed-{path.name}")
            shutil.rmtree(away, ignore_errors=True)  # of a removal that was interrupted
            path.rename(away)
            shutil.rmtree(away)
        else:
            path.unlink(missing_ok=True)
    file.unlink(missing_ok=True)
    return None


@contextmanager
def _unlocked(item: Item) -> Iterator[bool]:
    """Take the lock of an item without waiting; False where another process has it."""
    if item.lock is None or not item.lock.parent.is_dir():
        yield True
        return
    from filelock import FileLock, Timeout

    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(FileLock(item.lock).acquire(timeout=0))
        except Timeout:
            yield False
            return
        yield True


def parse_size(text: str) -> int:
    """Read a number of bytes: "5GB", "500 MB", "20000"; units are powers of 1000.

    Raises:
        UserError: It is none.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)b?", text.strip().lower())
    if found is None:
        raise UserError(f"`size` is {text!r}: give a number of bytes, such as 5GB or 500MB.")
    return int(float(found[1]) * _UNITS[found[2]])


def parse_age(text: str) -> float:
    """Read a number of days: "30d", "12h", "2w", "30".

    Raises:
        UserError: It is none.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([hdw]?)", text.strip().lower())
    if found is None:
        raise UserError(f"`age` is {text!r}: give hours, days or weeks, such as 12h, 30d or 2w.")
    return float(found[1]) * _DAYS[found[2] or "d"]

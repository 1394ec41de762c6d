"""Receipts of downloads: what otfew itself put into folders of data, so that nothing else is ever taken from there.

They lie in the cache, one JSON file a download. Whoever reads data below a root holds a lock as long as its process
lives, and what is held is not removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from otfew.errors import UserError
from otfew.runs.files import cache_directory, locked, parse_json, write_atomically

if TYPE_CHECKING:
    from filelock import FileLock

_held: dict[str, FileLock] = {}
"""Locks of this process, by the name of their file; they go with the process."""


@dataclass(frozen=True)
class Receipt:
    """A file or folder that was fetched.

    Attributes:
        path: Absolute.
        lock: File that is locked while it is fetched.
        files: How many files it had then, and how many
        bytes: bytes; both 0 where it is not complete.
    """

    path: str
    lock: str
    files: int
    bytes: int

    def intact(self) -> bool:
        """Whether what lies there is still what was fetched, as far as numbers tell; what is incomplete always is."""
        return not self.files or measure(Path(self.path)) == (self.files, self.bytes)


def measure(path: Path) -> tuple[int, int]:
    """Count the files at a path, or below it, and their bytes; links count as themselves."""
    if not path.is_dir():
        return 1, path.lstat().st_size
    sizes = [os.lstat(os.path.join(top, name)).st_size for top, _, names in os.walk(path) for name in names]
    return len(sizes), sum(sizes)


def write(path: Path, lock: Path, *, complete: bool) -> None:
    """Remember a download; where that cannot be written it is only never removed.

    Args:
        path: What was, or is about to be, fetched.
        lock: File that is locked meanwhile.
        complete: False for a file that is being fetched.
    """
    place = os.path.abspath(path)
    with contextlib.suppress(UserError, OSError):
        files, size = measure(path) if complete else (0, 0)
        receipt = Receipt(place, os.path.abspath(lock), files, size)
        write_atomically(folder() / f"{_name(place)}.json", json.dumps(asdict(receipt)).encode())


def read() -> dict[Path, Receipt]:
    """Find all receipts whose download is still there: file of the receipt -> receipt."""
    found: dict[Path, Receipt] = {}
    for file in sorted(folder().glob("*.json")):
        with contextlib.suppress(OSError, ValueError, TypeError):
            receipt = Receipt(**parse_json(file.read_bytes()))
            if os.path.lexists(receipt.path):
                found[file] = receipt
    return found


def folder() -> Path:
    """Where receipts lie."""
    return cache_directory() / "downloads"


def hold(root: Path) -> None:
    """Keep what was fetched below a root from being removed while this process lives; writes nothing if nothing was.

    Args:
        root: Data root.
    """
    place = os.path.abspath(root)
    name = f"{_name(place)}.{os.getpid()}.use"
    if name in _held or not any(_is_below(receipt.path, place) for receipt in read().values()):
        return
    from filelock import FileLock, Timeout

    with contextlib.suppress(UserError, OSError, Timeout), alone():
        lock = FileLock(folder() / name)
        lock.acquire(timeout=0)
        _held[name] = lock


def used(receipt: Receipt) -> bool:
    """Whether a living process holds a root that the download is below; ask while ``alone``."""
    from filelock import FileLock, Timeout

    roots = {_name(str(parent)) for parent in Path(receipt.path).parents} | {_name(receipt.path)}
    for file in folder().glob("*.use"):
        if file.name.partition(".")[0] not in roots:
            continue
        try:
            with FileLock(file).acquire(timeout=0):
                file.unlink(missing_ok=True)  # of a process that has ended
        except Timeout:
            return True
    return False


@contextmanager
def alone() -> Iterator[None]:
    """Let nobody hold a root, or look who does, at the same time; never for long."""
    with locked(folder() / "roots.lock", lambda: None):
        yield


def _name(path: str) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:24]


def _is_below(path: str, root: str) -> bool:
    return path == root or Path(root) in Path(path).parents

"""Files that we write: whole or not at all; and what goes wrong there, said in one sentence."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from otfew.errors import UserError

Note = Callable[[str], None]
"""Called with a sentence about something that is said in passing, such as a damaged file that is made again."""


class DamagedError(Exception):
    """A file whose content is not what was written, for whatever reason."""


def cache_directory() -> Path:
    """Where caches lie: $OTFEW_CACHE, else the user's cache directory."""
    import platformdirs

    given = os.environ.get("OTFEW_CACHE")
    return Path(given) if given else Path(platformdirs.user_cache_dir("otfew"))


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the file system has against writing a file into a sentence: a full disk, rights, a folder in its place.

    Args:
        path: What is written.

    Raises:
        UserError: Instead of an ``OSError`` of the block.
    """
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write {path} ({reason(error)}): what was written before is whole; make room or rights, then the "
            "same command goes on from there."
        ) from error


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what the system has against reading a file into a sentence: too many open files, rights, no memory.

    Nothing is known then of what the file holds: it is not to be taken for damaged, removed or made again.

    Args:
        path: What is read.

    Raises:
        UserError: Instead of an ``OSError`` of the block; a file that isn't there stays a ``FileNotFoundError``.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(
            f"cannot read {path} ({reason(error)}): it is left as it is; mend that, then the same command goes on."
        ) from error


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that readers, and a start after a crash, see the old or the new one whole.

    Args:
        path: Of the file; folders above it are made.
        data: Its content.

    Raises:
        UserError: It can't be written, as on a full disk; what was there before is still there.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextmanager
def locked(path: Path, on_wait: Callable[[], object]) -> Iterator[None]:
    """Hold a lock between processes.

    Args:
        path: The lock's file; stays behind.
        on_wait: Called once where another process holds it, before waiting.

    Raises:
        UserError: There can be no such file, or no lock on it.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    with writing(path):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            on_wait()
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def reason(error: OSError) -> str:
    """Say in a few words what the system has against it."""
    return (error.strerror or str(error) or type(error).__name__).lower()


def sha256_of(path: Path) -> str:
    """Hash a file's content, piece by piece."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def parse_json(data: bytes) -> Any:
    """Read JSON that somebody else may have written.

    Raises:
        ValueError: It is not JSON in UTF-8, or nests too deeply to be read.
    """
    try:
        return json.loads(data.decode("utf-8"))
    except RecursionError:
        raise ValueError("it nests too deeply") from None

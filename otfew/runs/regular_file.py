"""Opening what a path names only where it is a regular file of bounded size.

A pipe blocks its reader until somebody writes, a device may never end, and a sparse file of a few bytes on disk can
claim terabytes. Whatever reads a file that a user, an archive or a download put there opens it here.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from otfew.errors import UserError

GIB = 2**30
"""Bytes in a GiB, the unit in which limits are written."""

LIST_BYTES = GIB // 4
"""The most of a list of images and classes; that of the 14 million images of all ImageNet would fit twice."""

CHECK = "check that it is the right one"
"""What a user is told to do with a file that is too large, if nothing better is known."""

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


def open_regular(path: str | os.PathLike[str], at_most: int, remedy: str = CHECK) -> BinaryIO:
    """Open a regular file for reading; links to regular files count.

    What is opened is looked at again, so that nothing slips in between the look and the opening, and the opening
    itself never waits for a writer.

    Args:
        path: The file.
        at_most: Bytes that it may hold.
        remedy: What the user is told to do with a larger one.

    Returns:
        The file, at its start; to be closed by the caller.

    Raises:
        UserError: It is no regular file or is larger, or no file can have that name.
        OSError: It is missing or may not be read.
    """
    regular_size(path, at_most, remedy)
    number = os.open(path, _FLAGS)
    try:
        _check(path, os.fstat(number), at_most, remedy)
    except UserError:
        os.close(number)
        raise
    return os.fdopen(number, "rb")


def read_regular(path: str | os.PathLike[str], at_most: int, remedy: str = CHECK) -> bytes:
    """All bytes of a regular file, for which see ``open_regular``; never more than ``at_most`` are held."""
    with open_regular(path, at_most, remedy) as file:
        # No more room is taken than it says that it needs: the limit may be far larger than the file.
        size = os.fstat(file.fileno()).st_size
        data = file.read(size + 1)
        if len(data) > size:
            data += file.read(at_most + 1 - len(data))
    if len(data) > at_most:  # it grew, or is one of those in /proc, which claim to be empty
        raise _too_large(path, len(data), at_most, remedy)
    return data


def regular_size(path: str | os.PathLike[str], at_most: int, remedy: str = CHECK) -> int:
    """Check a file for a library that insists on opening it itself, and tell its size in bytes.

    Args:
        path: The file.
        at_most: Bytes that it may hold.
        remedy: What the user is told to do with a larger one.

    Raises:
        UserError: It is no regular file or is larger, or no file can have that name.
        OSError: It is missing.
    """
    try:
        status = os.stat(path)
    except ValueError as error:  # a NUL byte
        raise UserError(f"{os.fspath(path)!r} cannot be the name of a file: {error}.") from error
    _check(path, status, at_most, remedy)
    return status.st_size


def _check(path: str | os.PathLike[str], status: os.stat_result, at_most: int, remedy: str) -> None:
    """Raise unless this is a regular file of at most so many bytes."""
    kind = stat.S_IFMT(status.st_mode)
    if kind != stat.S_IFREG:
        raise UserError(f"{Path(path)} is {_KINDS.get(kind, 'something else')}, not a regular file; give a file.")
    if status.st_size > at_most:
        raise _too_large(path, status.st_size, at_most, remedy)


def _too_large(path: str | os.PathLike[str], size: int, at_most: int, remedy: str) -> UserError:
    return UserError(
        f"{Path(path)} has {size:,} bytes or more, and at most {at_most:,} are read of such a file; {remedy}."
    )

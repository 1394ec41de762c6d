"""Unpack an archive so that nothing lands outside its folder and nothing half-done is ever seen."""

from __future__ import annotations

import lzma
import stat
import struct
import tarfile
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath, PureWindowsPath

from otfew.errors import UserError
from otfew.runs.regular_file import GIB, open_regular

LARGEST = 256 * GIB
"""Bytes of an archive that is unpacked."""

_ENCRYPTED = 1
"""Bit of a zip member's flags."""

_DAMAGED = (
    tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, struct.error, ValueError, IndexError,
    OverflowError,
    RuntimeError,  # such as NotImplementedError, for a way of compression that Python does not know
)  # fmt: skip
"""What Python's readers raise on damaged or unknown data."""


def unpack(archive: Path, creates: str, into: Path) -> None:
    """Unpack the top-level folder ``creates`` of a zip or tar archive as ``into / creates``.

    It is unpacked beside its destination first and renamed when complete. Links and devices are refused, as are names
    that lead elsewhere: no data set needs them.

    Args:
        archive: ``.zip``, or a tar file in any compression.
        creates: Folder to keep; the rest of the archive is left out.
        into: Existing folder.

    Raises:
        UserError: The archive is damaged, unsafe, or has no such folder.
        OSError: Nothing can be written there.
    """
    target = into / creates
    with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=into) as scratch:
        try:
            if archive.suffix.lower() == ".zip":
                _unpack_zip(archive, creates, Path(scratch))
            else:
                _unpack_tar(archive, creates, Path(scratch))
        except UserError:
            raise
        except _DAMAGED as error:
            raise UserError(f"archive {archive} is damaged ({error}); remove it and try again.") from error
        except OSError as error:
            if error.errno is not None:
                raise
            # bz2 and gzip say so that their data are wrong.
            raise UserError(f"archive {archive} is damaged ({error}); remove it and try again.") from error
        folder = Path(scratch) / creates
        if not folder.is_dir():
            raise UserError(f"archive {archive} has no folder {creates}; remove it and try again.")
        try:
            folder.rename(target)
        except OSError:
            if not target.is_dir():  # otherwise another process was faster
                raise


def _unpack_zip(archive: Path, creates: str, scratch: Path) -> None:
    with open_regular(archive, LARGEST) as file, zipfile.ZipFile(file) as opened:
        members = opened.infolist()
        for member in members:
            if member.flag_bits & _ENCRYPTED:
                raise UserError(f"archive {archive} is encrypted: fetch the original, or decrypt it first.")
            _check(archive, member.filename, plain=not stat.S_ISLNK(member.external_attr >> 16))
        for member in members:
            if _top(member.filename) == creates:
                opened.extract(member, scratch)


def _unpack_tar(archive: Path, creates: str, scratch: Path) -> None:
    with open_regular(archive, LARGEST) as file, tarfile.open(fileobj=file) as opened:
        members = opened.getmembers()
        for member in members:
            _check(archive, member.name, plain=member.isfile() or member.isdir())
        kept = [member for member in members if _top(member.name) == creates]
        if hasattr(tarfile, "data_filter"):  # Python 3.10 before 3.10.12 has none
            opened.extractall(scratch, kept, filter="data")
        else:
            opened.extractall(scratch, kept)


def _top(name: str) -> str:
    return next(iter(PurePosixPath(name).parts), "")


def _check(archive: Path, name: str, *, plain: bool) -> None:
    """Refuse an archive with a member that is not a file or folder below the top, on any system."""
    windows = PureWindowsPath(name)
    outside = PurePosixPath(name).is_absolute() or windows.drive or windows.root or ".." in windows.parts
    if outside or not plain:
        what = "would be written outside its folder" if outside else "is neither a file nor a folder"
        raise UserError(f"archive {archive} is refused: its member {name!r} {what}; remove it and fetch the original.")

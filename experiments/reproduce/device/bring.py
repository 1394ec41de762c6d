"""What a call brings back: an archive in pieces of bounded size, longer by each result as soon as that is there."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from otfew.errors import UserError
from otfew.runs.files import write_atomically

MB = 1_000_000
RESULTS, STATES = "results.tar.gz", "states.tar.gz"
"""Records, answers and weights of jobs that have ended; and what those go on from that have not."""
STATE = "state.pt"
SKIPPED = {"blocks", "tensorboard"}
"""Folders of a job that stay: what is in them is in its records too."""
RECORDS = {".json", ".csv", ".tex", ".md", ".txt", ".npz"}
WEIGHTS = ".safetensors"
PACKED = {".npz", WEIGHTS, ".pt"}
"""Kinds of files that a harder compression would not make smaller."""


class Archive:
    """An archive, NAME.00, NAME.01, ...: each file in it is a stream of gzip of its own, so that it can be appended to.

    ``cat NAME.* | tar xz`` unpacks it. Pieces that are full never change again. What was added since the last
    ``write`` is in memory alone.

    Args:
        folder: Of the pieces; those that are there are gone on with.
        name: Of the archive.
        most: Bytes of all its pieces.
        piece: Bytes of one.
    """

    def __init__(self, folder: Path, name: str, most: int, piece: int) -> None:
        self.folder, self.name, self.most, self.piece = folder, name, most, piece
        self._pieces = pieces(folder, name)
        self.bytes = sum(path.stat().st_size for path in self._pieces)
        self._tail = self._pieces[-1].read_bytes() if self._pieces else b""

    @property
    def files(self) -> list[str]:
        """Names of its pieces."""
        return [path.name for path in self._pieces]

    @property
    def room(self) -> int:
        """Bytes that are left."""
        return max(0, self.most - self.bytes)

    def add(self, name: str, content: bytes) -> bool:
        """Add a file, where there is room for it.

        Args:
            name: JOB/FILE.
            content: Of the file.

        Returns:
            Whether it was added.

        Raises:
            UserError: A piece can't be written.
        """
        member = tarfile.TarInfo(name)
        member.size = len(content)
        padded = member.tobuf(tarfile.PAX_FORMAT) + content + bytes(-len(content) % tarfile.BLOCKSIZE)
        packed = gzip.compress(padded, compresslevel=1 if PurePosixPath(name).suffix in PACKED else 9, mtime=0)
        if len(packed) > self.room:
            return False
        self.bytes += len(packed)
        rest = memoryview(packed)
        while rest:
            if not self._pieces or len(self._tail) == self.piece:
                self.write()
                self._pieces.append(self.folder / f"{self.name}.{len(self._pieces):02d}")
                self._tail = b""
            share = self.piece - len(self._tail)
            self._tail += rest[:share]
            rest = rest[share:]
        return True

    def write(self) -> None:
        """Write the last piece.

        Raises:
            UserError: It can't be written.
        """
        if self._pieces:
            write_atomically(self._pieces[-1], self._tail)


def pieces(folder: Path, name: str) -> list[Path]:
    """Find the pieces of an archive, in order."""
    return sorted(folder.glob(f"{name}.[0-9][0-9]"))


def contents(folder: Path, name: str) -> Iterator[tuple[str, bytes]]:
    """Read an archive file by file, JOB/FILE and its bytes; of a file that is in it twice, the later one is right.

    Raises:
        UserError: It is damaged, or holds what no queue puts in.
    """
    found = pieces(folder, name)
    if not found:
        return
    whole = b"".join(path.read_bytes() for path in found)
    try:
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(whole)), mode="r:") as archive:
            for member in archive:
                parts = PurePosixPath(member.name).parts
                opened = archive.extractfile(member) if member.isreg() else None
                if opened is None or len(parts) < 2 or {"..", "/"} & set(parts) or "\\" in member.name:
                    raise ValueError(f"it holds {member.name!r}")
                yield member.name, opened.read()
    except (OSError, EOFError, ValueError, tarfile.TarError) as error:
        raise UserError(
            f"{folder / name} is no whole archive of a queue ({error}): bring all its pieces, or leave it out."
        ) from None


def records(job: Path) -> list[Path]:
    """Name the files of a job that has ended, records first, then weights."""
    found = [
        path for path in sorted(job.rglob("*")) if path.is_file() and not SKIPPED & set(path.relative_to(job).parts)
    ]
    small = [path for path in found if path.suffix in RECORDS]
    return [*small, *(path for path in found if path.suffix == WEIGHTS)]


def bring(job: Path, files: Sequence[Path], archive: Archive) -> list[str]:
    """Add files of a job to an archive.

    Returns:
        Names of those that there was no room for.
    """
    left = []
    for path in files:
        inside = path.relative_to(job).as_posix()
        if not archive.add(f"{job.name}/{inside}", path.read_bytes()):
            left.append(inside)
    archive.write()
    return left

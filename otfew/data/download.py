"""Fetch a publisher's archive: resumed where it broke off, and checked by its sha256."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from otfew.caches import receipts
from otfew.data.consent import ask
from otfew.data.unpack import unpack
from otfew.errors import UserError
from otfew.runs.files import locked
from otfew.runs.lines import Lines

if TYPE_CHECKING:
    import requests

_CHUNK = 1 << 18
_TIMEOUT_SECONDS = 30.0
_PARTIAL_CONTENT, _RANGE_NOT_SATISFIABLE = 206, 416


@dataclass(frozen=True)
class Archive:
    """One file that a publisher offers.

    Attributes:
        url: Where it is.
        sha256: Its checksum, in hexadecimal.
        creates: The one top-level folder in it that is kept.
        size: Bytes; 0 where it is small.
    """

    url: str
    sha256: str
    creates: str
    size: int = 0

    @property
    def filename(self) -> str:
        """Last part of the URL."""
        return PurePosixPath(self.url).name


def install(archive: Archive, into: Path, *, instead: str, download: bool | None = None) -> Path:
    """Download and unpack ``archive`` unless its folder is already there.

    An interrupted download goes on where it stopped at the next call, and a complete archive is not fetched again.
    The folder appears under its name only when it is complete; then the archive is removed.

    Args:
        archive: What to fetch.
        into: Folder that ``archive.creates`` is put in; made if missing.
        instead: What the user can do by hand, as the end of a sentence.
        download: Whether something large may be fetched, see ``otfew.data.consent``.

    Returns:
        ``into / archive.creates``.

    Raises:
        UserError: Nobody agreed to a large download, no connection, a wrong checksum, an archive that reaches outside
            its folder, or nowhere to write.
    """
    target = into / archive.creates
    if target.is_dir():
        return target
    if target.exists():
        raise UserError(f"{target} is a file: remove it, and {instead}.")
    have = sum(path.stat().st_size for path in _on_the_way(into, archive.filename) if path.is_file())
    ask(archive.filename, archive.url, archive.size - have, into, download=download, instead=instead)
    try:
        with _alone(into, archive.filename) as lock:
            if target.is_dir():
                return target
            for path in _on_the_way(into, archive.filename):
                receipts.write(path, lock, complete=False)
            path = _fetch(archive.url, f"sha256:{archive.sha256}", into, instead)
            unpack(path, archive.creates, into)
            path.unlink(missing_ok=True)
            receipts.write(target, lock, complete=True)
    except OSError as error:
        raise UserError(f"cannot store {archive.filename} in {into} ({error.strerror or error}); {instead}.") from error
    return target


def install_file(url: str, checksum: str, into: Path, *, instead: str) -> Path:
    """Download a single file that needs no unpacking, unless it is already there.

    Args:
        url: Where it is.
        checksum: "sha256:..." or, where a publisher gives no other, "md5:...".
        into: Folder to put it in; made if missing.
        instead: What the user can do by hand, as the end of a sentence.

    Returns:
        Its path.

    Raises:
        UserError: No connection, a wrong checksum, or nowhere to write.
    """
    try:
        with _alone(into, PurePosixPath(url).name) as lock:
            path = _fetch(url, checksum, into, instead)
            receipts.write(path, lock, complete=True)
            return path
    except OSError as error:
        raise UserError(f"cannot store {url} in {into} ({error.strerror or error}); {instead}.") from error


def _on_the_way(into: Path, name: str) -> tuple[Path, Path]:
    """Where an archive is while it is fetched, and until it is unpacked."""
    return into / f"{name}.part", into / name


@contextmanager
def _alone(into: Path, name: str) -> Iterator[Path]:
    """Let one process at a time fetch a file, and name the lock: two that append to one file would ruin it."""
    into.mkdir(parents=True, exist_ok=True)
    lock = into / f".{name}.lock"
    with locked(lock, lambda: sys.stderr.write(f"another process downloads {name}; waiting for it\n")):
        yield lock


def _fetch(url: str, checksum: str, into: Path, instead: str) -> Path:
    """The verified file in ``into``, under the last part of its URL."""
    import pooch
    import requests

    name = PurePosixPath(url).name
    try:
        path = pooch.retrieve(url, checksum, name, into, downloader=ResumingDownloader(into / f"{name}.part"))
    except requests.RequestException as error:
        raise UserError(f"downloading {url} failed ({_reason(error)}); try again to go on, or {instead}.") from error
    except ValueError as error:  # pooch's way to report a wrong checksum; it has removed the file
        kind, _, digest = checksum.partition(":")
        raise UserError(f"{url} is not the published file: its {kind} is not {digest[:16]}...; {instead}.") from error
    return Path(path)


def _reason(error: Exception) -> str:
    """A few words, instead of the nested text that requests gives."""
    response = getattr(error, "response", None)
    return type(error).__name__ if response is None else f"the server answered {response.status_code}"


class ResumingDownloader:
    """A downloader for pooch that collects the bytes in a partial file and asks only for those still missing.

    Args:
        part: The partial file; it survives an interruption.
    """

    def __init__(self, part: Path) -> None:
        self.part = part

    def __call__(self, url: str, output_file: str, pooch: object) -> None:
        """Download ``url`` to ``output_file``; pooch calls this.

        Raises:
            requests.RequestException: The server cannot be reached, refuses, or ends too early.
        """
        if not self._append(url):
            self.part.unlink()
            self._append(url)
        os.replace(self.part, output_file)

    def _append(self, url: str) -> bool:
        """Fetch what is missing; False if the partial file is longer than what the server has."""
        import requests

        have = self.part.stat().st_size if self.part.exists() else 0
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT_SECONDS) as response:
            if have and response.status_code == _RANGE_NOT_SATISFIABLE:
                return response.headers.get("Content-Range", "").endswith(f"/{have}")
            response.raise_for_status()
            if response.status_code != _PARTIAL_CONTENT:
                have = 0  # the server sends everything from the start
            length = response.headers.get("Content-Length")
            self._write(response, have, None if length is None else have + int(length))
        return True

    def _write(self, response: requests.Response, have: int, total: int | None) -> None:
        """Append the body to the partial file, and tell how far it is: a bar on a terminal, else a line a minute."""
        import requests
        from rich.console import Console
        from rich.progress import DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

        columns = (*Progress.get_default_columns()[:2], DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        terminal = sys.stderr.isatty()
        lines = Lines(lambda line: sys.stderr.write(f"{line}\n"), f"fetching {self.part.stem}:", "MB")
        with (
            self.part.open("ab" if have else "wb") as file,
            Progress(*columns, console=Console(stderr=True), disable=not terminal) as progress,
        ):
            task = progress.add_task(self.part.stem, total=total, completed=have)
            for chunk in response.iter_content(_CHUNK):
                have += file.write(chunk)
                progress.advance(task, len(chunk))
                if total is not None and not terminal:
                    lines(have // 10**6, total // 10**6)
        if total is not None and have != total:
            raise requests.ConnectionError(f"{have} of {total} bytes arrived")

"""Archives of arrays (``.npz``) are looked at before anything in them is unpacked."""

from __future__ import annotations

import zipfile

TIMES = 200
"""Times its own bytes that an archive may unpack to: zeros shrink a thousandfold, features and answers some tenfold."""
FREE = 1 << 26
"""Bytes that any archive may unpack to."""


def check_unpacked(archive: zipfile.ZipFile) -> None:
    """Refuse an archive that unpacks to far more than it holds, so that a small file cannot fill the memory.

    Args:
        archive: Opened for reading; nothing is unpacked.

    Raises:
        ValueError: It unpacks to more than ``TIMES`` the bytes of its members and more than ``FREE``.
    """
    members = archive.infolist()
    unpacked, packed = sum(member.file_size for member in members), sum(member.compress_size for member in members)
    if unpacked > max(FREE, TIMES * packed):
        raise ValueError(f"{packed:,} bytes unpack to {unpacked:,}: save it without compression")

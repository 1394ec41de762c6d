"""What was compiled, kept as files: whole or not at all, under a checksum, where this machine lets us write."""

from __future__ import annotations

import hashlib
import tempfile
import uuid
from pathlib import Path

_SEAL = hashlib.sha256().digest_size
"""Bytes of checksum in front of what is kept: machine code with a flipped bit would run all the same."""


def load(path: Path, stamp: bytes = b"") -> bytes | None:
    """Read what was kept, if it is whole and has this stamp."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    seal, content = content[:_SEAL], content[_SEAL:]
    if hashlib.sha256(content).digest() != seal or not content.startswith(stamp):
        return None
    return content[len(stamp) :]


def save(path: Path, content: bytes, stamp: bytes = b"") -> bool:
    """Write under a stamp, at once for all who read meanwhile; tell whether that was possible."""
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex[:16]}")
    content = stamp + content
    try:
        partial.write_bytes(hashlib.sha256(content).digest() + content)
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        return False
    return True


def home() -> Path | None:
    """Name the folder of compiled code in the user's cache; None without a home."""
    import platformdirs

    folder = Path(platformdirs.user_cache_dir("otfew", appauthor=False))
    # Without a home the path begins with "~".
    return folder / "compiled" if folder.is_absolute() else None


def place(sources: Path) -> str:
    """Name the folder, among those of others, of what is compiled from the files in a folder."""
    return f"{sources.name}_{hashlib.sha256(str(sources).encode()).hexdigest()[:16]}"


def writable(folder: Path) -> bool:
    """Make a folder where it is missing, and tell whether files can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False

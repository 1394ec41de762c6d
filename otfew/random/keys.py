"""Keys: hashes of what something random is a function of."""

from __future__ import annotations

import hashlib


def digest(text: str) -> bytes:
    """Hash a text; in the order of these bytes, names are shuffled alike on every machine, whatever their number."""
    return hashlib.sha256(text.encode()).digest()


def key128(text: str) -> int:
    """Hash a text into a key of Philox: 128 bits."""
    return int.from_bytes(digest(text)[:16], "little")


def hashed(*key: int) -> int:
    """Hash integers into a seed of 63 bits: neighbouring keys give unrelated seeds."""
    return int.from_bytes(digest("/".join(map(str, key)))[:8], "little") >> 1

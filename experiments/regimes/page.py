"""docs/regimes.md, written from the record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def page(record: Mapping[str, Any]) -> str:
    """Write the page."""
    return f"{record['advice']['text']}\n"

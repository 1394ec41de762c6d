"""What a run is: the versions that its figures depend on, and its short name."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Mapping
from typing import Any

from otfew.runs.directory import to_json


def versions() -> dict[str, str]:
    """Versions that figures may depend on."""
    names = ("otfew", "torch", "numpy", "numba", "scipy", "scikit-learn")
    return {name: importlib.metadata.version(name) for name in names}


def short_hash(identity: Mapping[str, Any]) -> str:
    """Tell runs apart by what they are: eight hexadecimal digits."""
    return hashlib.sha256(to_json(identity)).hexdigest()[:8]

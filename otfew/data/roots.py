"""Where data lie."""

from __future__ import annotations

import os
import re
from pathlib import Path

VARIABLE = "OTFEW_DATA"
"""Environment variable that names the data root."""


def default_root() -> Path:
    """Return the data root where none is given: $OTFEW_DATA, else the folder ``otfew/data`` among the user's caches."""
    if value := os.environ.get(VARIABLE):
        return Path(value).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("otfew", appauthor=False)) / "data"


def find_folder(root: Path, name: str, *markers: str) -> Path | None:
    """The folder of a data set: ``root / name``, or ``root`` itself if that is what the user pointed at.

    Args:
        root: Data root.
        name: Name that the publisher gives the folder; case, "-" and "_" do not matter.
        markers: Entries of which one must be in it.
    """
    candidates = [root / name, *(path for path in sorted(root.iterdir()) if plain(path.name) == plain(name)), root]
    return next((path for path in candidates if any((path / marker).exists() for marker in markers)), None)


def plain(name: str) -> str:
    """Spell a folder's name without what people write in different ways: case, hyphens, underscores and spaces."""
    return re.sub(r"[-_ ]", "", name).lower()

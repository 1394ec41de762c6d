"""Where mkdocstrings reads the packages: `otfew.methods` and its like lie beside `otfew`, and nothing is installed.

A folder of links, laid out as a wheel is, stands for an installation: what is read is never imported.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority

ROOT = Path(__file__).parents[2]
BESIDE = ("methods", "baselines", "experiments")
"""Folders beside `otfew` that are packages of it (`package-dir` in pyproject.toml)."""

# Kept while the module lives, which is as long as the build or the server does.
_layout = tempfile.TemporaryDirectory(prefix="otfew-layout-")


@event_priority(100)
def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Lay the packages out before mkdocstrings reads its options."""
    package = Path(_layout.name) / "otfew"
    if not package.exists():
        package.mkdir()
        for path in [*sorted((ROOT / "otfew").iterdir()), *(ROOT / name for name in BESIDE)]:
            (package / path.name).symlink_to(path, target_is_directory=path.is_dir())
    config.plugins["mkdocstrings"].config.handlers["python"]["paths"] = [_layout.name]
    return config

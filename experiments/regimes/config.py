"""Options of the command; imports nothing heavy, so that ``--help`` is there at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from otfew.experiments.common.options import WithRun

QUICK = ("plain", "control")
"""Cells of a quick look."""
QUICK_EPISODES = 50


@dataclass
class Config(WithRun):
    """Map what exact transport adds to Chamfer and to product coupling, and put the advice to the test.

    Cells that are finished are kept in --output: the same command goes on where it was interrupted, and other cells,
    networks or numbers of episodes are added to them. The record, and with it the page, has every finished cell of
    these episodes, this seed and these networks, whichever --cells are run now.
    """

    cells: tuple[str, ...] = ()
    """Which are run: ids, axes, parts or settings, with * and ? as in file names. Default: all."""
    episodes: int = 600
    """How many of each cell; fewer than 200 decide nothing."""
    seed: int = 1
    """Seed of the episodes."""
    quick: bool = False
    """Unchanged images and the designed control alone, 50 episodes each: whether all is there; not for --docs."""
    networks: tuple[str, ...] = ()
    """NAME=BACKBONE each: a network of a kind beside those of the table, as a path, package.module:factory, ..."""
    photos: Path | None = None
    """Folder of class folders of photos, six of each at least. Default: those cells are left out."""
    data_root: Path | None = None
    """Folder of data sets. Default: $OTFEW_DATA, then a cache folder."""
    docs: Path | None = None
    """Write page, picture and records into this folder as well."""
    render: bool = False
    """Run nothing: compute the record in --docs anew from its right answers, and write page and picture."""
    list: bool = False
    """Print the cells and stop."""

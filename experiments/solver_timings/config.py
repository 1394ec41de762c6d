"""The options of solver-timings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from otfew.choices import Part
from otfew.experiments.common.options import WithRun


@dataclass
class Config(WithRun):
    """Time every installed solver over sizes and batches, and DeepEMD's accuracy with each.

    The run is kept in --output: the same command goes on where it was interrupted. Times want an idle machine.
    """

    solvers: tuple[str, ...] = ("all",)
    """Solvers, or all that are installed."""
    sizes: tuple[int, ...] = (5, 9, 25, 49, 100, 225)
    """Nodes on each side of a problem."""
    batches: tuple[int, ...] = (1, 16, 375)
    """Problems in a batch."""
    point_sizes: tuple[int, ...] = (100, 300, 1000, 3000)
    """Points in each of two clouds."""
    regs: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
    """Strengths of regularisation at which accuracy is measured."""
    reg: float = 0.05
    """Strength for the timings of entropic solvers, in units of the cost."""
    point_reg: float = 0.5
    """The same for point clouds."""
    features: Path | None = None
    """Your own features (.safetensors or .npz), also timed, instead of a data set and a backbone."""
    dataset: str | None = None
    """Data set of the episodes. Default: glyphs."""
    data_root: Path | None = None
    """Folder of data sets. Default: $OTFEW_DATA, then a cache folder."""
    download: Annotated[bool | None, tyro.conf.DisallowNone] = None
    """Fetch what is missing where the publisher allows it. Default: ask about more than 100 MB at a terminal, and
    fetch no such thing elsewhere."""
    backbone: str | None = None
    """As in compare."""
    resolution: int | None = None
    """As in compare."""
    split: Part = "test"
    """train, val or test."""
    way: int = 5
    """Classes in an episode."""
    shot: int = 1
    """Labelled images of each class."""
    query: int = 2
    """Images to classify of each class: with five classes, 50 problems an episode."""
    episodes: int = 300
    """How many episodes."""
    seed: int = 1
    """Seed of the episodes."""
    call_seconds: float = 1.0
    """Calls that are predicted to take longer are left out, and said."""
    episode_seconds: float = 20.0
    """The same for all episodes of one solver."""
    merge: Path | None = None
    """results.json of another run, say of an environment with qpth, whose solvers are added."""
    quick: bool = False
    """A few small sizes, few turns and few episodes: to see that all works."""
    output: Path | None = None
    """Folder of the run. Default: runs/solver-timings-HASH."""

"""Options that commands which train share, each declared once. Imports no library, so that ``--help`` is quick."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from otfew.choices import Crop, CubSplit


@dataclass(frozen=True)
class SplitChoices:
    """Options of data sets, under the names of ``otfew.data.DataOptions``."""

    cub_split: CubSplit = "feat"
    """Split list for CUB: "feat" (Ye et al. 2020, DeepEMD) or "closerlook" (Chen et al. 2019)."""
    split_seed: int = 0
    """Seed of the class split of image-folder, and of a CSV file without splits."""
    depth: int = 1
    """Levels from the folder of image-folder down to its class folders: 2 for GROUP/CLASS/photo.jpg."""
    download: Annotated[bool | None, tyro.conf.DisallowNone] = None
    """Fetch what is missing where the publisher allows it. Default: ask about more than 100 MB at a terminal, and
    fetch no such thing elsewhere."""


@dataclass(frozen=True)
class WithImages:
    """Which images are trained on."""

    dataset: str = "glyphs"
    """Name of the data set, or a CSV file of image,label[,split][,domain]; its train split is learned, its val split
    validates every epoch."""
    data_root: Path | None = None
    """Folder of the data; default $OTFEW_DATA, then a cache directory; of a CSV file its own."""
    backbone: str = ""
    """Architecture, or where to start."""


@dataclass(frozen=True)
class WithCheckpoint:
    """What becomes of a training."""

    crop: Crop | None = None
    """Validation images: whole ("none") or DeepEMD's centre crop ("center"); default by data set."""
    name: str = ""
    """Of the checkpoint; default DATASET-BACKBONE."""
    output: Path | None = None
    """Folder for NAME.safetensors, NAME.json, history.json and state.pt; default runs/NAME. The same command resumes a
    run that was stopped."""
    half: bool = True
    """Store half-precision weights."""
    val_episodes: int = 500
    """Validation episodes (5-way 1-shot)."""
    select: str = "last"
    """The epoch that is kept."""
    min_scale: float | None = None
    """Least share of the area in a random crop; default 0.08, for characters 0.6."""
    flip: bool | None = None
    """Mirror training images; default all but characters."""
    colour: float = 0.0
    """Strength of random brightness, contrast and saturation."""
    tensorboard: bool = True
    """Write curves for TensorBoard beside the checkpoint."""
    save_every: float = 60.0
    """Seconds of work that a crash may cost at most, short of one step."""
    data: Annotated[SplitChoices, tyro.conf.arg(name="")] = field(default_factory=SplitChoices)
    """Options of the data set."""

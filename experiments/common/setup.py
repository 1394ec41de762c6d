"""What every command does before its work: console, device, threads, data and backbone."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from rich.console import Console

from otfew import api
from otfew.choices import Crop, CubSplit, Part
from otfew.data import DataOptions
from otfew.errors import UserError
from otfew.experiments.common import console as _console
from otfew.experiments.common.watch import ConsoleWatch
from otfew.features.material import Material
from otfew.runs import processes


class MaterialOptions(Protocol):
    """The part of a command line that says what methods run on, whatever the data set; see ``common.options``."""

    data_root: Path | None
    split: Part
    backbone: str | None
    resolution: int | None
    crop: Crop | None
    allow_overlap: bool
    trained_on: str | None
    cub_split: CubSplit
    split_seed: int
    download: bool | None
    depth: int


make_console = _console.make_console


def open_material(
    options: MaterialOptions, dataset: str | None, features: Path | None, nodes: str, console: Console
) -> Material:
    """Open the user's features, or a split and a backbone.

    Args:
        options: The command line.
        dataset: As ``otfew.data.find`` takes it; None takes glyphs, where there are no features.
        features: The user's own features instead, or None.
        nodes: Kind of nodes for all methods; "" for what each prefers.
        console: Where progress is shown.

    Raises:
        UserError: Anything is missing or unknown, or classes were seen in training.
    """
    if features is not None:
        api.refuse_images(dataset=dataset, backbone=options.backbone, resolution=options.resolution, crop=options.crop)
    return api.open_material(
        dataset or api.DATASET,
        features,
        split=options.split,
        data_root=options.data_root,
        options=DataOptions(options.cub_split, options.split_seed, options.download, options.depth),
        backbone=options.backbone,
        resolution=options.resolution,
        crop=options.crop,
        nodes=nodes,
        allow_overlap=options.allow_overlap,
        trained_on=options.trained_on,
        watch=ConsoleWatch(console),
    )


check_solver = api.check_solver
pick_device = api.pick_device


def set_threads(threads: int) -> int:
    """Let torch, and with it the exact solver, use so many threads; 0 means this process's share of the cores."""
    import torch

    if threads < 0:
        raise UserError(f"--threads must be at least 0, not {threads}.")
    threads = threads or max(1, processes.cores() // processes.world().local_size)
    torch.set_num_threads(threads)
    return threads


def need_one_process(command: str) -> None:
    """Raise ``UserError`` where a command whose work is not shared was started as several processes."""
    if (size := processes.world().size) > 1:
        raise UserError(f"{command} does not share its work, but {size} processes were started: start one.")

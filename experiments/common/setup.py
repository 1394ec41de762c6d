"""What every command does before its work: console, device, threads, data and backbone, versions."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console

from otfew.data import DataOptions
from otfew.errors import UserError
from otfew.features.material import FileMaterial, Material, load_image_material
from otfew.reporting.console import PlainConsole
from otfew.runs import processes
from otfew.runs.directory import to_json


class MaterialOptions(Protocol):
    """The part of a command line that says what methods run on, whatever the data set; see ``compare.Config``."""

    data_root: Path | None
    split: str
    backbone: str | None
    resolution: int | None
    crop: str | None
    allow_overlap: bool
    cub_split: str
    split_seed: int


def make_console() -> Console:
    """Write to stdout, the main process alone; lines for files and pipes are wide enough for the tables."""
    if not processes.world().is_main:
        return PlainConsole(quiet=True, force_terminal=False)
    console = PlainConsole()
    return console if console.is_terminal else PlainConsole(width=max(120, console.width))


def open_material(
    options: MaterialOptions, dataset: str, features: Path | None, nodes: str, console: Console
) -> Material:
    """Open the user's features, or a split and a backbone.

    Args:
        options: The command line.
        dataset: Key of ``DATASETS``.
        features: The user's own features instead, or None.
        nodes: Kind of nodes for all methods; "" for what each prefers.
        console: Where progress is shown.

    Raises:
        UserError: Anything is missing or unknown, or classes were seen in training.
    """
    if features is not None:
        return FileMaterial(features)
    if options.cub_split not in {"feat", "closerlook"}:
        raise UserError(f"unknown --cub-split {options.cub_split!r}: choose feat or closerlook.")
    # What has to be fetched or drawn is fetched or drawn once a machine.
    with processes.leaders_first():
        return load_image_material(
            dataset,
            options.split,
            options.data_root,
            DataOptions(cub_split=options.cub_split, split_seed=options.split_seed),  # type: ignore[arg-type]
            options.backbone,
            options.resolution,
            options.crop,
            nodes,
            options.allow_overlap,
            console,
        )


def check_solver(name: str) -> None:
    """Raise ``UserError`` unless the solver exists and is installed."""
    from otfew.transport.registry import resolve

    try:
        resolve(name)
    except (ValueError, ImportError) as error:
        raise UserError(f"--solver: {error}.") from error


def pick_device(name: str) -> str:
    """Choose where to compute; raises ``UserError`` where there is no such device.

    Processes of one machine take its accelerators in turn, unless the name says which.
    """
    import torch

    from otfew import devices

    here = processes.world()
    if name in {"auto", "cuda"} and here.size > 1 and torch.cuda.is_available():
        name = f"cuda:{here.local_rank % torch.cuda.device_count()}"
    try:
        return str(devices.pick(name, among=("cuda",)))  # methods need float64, which MPS lacks
    except UserError as error:
        raise UserError(f"--{error}") from error


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


def versions() -> dict[str, str]:
    """Versions that figures may depend on."""
    names = ("otfew", "torch", "numpy", "numba", "scipy", "scikit-learn")
    return {name: importlib.metadata.version(name) for name in names}


def short_hash(identity: Mapping[str, Any]) -> str:
    """Tell runs apart by what they are."""
    return hashlib.sha256(to_json(identity)).hexdigest()[:8]

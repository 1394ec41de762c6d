"""An episode of a run, to look at: ``otfew episode RUN 17``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from otfew.experiments.common.cli import parse, run

if TYPE_CHECKING:
    from rich.console import Console


@dataclass
class Config:
    """Show an episode of a run: its labelled images, its queries, and what each method took them for.

    RUN is the folder of a run of compare or of an analysis; INDEX counts its episodes from 0.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of the run."""
    index: Annotated[int, tyro.conf.Positional]
    """Number of the episode."""
    panel: str = ""
    """Which part of a run that has several, such as shot-5-seed-2."""
    methods: tuple[str, ...] = ()
    """Methods whose answers are shown. Default: all that ran."""
    report: Path | None = None
    """Also write a page (.html), with pictures where the run was of images."""
    data_root: Path | None = None
    """Folder of data sets, for the pictures. Default: $OTFEW_DATA, then a cache folder."""
    dataset: str = ""
    """Data set as the run was given it, where its name does not lead there."""
    depth: int = 1
    """Levels from the folder of image-folder down to its class folders, as the run had them."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and show the episode.

    Args:
        arguments: Instead of those of the process.
    """
    config = parse(Config, "episode", arguments)
    from otfew.experiments.common import setup

    show(config, setup.make_console())


def show(config: Config, console: Console) -> None:
    """Print an episode, and write its page where that is asked for.

    Args:
        config: The command line.
        console: Where tables go.

    Raises:
        UserError: There is no such run or episode, or its images are not at hand for a page.
    """
    from otfew.data import DataOptions
    from otfew.reporting.result import load
    from otfew.reporting.tables import terminal

    found = load(config.run, config.panel)
    found.episode(config.index)  # what is refused is refused before images are looked for
    if config.report is not None and found.of_images:
        found = found.reopen(config.data_root, DataOptions(download=False, depth=config.depth), config.dataset)
    episode = found.episode(config.index)
    if config.methods:
        episode = episode.only(config.methods)
    if config.report is not None:
        episode.save(config.report)
    for table in episode.tables():
        console.print(terminal(table))
    for line in episode.lines:
        console.print(f"- {line}", markup=False, highlight=False)
    if config.report is not None:
        console.print(f"report: {config.report}", markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    run(main)

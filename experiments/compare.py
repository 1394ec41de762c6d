"""Compare few-shot methods on the very same episodes: ``python -m experiments.compare --dataset cub``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from otfew.experiments.common.cli import parse, run
from otfew.experiments.common.options import WithBackbone, WithEpisodes, WithOneSet, WithRun

if TYPE_CHECKING:
    from rich.console import Console


@dataclass
class Config(WithRun, WithEpisodes, WithBackbone, WithOneSet):
    """Run few-shot methods on the same episodes and compare them, with two kinds of intervals.

    The run is kept in --output: the same command goes on where it was interrupted.
    """

    dataset: str = "glyphs"
    """Data set, a CSV file of image,label[,split][,domain], or package.module:Name of your own; --list prints names."""
    output: Path | None = None
    """Folder of the run. Default: runs/compare-DATASET-HASH."""
    methods: tuple[str, ...] = ("all",)
    """Methods, or all that apply; package.module:Name of your own; options behind a colon, as in
    deepemd:shot_head=sfc,solver=sinkhorn."""
    shot: int = 1
    """Labelled images of each class."""
    fixed_classes: bool = False
    """Every class in each episode, for classes that are these and no others: intervals are then over photos."""
    unknown_classes: int = 0
    """Classes in an episode without labelled images: adds how well they are told, log-loss and Brier score."""
    nodes: str = ""
    """Kind of nodes for all methods; package.module:Name of your own. Default: what each method prefers."""
    reference: str = ""
    """Method that the others are compared with. Default: cosine-centroid, else the first."""
    solver: str = "exact"
    """Transport solver; package.module:Name of your own."""
    list_names: Annotated[bool, tyro.conf.arg(name="list")] = False
    """Print data sets, backbones, nodes, methods and solvers, and end."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and compare.

    Args:
        arguments: Instead of those of the process.
    """
    config = parse(Config, "compare", arguments)
    from otfew.experiments.common import setup

    console = setup.make_console()
    if config.list_names:
        from otfew.experiments.common.names import print_names

        print_names(console)
    else:
        compare(config, console)


def compare(config: Config, console: Console) -> Path:
    """Run the comparison, write its report and print it.

    Args:
        config: The command line.
        console: Where table and progress go.

    Returns:
        Folder of the run.

    Raises:
        UserError: Whatever the user can set right; nothing is written or overwritten then.
    """
    from otfew import api
    from otfew.experiments.common import setup
    from otfew.experiments.common.watch import ConsoleWatch
    from otfew.reporting.tables import Table, terminal

    setup.set_threads(config.threads)
    # Every option is an argument of the function of the same name, but for these.
    given = {f.name: getattr(config, f.name) for f in fields(config) if f.name not in {"threads", "list_names"}}
    comparison = api.compare(**{**given, "output": config.output or _folder}, watch=ConsoleWatch(console))
    assert comparison.folder is not None
    console.print(terminal(Table(comparison.title, *comparison.cells())))
    for line in comparison.lines:
        console.print(f"- {line}", markup=False, highlight=False)
    console.print(f"report: {comparison.folder}", markup=False, highlight=False, soft_wrap=True)
    return comparison.folder


def _folder(identity: Mapping[str, Any]) -> Path:
    """Name the folder of a run that has been given none."""
    from otfew.plugins import file_name
    from otfew.runs.identity import short_hash

    return Path("runs") / f"compare-{file_name(identity['protocol']['data']['dataset'])}-{short_hash(identity)}"


if __name__ == "__main__":
    run(main)

"""Compare few-shot methods on the very same episodes: ``python -m experiments.compare --dataset cub``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from otfew.experiments.common.cli import parse, run
from otfew.experiments.common.options import WithBackbone, WithData, WithEpisodes, WithRun

if TYPE_CHECKING:
    from rich.console import Console

    from otfew.reporting.joined import Joined
    from otfew.reporting.result import Comparison

NO_ARGUMENTS = {"threads", "list_names", "features", "shots", "seeds"}
"""Options that are not handed on under their names."""


@dataclass
class Config(WithRun, WithEpisodes, WithBackbone, WithData):
    """Run few-shot methods on the same episodes and compare them, with two kinds of intervals.

    The run is kept in --output: the same command goes on where it was interrupted.
    """

    dataset: str | None = None
    """Data set, a CSV file of image,label[,split][,domain], or package.module:Name of your own; --list prints names.
    Default: glyphs."""
    features: tuple[Path, ...] = ()
    """Your own features (.safetensors or .npz) instead of a data set and a backbone; several files, of the same images,
    are compared with each other."""
    output: Path | None = None
    """Folder of the run. Default: runs/compare-DATASET-HASH."""
    methods: tuple[str, ...] = ("all",)
    """Methods, or all that apply, also beside others; package.module:Name of your own; options behind a colon, as in
    deepemd:shot_head=sfc,solver=sinkhorn."""
    shot: int = 1
    """Labelled images of each class."""
    shots: tuple[int, ...] = ()
    """Several numbers of them in one run, in place of --shot; the table has a column for each."""
    seeds: tuple[int, ...] = ()
    """Several seeds of the episodes in one run, in place of --seed; their figures are pooled."""
    fixed_classes: bool = False
    """Every class in each episode, for classes that are these and no others: intervals are then over photos."""
    unknown_classes: int = 0
    """Classes in an episode without labelled images: adds how well they are told, log-loss and Brier score."""
    support_domain: str | None = None
    """Where labelled images come from, if not from the data set as it is: a view as in --query-domain, or the other
    value of the CSV file's column."""
    query_domain: str | None = None
    """Where images to classify come from: a view such as blur:2 (edges, blur, dark, clutter, occlusion, scale; severity
    1, 2 or 3), a folder with the same class names, or a value of a CSV file's column domain."""
    nodes: str = ""
    """Kind of nodes for all methods; package.module:Name of your own. Default: what each method prefers."""
    reference: str = ""
    """Method that the others are compared with. Default: cosine-centroid, else the first."""
    solver: str = "exact"
    """Transport solver; package.module:Name of your own."""
    logits: bool = False
    """Keep the logits of every query too, in answers.npz."""
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
    from otfew.reporting.tables import terminal

    setup.set_threads(config.threads)
    # Every option is an argument of the function of the same name, but for these.
    given = {f.name: getattr(config, f.name) for f in fields(config) if f.name not in NO_ARGUMENTS}
    given |= {"output": config.output or _folder, "watch": ConsoleWatch(console)}
    found: Comparison | Joined
    if config.seeds or config.shots or len(config.features) > 1:
        found = api.compare_over(seeds=config.seeds, shots=config.shots, features=config.features, **given)
    else:
        found = api.compare(features=config.features[0] if config.features else None, **given)
    assert found.folder is not None
    for table in found.tables():
        console.print(terminal(table))
    for line in found.lines:
        console.print(f"- {line}", markup=False, highlight=False)
    console.print(f"report: {found.folder}", markup=False, highlight=False, soft_wrap=True)
    return found.folder


def _folder(identity: Mapping[str, Any]) -> Path:
    """Name the folder of a run that has been given none."""
    from otfew.plugins import file_name
    from otfew.runs.identity import short_hash

    protocol = identity["protocol"] if "protocol" in identity else next(iter(identity["panels"].values()))
    return Path("runs") / f"compare-{file_name(protocol['data']['dataset'])}-{short_hash(identity)}"


if __name__ == "__main__":
    run(main)

"""Compare few-shot methods on the very same episodes: ``python -m experiments.compare --dataset cub``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from otfew import catalogue
from otfew.errors import UserError
from otfew.evaluation.episodes import Protocol, Sampler
from otfew.evaluation.lineup import choose, pick_reference
from otfew.evaluation.run import Scores
from otfew.evaluation.running import competitor, get_ready, query_settings, run_episodes, timings
from otfew.experiments.common import setup
from otfew.experiments.common.cli import parse, run
from otfew.features.extract import BASE_IMAGES
from otfew.reporting import comparison as report
from otfew.runs.directory import RunDirectory, to_json


@dataclass
class Config:
    """Run few-shot methods on the same episodes and compare them, with two kinds of intervals.

    The run is kept in --output: the same command goes on where it was interrupted.
    """

    dataset: str = "glyphs"
    """Data set; --list prints them."""
    data_root: Path | None = None
    """Folder of data sets. Default: $OTFEW_DATA, then a cache folder."""
    features: Path | None = None
    """Your own features (.safetensors or .npz) instead of a data set and a backbone."""
    methods: tuple[str, ...] = ("all",)
    """Methods, or all that apply."""
    way: int = 5
    """Classes in an episode."""
    shot: int = 1
    """Labelled images of each class."""
    query: int = 15
    """Images to classify of each class."""
    query_balance: str = "balanced"
    """balanced, or dirichlet:ALPHA: as many queries in all, divided among the classes at random (2 is usual)."""
    class_prior: str = "uniform"
    """What transductive methods are told of the classes' shares in the queries: uniform, true (an oracle) or estimated
    (nothing)."""
    episodes: int = 600
    """How many episodes."""
    seed: int = 1
    """Seed of the episodes."""
    split: str = "test"
    """train, val or test."""
    backbone: str | None = None
    """Name, path of a .safetensors file, package.module:factory or timm:NAME. Default: ours for the data set, else
    efficientnet-lite0."""
    nodes: str = ""
    """Kind of nodes for all methods. Default: what each method prefers."""
    resolution: int | None = None
    """Side of the images in pixels. Default: that of the backbone's training."""
    crop: str | None = None
    """none or center (resize to 92/84 of the side, cut out the middle). Default: center for photographs."""
    reference: str = ""
    """Method that the others are compared with. Default: cosine-centroid, else the first."""
    solver: str = "exact"
    """Transport solver."""
    output: Path | None = None
    """Folder of the run. Default: runs/compare-DATASET-HASH."""
    allow_overlap: bool = False
    """Go on although the backbone has seen the evaluated classes, and say so."""
    cub_split: str = "feat"
    """Class split of CUB: feat or closerlook."""
    split_seed: int = 0
    """Seed of the class split of image-folder."""
    device: str = "auto"
    """auto, cpu, cuda, ..."""
    threads: int = 0
    """CPU threads; 0 takes all cores, or of several processes each its share."""
    list_names: Annotated[bool, tyro.conf.arg(name="list")] = False
    """Print data sets, backbones, nodes, methods and solvers, and end."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and compare.

    Args:
        arguments: Instead of those of the process.
    """
    config = parse(Config, "compare", arguments)
    console = setup.make_console()
    if config.list_names:
        from otfew.experiments.common.listing import print_names

        print_names(console)
    else:
        compare(config, console)


def compare(config: Config, console: Console) -> Path:
    """Run the comparison and write its report.

    Args:
        config: The command line.
        console: Where table and progress go.

    Returns:
        Folder of the run.

    Raises:
        UserError: Whatever the user can set right; nothing is written or overwritten then.
    """
    # What needs no data is checked first.
    episode_protocol = Protocol(
        config.dataset, "", config.split, config.seed, config.way, config.shot, config.query, config.query_balance
    )
    if config.episodes < 1:
        raise UserError(f"--episodes must be at least 1, not {config.episodes}.")
    setup.check_solver(config.solver)
    device = setup.pick_device(config.device)
    threads = setup.set_threads(config.threads)
    for name in config.methods:
        if name != "all":
            catalogue.find(name)

    material = setup.open_material(config, config.dataset, config.features, config.nodes, console)
    described = material.describe()
    data = described["data"]
    keyed = replace(episode_protocol, **{name: data[name] for name in ("dataset", "variant", "split")})
    sampler = Sampler(keyed, material.labels, material.classes)
    places, not_run = choose(config.methods, material, config.solver, device)
    reference = pick_reference(config.reference, places)
    protocol = {
        **described,
        **{name: getattr(config, name) for name in ("way", "shot", "query", "episodes", "seed", "solver")},
        **query_settings(sampler, config.class_prior, [place.kind for place in places]),
        "allow_overlap": config.allow_overlap,
        "device": device.partition(":")[0],
        "base_images_per_class": BASE_IMAGES,
        "methods": {place.name: {"nodes": place.nodes, "options": place.options} for place in places},
        "order": [place.name for place in places],
        "reference": reference,
    }
    identity = {"command": "compare", "format": report.FORMAT, "protocol": protocol, "versions": setup.versions()}
    output = config.output or Path("runs") / f"compare-{data['dataset']}-{setup.short_hash(identity)}"
    RunDirectory.check(output, identity)
    # Features first: an image that cannot be used must not leave a claimed folder behind.
    contenders = [get_ready(place, material, device, config.class_prior) for place in places]  # type: ignore[arg-type]
    directory = RunDirectory(output, identity)
    scores = run_episodes(contenders, sampler, config.episodes, directory, device, console)
    competitors = [competitor(*pair) for pair in zip(places, contenders, strict=True)]
    classes = sampler(0, config.episodes).classes
    results = {
        **identity,
        "class_names": list(material.classes),
        "not_run": not_run,
        **report.compare(competitors, scores, classes, material.classes, reference),
    }
    images = config.way * (config.shot + config.query)
    directory.write("classes.csv", report.classes_csv(classes, material.classes))
    _write(directory, results, timings(contenders, scores, images, device, threads), scores, console)
    return output


def _write(
    directory: RunDirectory,
    results: dict[str, Any],
    times: dict[str, Any],
    scores: dict[str, Scores],
    console: Console,
) -> None:
    """Write the report's files and print the table."""
    from otfew.reporting.accuracy_plot import accuracy_vs_time
    from otfew.reporting.tables import Table, terminal

    head, rows = report.table(results, times)
    lines = [*report.transport_lines(results), *report.protocol_lines(results), *report.timing_lines(times)]
    names = results["protocol"]["order"]
    directory.write("results.json", to_json(results))
    directory.write("timings.json", to_json(times))
    directory.write("episodes.csv", report.episodes_csv(names, scores))
    directory.write("report.md", report.markdown(head, rows, lines).encode())
    directory.write("accuracy_vs_time.png", accuracy_vs_time(results, times))
    console.print(terminal(Table(f"accuracy on {results['protocol']['data']['dataset']}, %", head, rows)))
    for line in lines:
        console.print(f"- {line}", markup=False, highlight=False)
    console.print(f"report: {directory.path}", markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    run(main)

"""Compare few-shot methods on the very same episodes: ``python -m experiments.compare --dataset cub``."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from otfew import catalogue, report
from otfew.data import DataOptions
from otfew.episodes import Protocol, Sampler
from otfew.errors import UserError
from otfew.evaluation import Contender, Scores, evaluate
from otfew.experiments._cli import parse, run
from otfew.experiments._lineup import Place, choose, pick_reference
from otfew.experiments._material import FileMaterial, Material, load_image_material
from otfew.features import BASE_IMAGES
from otfew.run_directory import RunDirectory, to_json


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
    """CPU threads; 0 takes all cores."""
    list_names: Annotated[bool, tyro.conf.arg(name="list")] = False
    """Print data sets, backbones, nodes, methods and solvers, and end."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and compare.

    Args:
        arguments: Instead of those of the process.
    """
    config = parse(Config, "compare", arguments)
    console = _console()
    if config.list_names:
        from otfew.experiments._listing import print_names

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
        config.dataset, "", config.split, config.seed, way=config.way, shot=config.shot, query=config.query
    )
    if config.episodes < 1:
        raise UserError(f"--episodes must be at least 1, not {config.episodes}.")
    _check_solver(config.solver)
    device = _device(config.device)
    threads = _set_threads(config.threads)
    for name in config.methods:
        if name != "all":
            catalogue.find(name)

    material = _material(config, console)
    described = material.describe()
    data = described["data"]
    keyed = replace(episode_protocol, **{name: data[name] for name in ("dataset", "variant", "split")})
    sampler = Sampler(keyed, material.labels, material.classes)
    places, not_run = choose(config.methods, material, config.solver)
    reference = pick_reference(config.reference, places)
    protocol = {
        **described,
        **{name: getattr(config, name) for name in ("way", "shot", "query", "episodes", "seed", "solver")},
        "allow_overlap": config.allow_overlap,
        "device": device.partition(":")[0],
        "base_images_per_class": BASE_IMAGES,
        "methods": {place.name: {"nodes": place.nodes, "options": place.options} for place in places},
        "order": [place.name for place in places],
        "reference": reference,
    }
    identity = {"command": "compare", "format": report.FORMAT, "protocol": protocol, "versions": _versions()}
    output = config.output or Path("runs") / f"compare-{data['dataset']}-{_short_hash(identity)}"
    RunDirectory.check(output, identity)
    # Features first: an image that cannot be used must not leave a claimed folder behind.
    contenders = [_contender(place, material, device) for place in places]
    directory = RunDirectory(output, identity)
    scores = _evaluate(contenders, sampler, config.episodes, directory, device, console)
    competitors = [
        report.Competitor(p.name, p.nodes, p.name in catalogue.ot_methods(), p.kind.transductive) for p in places
    ]
    classes = sampler(0, config.episodes).classes
    results = {
        **identity,
        "class_names": list(material.classes),
        "not_run": not_run,
        **report.compare(competitors, scores, classes, material.classes, reference),
    }
    timings = _timings(contenders, scores, config, str(device), threads)
    _write(directory, results, timings, scores, console)
    return output


def _console() -> Console:
    """Write to stdout; lines for files and pipes are wide enough for the table."""
    console = Console()
    return console if console.is_terminal else Console(width=max(120, console.width))


def _material(config: Config, console: Console) -> Material:
    """Open the user's features, or a split and a backbone."""
    if config.features is not None:
        return FileMaterial(config.features)
    if config.cub_split not in {"feat", "closerlook"}:
        raise UserError(f"unknown --cub-split {config.cub_split!r}: choose feat or closerlook.")
    return load_image_material(
        config.dataset,
        config.split,
        config.data_root,
        DataOptions(cub_split=config.cub_split, split_seed=config.split_seed),  # type: ignore[arg-type]
        config.backbone,
        config.resolution,
        config.crop,
        config.nodes,
        config.allow_overlap,
        console,
    )


def _contender(place: Place, material: Material, device: str) -> Contender:
    """Get a method ready: its features, and the base mean where it needs it."""
    options = dict(place.options)
    features = material.features(place.nodes, device)
    digest = hashlib.sha256(features.source["features_sha256"].encode())
    if place.kind.needs_base_mean:
        options["base_mean"] = material.base_mean(place.nodes, device)
        digest.update(options["base_mean"].numpy().tobytes())
    method = catalogue.build(place.name, **options)
    return Contender(place.name, method, features.pooled if place.kind.pools else features, digest.hexdigest())


def _evaluate(
    contenders: list[Contender],
    sampler: Sampler,
    episodes: int,
    directory: RunDirectory,
    device: str,
    console: Console,
) -> dict[str, Scores]:
    """Run all episodes under a progress bar."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("episodes", total=episodes * len(contenders))
        return evaluate(
            contenders,
            sampler,
            episodes,
            directory=directory,
            device=device,
            progress=lambda done, name: bar.update(task, advance=done, description=f"episodes: {name}"),
            note=lambda text: console.print(text, markup=False, highlight=False),
        )


def _timings(
    contenders: list[Contender], scores: dict[str, Scores], config: Config, device: str, threads: int
) -> dict[str, Any]:
    """Collect times, with the machine they were taken on; never part of results.json."""
    images = config.way * (config.shot + config.query)
    methods: dict[str, dict[str, float]] = {}
    extraction: dict[str, float] = {}
    for contender in contenders:
        spent = scores[contender.name].milliseconds
        methods[contender.name] = {"ms_per_episode": spent}
        per_image = contender.features.milliseconds
        if per_image is not None:
            extraction[contender.features.nodes_spec] = per_image
            methods[contender.name]["ms_per_episode_with_extraction"] = spent + images * per_image
    machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    return {
        "methods": methods,
        "extraction_ms_per_image": extraction,
        "device": device,
        "threads": threads,
        "machine": machine,
    }


def _write(
    directory: RunDirectory,
    results: dict[str, Any],
    timings: dict[str, Any],
    scores: dict[str, Scores],
    console: Console,
) -> None:
    """Write the report's files and print the table."""
    from otfew.experiments._plot import accuracy_vs_time
    from otfew.experiments._table import render

    head, rows = report.table(results, timings)
    lines = [*report.transport_lines(results), *report.protocol_lines(results)]
    names = results["protocol"]["order"]
    directory.write("results.json", to_json(results))
    directory.write("timings.json", to_json(timings))
    directory.write("episodes.csv", report.episodes_csv(names, scores))
    directory.write("report.md", report.markdown(head, rows, lines).encode())
    directory.write("accuracy_vs_time.png", accuracy_vs_time(results, timings))
    console.print(render(f"accuracy on {results['protocol']['data']['dataset']}, %", head, rows))
    for line in lines:
        console.print(f"- {line}", markup=False, highlight=False)
    console.print(f"report: {directory.path}", markup=False, highlight=False, soft_wrap=True)


def _check_solver(name: str) -> None:
    """Raise ``UserError`` unless the solver exists and is installed."""
    from otfew.transport.registry import resolve

    try:
        resolve(name)
    except (ValueError, ImportError) as error:
        raise UserError(f"--solver: {error}.") from error


def _device(name: str) -> str:
    """Choose where to compute; raises ``UserError`` where there is no such device."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=name)
    except Exception as error:
        raise UserError(f"--device {name!r} cannot be used: choose auto, cpu, or what torch finds here.") from error
    return name


def _set_threads(threads: int) -> int:
    """Let torch, and with it the exact solver, use so many threads; 0 means all cores."""
    import torch

    if threads < 0:
        raise UserError(f"--threads must be at least 0, not {threads}.")
    threads = threads or os.cpu_count() or 1
    torch.set_num_threads(threads)
    return threads


def _versions() -> dict[str, str]:
    """Versions that figures may depend on."""
    names = ("otfew", "torch", "numpy", "numba", "scipy", "scikit-learn")
    return {name: importlib.metadata.version(name) for name in names}


def _short_hash(identity: dict[str, Any]) -> str:
    """Tell runs apart by what they are."""
    return hashlib.sha256(to_json(identity)).hexdigest()[:8]


if __name__ == "__main__":
    run(main)

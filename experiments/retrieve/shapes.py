"""Retrieval of shapes in several views, by shapes or by sketches; the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from otfew import backbones
from otfew.backbones.base import Backbone
from otfew.backbones.cards import SUFFIX
from otfew.data.base import ImageSet
from otfew.data.modalities import need_same_classes
from otfew.data.preparation import Preparation
from otfew.data.roots import default_root
from otfew.data.shapes.sets import load_shapes, load_sketches
from otfew.data.views import ViewSet, every_view
from otfew.errors import UserError
from otfew.experiments.common import setup
from otfew.experiments.common.watch import ConsoleWatch
from otfew.experiments.metric_learning.checkpoints import SIDES
from otfew.experiments.metric_learning.material import VIEW_RESOLUTION
from otfew.experiments.retrieve.config import Config
from otfew.features.extract import FeatureSet, extract
from otfew.nodes import parse
from otfew.reporting import shapes as shape_report
from otfew.reporting.tables import sections, terminal, to_csv
from otfew.retrieval.metrics import METRICS
from otfew.retrieval.reranking import scores_named
from otfew.retrieval.run import check_gallery
from otfew.retrieval.views import MAXIMUM, Measured, across_modalities, among_shapes
from otfew.runs.directory import RunDirectory, to_json
from otfew.runs.files import cache_directory
from otfew.runs.identity import short_hash, versions

RERANK = 100
WHOLE_IMAGE = "fcn:1,nomap"
"""The mean of a view's map: what a network says of it."""


@dataclass(frozen=True)
class _Sides:
    """What is found, and what asks for it.

    Attributes:
        shapes: The gallery.
        views: Its views, each an image.
        sketches: The queries; None where the shapes themselves are.
        network: What views go through.
        queries: What sketches go through.
        preparation: Of views.
        drawn: Of sketches.
    """

    shapes: ViewSet
    views: ImageSet
    sketches: ImageSet | None
    network: Backbone
    queries: Backbone
    preparation: Preparation
    drawn: Preparation


def refuse_without_shapes(config: Config) -> None:
    """Refuse options of shapes where there are none."""
    for name in ("query_modality", "query_backbone", "views"):
        if getattr(config, name):
            raise UserError(f"--{name.replace('_', '-')} goes with a set of shapes, such as --dataset shapes.")


def run_shapes(config: Config, console: Console) -> Path:
    """Retrieve shapes and write the report.

    Args:
        config: The command line; its data set is one of shapes.
        console: Where table and progress go.

    Returns:
        Folder of the run.

    Raises:
        UserError: Whatever the user can set right; nothing is written or overwritten then.
    """
    _check(config)
    device = setup.pick_device(config.device)
    setup.set_threads(config.threads)
    watch = ConsoleWatch(console)
    sides = _open(config, watch)
    check_gallery(sides.shapes.labels, sides.shapes.classes)
    protocol = _protocol(config, sides, device)
    identity = {
        "command": "retrieve",
        "format": shape_report.FORMAT,
        "protocol": protocol,
        "versions": versions(),
    }
    output = config.output or Path("runs") / f"retrieve-{config.dataset}-{short_hash(identity)}"
    RunDirectory.check(output, identity)
    count = sides.shapes.views
    found = _vectors(sides.views, sides.network, sides.preparation, device, watch)
    views = found.nodes.view(-1, count, found.nodes.shape[2])
    labels = torch.from_numpy(sides.shapes.labels)
    if sides.sketches is None:
        asked = sides.shapes.labels
        with watch.task("queries") as step:
            measured = among_shapes(
                views, labels, scores_named(list(protocol["scores"]), config.solver), protocol["rerank"], step
            )
    else:
        drawn = _vectors(sides.sketches, sides.queries, sides.drawn, device, watch)
        asked = _labels_along(sides.shapes.classes, sides.sketches)
        measured = across_modalities(_alike(drawn, views), torch.from_numpy(asked), views, labels)
    results = {**identity, **shape_report.compare(measured, MAXIMUM, asked, sides.shapes.classes)}
    _write(RunDirectory(output, identity), results, measured, console)
    return output


def _check(config: Config) -> None:
    """Refuse what needs no data."""
    for name in ("nodes", "patch_resolution"):
        if getattr(config, name):
            raise UserError(f"--{name.replace('_', '-')} is of images: a shape's nodes are its views. Leave it out.")
    if config.split not in {None, "train", "val", "test"}:
        raise UserError(f"--split of shapes is train, val or test, not {config.split}.")
    if config.all_pairs and config.rerank is not None:
        raise UserError("--all-pairs scores everything: leave out --rerank, or --all-pairs.")
    if config.rerank is not None and config.rerank < 1:
        raise UserError(f"--rerank must be at least 1, not {config.rerank}.")
    if config.query_modality and (config.rerank is not None or config.all_pairs):
        raise UserError("sketches have no views that could rank again: leave out --rerank and --all-pairs.")
    if config.query_backbone and not config.query_modality:
        raise UserError("--query-backbone goes with --query-modality sketch.")
    setup.check_solver(config.solver)


def _open(config: Config, watch: ConsoleWatch) -> _Sides:
    """Load shapes, sketches and networks."""
    name, split = str(config.dataset), config.split or "test"
    network = backbones.load(config.backbone, dataset=name, trained_on=config.trained_on)
    queries = _query_network(config, network)
    if split == "train" and network.card.dataset == name and not config.allow_overlap:
        raise UserError(
            f"backbone {network.name!r} was trained on these very shapes: give --split test, or --allow-overlap."
        )
    root = config.data_root or default_root()
    sketches = load_sketches(name, root, split) if config.query_modality else None
    with watch.task("rendering") as step:
        sketched = None if sketches is None else sketches.classes
        shapes = load_shapes(name, root, split, config.views, _counter(step), sketched)
    return _Sides(
        shapes,
        every_view(shapes, name, split),
        sketches,
        network,
        queries,
        _preparation(config, network),
        _preparation(config, queries),
    )


def _preparation(config: Config, network: Backbone) -> Preparation:
    """Say at which size a network sees pictures: that of its training, unless the command line has another."""
    trained = network.card.external or bool(network.card.training_data)
    side = config.resolution or (network.card.resolution if trained else VIEW_RESOLUTION)
    return Preparation(side, config.crop or "none")


def _query_network(config: Config, network: Backbone) -> Backbone:
    """Load what sketches go through: the network that was trained with the shapes' one, where it lies beside it."""
    if config.query_backbone is not None:
        return backbones.load(config.query_backbone, dataset=str(config.dataset), trained_on=config.trained_on)
    if config.query_modality and config.backbone is not None and config.backbone.endswith(SUFFIX):
        beside = Path(config.backbone.removesuffix(SUFFIX) + SIDES[1] + SUFFIX)
        if beside.is_file():
            return backbones.load(str(beside))
    return network


def _counter(step: Callable[[int, int], None]) -> Callable[[int], None]:
    """Turn a total followed by zeros into how far rendering is."""
    total = done = 0

    def count(number: int) -> None:
        nonlocal total, done
        if number:
            total, done = number, 0
        else:
            done += 1
            step(done, total)

    return count


def _vectors(
    images: ImageSet, network: Backbone, preparation: Preparation, device: str, watch: ConsoleWatch
) -> FeatureSet:
    """Extract a vector of each image, or take them from the cache."""
    with watch.task(f"extracting {images.variant}") as progress:
        return extract(
            images,
            network.to(device),
            parse(WHOLE_IMAGE),
            preparation,
            cache_directory() / "features",
            progress=progress,
            note=watch.note,
        )


def _labels_along(classes: Sequence[str], sketches: ImageSet) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Number sketches by the shapes' classes."""
    place = {name: label for label, name in enumerate(classes)}
    need_same_classes(classes, sketches.classes, sketches.split)
    return np.array([place[name] for name in sketches.classes], dtype=np.int64)[sketches.labels]


def _alike(drawn: FeatureSet, views: Tensor) -> Tensor:
    """Return the sketches' vectors, (Q, C), if they have the channels of the views'."""
    vectors = drawn.nodes[:, 0]
    if vectors.shape[1] != views.shape[2]:
        raise UserError(
            f"sketches have {vectors.shape[1]} channels and shapes {views.shape[2]}: give networks that were trained "
            "together."
        )
    return vectors


def _protocol(config: Config, sides: _Sides, device: str) -> dict[str, Any]:
    """Say what the results are a function of."""
    others = len(sides.shapes) - 1
    across = sides.sketches is not None
    rerank = others if config.all_pairs else min(config.rerank or RERANK, others)
    notes = [*sides.views.notes, *(sides.sketches.notes if sides.sketches is not None else ())]
    return {
        "dataset": config.dataset,
        "split": sides.views.split,
        "classes": len(sides.shapes.classes),
        "shapes": len(sides.shapes),
        "views": sides.shapes.views,
        "queries": {"modality": config.query_modality or "shape", "items": len(sides.sketches or sides.shapes)},
        "digests": [sides.shapes.digest, *([sides.sketches.digest] if sides.sketches is not None else [])],
        "notes": list(dict.fromkeys(notes)),
        "backbone": _described(sides.network, sides),
        **(
            {"query_backbone": _described(sides.queries, sides), "query_resolution": sides.drawn.resolution}
            if across
            else {}
        ),
        "resolution": sides.preparation.resolution,
        "crop": sides.preparation.crop,
        "scores": [] if across else list(dict.fromkeys(config.scores)),
        "solver": config.solver,
        "rerank": 0 if across else rerank,
        "device": device.partition(":")[0],
    }


def _described(network: Backbone, sides: _Sides) -> dict[str, Any]:
    """Say what a network is, and whether what is compared is what it has learned."""
    card = network.card
    seen, _ = backbones.classes_seen(card, sides.shapes.classes, dataset=card.dataset)
    return {
        "name": card.name,
        "architecture": card.architecture,
        "sha256": network.digest,
        "training_data": card.training_data,
        "external": card.external,
        "classes_seen": seen,
        "head": list(card.protocol.get("head", ())),
    }


def _write(
    directory: RunDirectory, results: dict[str, Any], measured: Mapping[str, Measured], console: Console
) -> None:
    """Write the report's files and print the table."""
    table, lines = shape_report.table(results), shape_report.lines(results)
    directory.write("results.json", to_json(results))
    rows: list[tuple[str | int | float, ...]] = []
    for name, found in measured.items():
        columns = np.stack([found[metric] for metric in METRICS], 1).round(8)
        rows += ((name, i, *("" if np.isnan(x) else x for x in row.tolist())) for i, row in enumerate(columns))
    directory.write("queries.csv", to_csv(["ranking", "query", *METRICS], rows))
    directory.write("report.md", sections([table], lines, gap="\n").encode())
    console.print(terminal(table))
    for line in lines:
        console.print(f"- {line}", markup=False, highlight=False)
    console.print(f"report: {directory.path}", markup=False, highlight=False, soft_wrap=True)

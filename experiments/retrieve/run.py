"""One retrieval: global vectors rank, local nodes rank again, and the report."""

from __future__ import annotations

import io
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from otfew import plugins
from otfew.data.preparation import Preparation
from otfew.data.shapes.sets import SHAPES
from otfew.errors import UserError
from otfew.evaluation.study import units_of
from otfew.experiments.common import setup
from otfew.experiments.common.watch import ConsoleWatch, counted
from otfew.experiments.retrieve.config import Config
from otfew.experiments.retrieve.shapes import refuse_without_shapes, run_shapes
from otfew.features.extract import FeatureSet
from otfew.features.material import ImageMaterial, Material
from otfew.nodes import cuts_patches
from otfew.nodes import parse as parse_nodes
from otfew.reporting import retrieval as retrieval_report
from otfew.reporting.retrieval import MAIN
from otfew.reporting.tables import sections, terminal, to_csv
from otfew.retrieval.reranking import CONTROLS, TRANSPORT, scores_named
from otfew.retrieval.run import GLOBAL, METRICS, Ranked, Reranker, check_gallery, retrieve
from otfew.runs.directory import RunDirectory, to_json
from otfew.runs.identity import short_hash, versions
from otfew.transport.registry import PointSolver, resolve

NODES = ("fcn:3,2,1,nomap", "grid:3,2", "sampling:25")
"""The paper's local embeddings: 14, 13 and 25 nodes."""
RERANK = 100
WHOLE_IMAGE = "fcn:1,nomap"
"""The mean of the backbone's map, as a single node: the global vector."""


def run_retrieval(config: Config, console: Console) -> Path:
    """Run the retrieval and write its report.

    Args:
        config: The command line.
        console: Where table and progress go.

    Returns:
        Folder of the run.

    Raises:
        UserError: Whatever the user can set right; nothing is written or overwritten then.
    """
    if config.features is None and config.dataset in SHAPES:
        return run_shapes(config, console)
    refuse_without_shapes(config)
    specs, scores = _checked(config)
    device = setup.pick_device(config.device)
    threads = setup.set_threads(config.threads)
    config = replace(config, split=config.split or ("second-half" if config.dataset == "cub" else "test"))
    material = setup.open_material(config, config.dataset, config.features, "", console)  # type: ignore[arg-type]  # its split is known
    check_gallery(material.labels, material.classes)
    patches = _with_patches_of(material, config.patch_resolution)
    protocol = _protocol(config, material, patches, specs, scores, device, console)
    identity = {
        "command": "retrieve",
        "format": retrieval_report.FORMAT,
        "protocol": protocol,
        "versions": versions(),
    }
    output = config.output or Path("runs") / _folder_name(identity)
    RunDirectory.check(output, identity)
    # Features first: an image that cannot be used must not leave a claimed folder behind.
    whole = material.features(WHOLE_IMAGE, device)
    functions = scores_named(scores, config.solver)
    rerankers = [
        Reranker(spec, (patches if _is_patches(spec) else material).features(spec, device), functions) for spec in specs
    ]
    directory = RunDirectory(output, identity)
    ranked = _retrieve(whole, rerankers, protocol["rerank"], directory, device, console)
    trivial = [
        f"{score} [{reranker.nodes}]"
        for reranker in rerankers
        if reranker.features.nodes.shape[1] == 1
        for score in scores
        if score in TRANSPORT
    ]
    results = {
        **identity,
        **({"one_node": trivial} if trivial else {}),
        "class_names": list(material.classes),
        **({"class_units": list(units)} if (units := units_of(material)) else {}),
        **retrieval_report.compare(ranked, dict.fromkeys(specs, scores), material.labels, material.classes, units),
    }
    times = _timings(ranked, whole, rerankers, device, threads)
    _write(directory, results, times, ranked, material, console)
    return output


def _folder_name(identity: Mapping[str, Any]) -> str:
    """Name the folder of a run that has been given none."""
    return f"retrieve-{plugins.file_name(identity['protocol']['data']['dataset'])}-{short_hash(identity)}"


def _checked(config: Config) -> tuple[list[str], list[str]]:
    """Refuse what needs no data; return the kinds of nodes and the scores."""
    if config.all_pairs and config.rerank is not None:
        raise UserError("--all-pairs scores everything: leave out --rerank, or --all-pairs.")
    if config.rerank is not None and config.rerank < 1:
        raise UserError(f"--rerank must be at least 1, not {config.rerank}.")
    scores: list[str] = list(dict.fromkeys(config.scores))
    if not scores:
        raise UserError(f"--scores must name at least one of {', '.join([*TRANSPORT, *CONTROLS])}.")
    setup.check_solver(config.solver)
    if isinstance(resolve(config.solver), PointSolver):
        raise UserError(f"--solver {config.solver} works on point clouds, not on costs: choose exact or sinkhorn.")
    if config.features is None:
        return list(dict.fromkeys(parse_nodes(spec).spec for spec in config.nodes or NODES)), scores
    if config.nodes:
        raise UserError("--nodes cannot be had of --features, which hold nodes of their own: leave it out.")
    return ["file"], scores


def _is_patches(spec: str) -> bool:
    """Tell whether nodes are patches of images."""
    return spec != "file" and cuts_patches(spec)


def _with_patches_of(material: Material, side: int | None) -> Material:
    """Return the material that patches are extracted from: the same, at their resolution."""
    if side is None or not isinstance(material, ImageMaterial):
        return material
    preparation = Preparation(side, material.preparation.crop)
    return replace(material, preparation=preparation, _features={})


def _protocol(
    config: Config,
    material: Material,
    patches: Material,
    specs: Sequence[str],
    scores: Sequence[str],
    device: str,
    console: Console,
) -> dict[str, Any]:
    """Say what the results are a function of."""
    others = len(material.labels) - 1
    asked = others if config.all_pairs else RERANK if config.rerank is None else config.rerank
    if config.rerank is not None and config.rerank > others:
        console.print(f"- --rerank {asked:,} is more than the {others:,} others: all pairs are scored", highlight=False)
    names = [f"{score} [{spec}]" for spec in specs for score in scores]
    described = material.describe()
    architecture = (described["backbone"] or {}).get("architecture")
    found = plugins.digests([described["data"]["dataset"], architecture, *specs, config.solver])
    return {
        **described,
        **({"plugins": found} if found else {}),
        "patch_resolution": patches.describe()["resolution"],
        "nodes": list(specs),
        "scores": list(scores),
        "global": "the mean of the nodes" if config.features else "the mean of the backbone's map of the whole image",
        "rerank": min(asked, others),
        "most_relevant": int(np.bincount(material.labels).max()) - 1,
        "solver": config.solver,
        "allow_overlap": config.allow_overlap,
        "device": device.partition(":")[0],
        "order": [GLOBAL, *names],
    }


def _retrieve(
    whole: FeatureSet,
    rerankers: Sequence[Reranker],
    rerank: int,
    directory: RunDirectory,
    device: str,
    console: Console,
) -> dict[str, Ranked]:
    """Retrieve, and tell how far it is."""
    watch = ConsoleWatch(console)
    with watch.task("queries") as step:
        return retrieve(
            whole,
            rerankers,
            rerank,
            directory=directory,
            device=device,
            progress=counted(step, len(whole.labels) * len(rerankers), "queries"),
            note=watch.note,
        )


def _timings(
    ranked: Mapping[str, Ranked], whole: FeatureSet, rerankers: Sequence[Reranker], device: str, threads: int
) -> dict[str, Any]:
    """Collect times, with the machine they were taken on; never part of results.json."""
    queries = len(whole.labels)
    extraction = {GLOBAL: whole.milliseconds} | {r.nodes: r.features.milliseconds for r in rerankers}
    return {
        "methods": {name: {"ms_per_query": 1000 * found.seconds / queries} for name, found in ranked.items()},
        "extraction_ms_per_image": {name: value for name, value in extraction.items() if value is not None},
        "device": device,
        "threads": threads,
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
    }


def _write(
    directory: RunDirectory,
    results: dict[str, Any],
    times: dict[str, Any],
    ranked: Mapping[str, Ranked],
    material: Material,
    console: Console,
) -> None:
    """Write the report's files and print the tables."""
    tables = retrieval_report.tables(results, times)
    lines = retrieval_report.lines(results)
    directory.write("results.json", to_json(results))
    directory.write("timings.json", to_json(times))
    directory.write("queries.csv", _queries_csv(ranked))
    directory.write("answers.npz", _answers(ranked, material))
    directory.write("report.md", sections(tables, lines, gap="\n").encode())
    if isinstance(material, ImageMaterial):
        from otfew.reporting.retrieval_picture import picture

        shown = next((name for name in ranked if name.split(" ")[0] in TRANSPORT), list(ranked)[-1])
        directory.write("retrieved.png", picture(material.images, ranked[GLOBAL], ranked[shown], shown))
    for table in tables:
        console.print(terminal(table))
    for line in lines:
        console.print(f"- {line}", markup=False, highlight=False)
    console.print(f"report: {directory.path}", markup=False, highlight=False, soft_wrap=True)


def _queries_csv(ranked: Mapping[str, Ranked]) -> bytes:
    """A row for every ranking and query; empty where there is nothing to find."""
    rows: list[tuple[str | int | float, ...]] = []
    for name, found in ranked.items():
        columns = np.stack([found.metrics[metric] for metric in METRICS], 1).round(8)
        rows += ((name, i, *("" if np.isnan(x) else x for x in row.tolist())) for i, row in enumerate(columns))
    return to_csv(["ranking", "query", *METRICS], rows)


def _answers(ranked: Mapping[str, Ranked], material: Material) -> bytes:
    """An ``.npz`` file of every query's MAP@R by ranking, NaN where there is nothing to find, and its class."""
    buffer = io.BytesIO()
    found = np.stack([one.metrics[MAIN] for one in ranked.values()])
    labels = np.asarray(material.labels, dtype=np.int32)
    np.savez_compressed(buffer, allow_pickle=False, rankings=np.array(list(ranked)), labels=labels, map_at_r=found)
    return buffer.getvalue()

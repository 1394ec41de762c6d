"""Which nodes? Table 3 of the DeepEMD paper, baselines on the same nodes: ``python -m experiments.extractors``.

More crops of an image help any method, so each kind of nodes is given to all of them: what DeepEMD gains from a kind of
nodes stands beside what the others gain from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from otfew import catalogue
from otfew.errors import UserError
from otfew.evaluation import figures
from otfew.evaluation.lineup import Entry
from otfew.evaluation.study import Finished, Panel, Record
from otfew.experiments.analyses.configs import Extractors
from otfew.experiments.common import analysis, setup
from otfew.nodes import parse as parse_nodes
from otfew.reporting import cells
from otfew.reporting import comparison as report
from otfew.reporting.tables import Table

PUBLISHED = {
    "fcn": 65.91,
    "fcn:3": 66.27,
    "fcn:2": 66.42,
    "fcn:2,1": 66.50,
    "grid:6": 63.61,
    "grid:5": 65.38,
    "grid:4": 66.57,
    "grid:3": 67.31,
    "grid:2": 66.09,
    "grid:2,3": 67.74,
    "grid:3,5": 67.01,
    "grid:2,5": 67.39,
    "grid:2,3,5": 67.83,
    "sampling:9": 68.09,
    "sampling:16": 68.54,
    "sampling:25": 68.77,
}
"""Table 3, DeepEMD, 5-way 1-shot on miniImageNet with a 5 x 5 map; pyramids in the spelling of --nodes."""


def compare_nodes(config: Extractors, console: Console) -> Path:
    """Run all methods on all kinds of nodes and write the report.

    Args:
        config: The command line.
        console: Where tables and progress go.

    Returns:
        Folder of the run.

    Raises:
        UserError: Whatever the user can set right; nothing is written or overwritten then.
    """
    terms = analysis.check(config)
    setup.check_solver(config.solver)
    if not config.nodes or not config.methods:
        raise UserError(f"--{'methods' if config.nodes else 'nodes'} names nothing: give at least one.")
    specs = list(dict.fromkeys(parse_nodes(given).spec for given in config.nodes))
    methods = list(dict.fromkeys(config.methods))
    for method in methods:
        if catalogue.find(method).needs_base_mean:
            raise UserError(f"method {method!r} needs base classes for every kind of nodes: leave it out here.")
    material = setup.open_material(config, config.dataset, None, "", console)
    entries = tuple(
        Entry(
            entry_name(method, spec),
            method,
            spec,
            {"solver": config.solver} if catalogue.accepts(catalogue.find(method), "solver") else {},
        )
        for spec in specs
        for method in methods
    )
    sampler = analysis.sample(material, config, config.shot)
    panel = Panel("all", material, entries, sampler, entries[0].name)
    settings = {"nodes": specs, "methods": methods}
    session = analysis.Session("extractors", config.output, [panel], settings, terms, console)
    finished = session.evaluate()["all"]
    found = {
        "by_nodes": {spec: compare_methods(finished, methods, spec, config.shot) for spec in specs},
        "by_method": {method: compare_specs(finished, method, specs) for method in methods},
    }
    lines = [
        "views: passes of the backbone that an image takes; paper: DeepEMD on miniImageNet, 5-way 1-shot, another "
        "backbone and map: compare the order, not the level",
        f"* where a difference counts: Holm's p below 0.05, over the {len(specs) - 1} kinds of nodes of a method",
        *report.contrast_lines(list(found["by_nodes"].values())),
        *(line for line in report.protocol_lines(finished.record) if "not run" not in line),
    ]
    sizes = {spec: material.features(spec, terms.device).nodes.shape[1] for spec in specs}
    return session.write({"all": finished}, found, tables(found, sizes, config.dataset), lines, {})


def entry_name(method: str, spec: str) -> str:
    """Name a method on a kind of nodes."""
    return f"{method} [{spec}]"


def compare_methods(finished: Finished, methods: Sequence[str], spec: str, shot: int) -> Record:
    """Compare the methods on one kind of nodes, and transport with its controls there."""
    entries = [Entry(method, method, spec) for method in methods]
    scores = {method: finished.scores[entry_name(method, spec)] for method in methods}
    reference = "cosine-centroid" if "cosine-centroid" in methods else methods[0]
    return figures.compare(entries, scores, *finished.units, reference, shot=shot)


def compare_specs(finished: Finished, method: str, specs: Sequence[str]) -> Record:
    """Compare kinds of nodes for one method: spec -> its record, with the difference to the first kind."""
    scores = {spec: finished.scores[entry_name(method, spec)] for spec in specs}
    first, *others = specs
    differences = figures.differences(others, first, scores, *finished.units)
    return {
        spec: {
            "accuracy": figures.accuracy(scores[spec], *finished.units),
            "nodes": spec,
            "transductive": False,  # one method with itself: there are no groups
            **({"difference": differences[spec]} if spec in differences else {}),
        }
        for spec in specs
    }


def tables(found: Mapping[str, Record], sizes: Mapping[str, int], dataset: str) -> list[Table]:
    """Lay out accuracies, what each kind of nodes brings to each method, and what transport adds on each kind."""
    by_nodes, by_method = found["by_nodes"], found["by_method"]
    first, *others = sizes
    accuracies = [
        [
            report.mark(method, by_nodes[first]["methods"][method]),
            *(_accuracy(by_nodes[spec]["methods"][method]["accuracy"]) for spec in sizes),
        ]
        for method in by_method
    ]
    accuracies.append(["paper, deepemd", *(f"{PUBLISHED[spec]:.2f}" if spec in PUBLISHED else "" for spec in sizes)])
    gains = [
        [method, *(cells.short_difference(compared[spec]["difference"]) for spec in others)]
        for method, compared in by_method.items()
    ]
    adds = [row for spec in sizes for row in cells.contrast_rows(by_nodes[spec], spec)]
    views = {spec: parse_nodes(spec).n_views for spec in sizes}
    columns = {
        spec: f"{spec}\n{size} nodes,\n{views[spec]} view{'' if views[spec] == 1 else 's'}"
        for spec, size in sizes.items()
    }
    all_tables = [
        Table(f"accuracy on {dataset}, % ± episodes", ["method", *columns.values()], accuracies),
        Table(
            f"difference to {first} nodes, points ± classes, * where it counts",
            ["method", *(columns[spec] for spec in others)],
            gains if others else [],
        ),
        Table("what transport adds to controls without it, on the same nodes", cells.CONTRASTS, adds),
    ]
    return [table for table in all_tables if table.rows]


def _accuracy(record: Record) -> str:
    """Format an accuracy with its interval over episodes."""
    return f"{cells.percent(record['mean'])} ± {cells.percent(record['episode_ci'])}"

"""One backbone on several data sets: Table 5 of the DeepEMD paper: ``python -m experiments.cross_domain``.

A backbone that was trained on one data set is evaluated on others, with the same methods everywhere. What it was
trained on, and what of the evaluated classes it has seen, is said for each data set.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from otfew.backbones import default_for
from otfew.backbones.efficientnet_lite0 import NAME as EXTERNAL
from otfew.errors import UserError
from otfew.evaluation.lineup import choose, pick_reference
from otfew.evaluation.study import Panel, Record, Terms
from otfew.experiments.analyses.configs import CrossDomain
from otfew.experiments.common import analysis, setup
from otfew.reporting import cells
from otfew.reporting import comparison as report
from otfew.reporting.tables import Table


def compare_domains(config: CrossDomain, console: Console) -> Path:
    """Run all methods on all data sets and write the report.

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
    if not config.datasets:
        raise UserError("--datasets names no data set: give at least one.")
    if list(config.methods) == ["all"]:
        raise UserError("--methods all does not go with several data sets: name the methods.")
    datasets = list(dict.fromkeys(config.datasets))
    # One and the same for all of them, whatever is shipped for the others.
    config = replace(config, backbone=config.backbone or default_for(datasets[0]) or EXTERNAL)
    panels = [_panel(config, dataset, terms, console) for dataset in datasets]
    settings = {"datasets": datasets, "reference": panels[0].reference}
    session = analysis.Session("cross-domain", config.output, panels, settings, terms, console)
    finished = session.evaluate()
    records = {dataset: finished[dataset].record for dataset in datasets}
    return session.write(finished, {}, tables(records), lines(records), {})


def _panel(config: CrossDomain, dataset: str, terms: Terms, console: Console) -> Panel:
    """Open a data set with the backbone."""
    material = setup.open_material(config, dataset, None, config.nodes, console)
    entries, not_run = choose(config.methods, material, config.solver, terms.device)
    sampler = analysis.sample(material, config, config.shot)
    reference = pick_reference(config.reference, entries)
    return Panel(dataset, material, tuple(entries), sampler, reference, not_run)


def tables(
    records: Mapping[str, Record],
) -> list[Table]:
    """Lay out accuracies and differences, a column for every data set, and what transport adds on each."""
    first = next(iter(records.values()))
    backbone, names = first["protocol"]["backbone"]["name"], first["protocol"]["order"]
    reference = first["protocol"]["reference"]
    accuracies = [
        [
            report.mark(name, first["methods"][name]),
            *(cells.with_intervals(record["methods"][name]["accuracy"]) for record in records.values()),
        ]
        for name in names
    ]
    differences = cells.difference_rows(list(records.values()))
    adds = [row for dataset, record in records.items() for row in cells.contrast_rows(record, dataset)]
    head = ["method", *records]
    all_tables = [
        Table(f"{backbone} on {', '.join(records)}: accuracy % ± episodes ± classes", head, accuracies),
        Table(f"difference to {reference}, points ± classes, * where it counts", head, differences),
        Table("what transport adds to controls without it", cells.CONTRASTS, adds),
    ]
    return [table for table in all_tables if table.rows]


def lines(records: Mapping[str, Record]) -> list[str]:
    """Say on what the figures rest: what all data sets share once, the rest for each."""
    each = {dataset: report.protocol_lines(record) for dataset, record in records.items()}
    shared = [line for line in next(iter(each.values())) if all(line in other for other in each.values())]
    own = [f"{dataset}: {line}" for dataset, all_lines in each.items() for line in all_lines if line not in shared]
    return [*report.contrast_lines(list(records.values())), *own, *shared]

"""Accuracy against the number of shots, all heads and baselines: ``python -m experiments.shots``.

Figure 5 of the DeepEMD paper on any data. An episode has the same classes and queries at every k, and the support of k
images contains that of fewer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from otfew import catalogue
from otfew.errors import UserError
from otfew.evaluation import figures
from otfew.evaluation.lineup import Entry
from otfew.evaluation.query_balance import BALANCED
from otfew.evaluation.study import Finished, FirstShots, Panel, Record
from otfew.experiments.analyses.configs import Shots
from otfew.experiments.common import analysis, setup
from otfew.features.material import Material
from otfew.reporting import cells
from otfew.reporting import comparison as report
from otfew.reporting.tables import Table


def compare_shots(config: Shots, console: Console) -> Path:
    """Run all heads and baselines at every k and write the report.

    Args:
        config: The command line.
        console: Where tables and progress go.

    Returns:
        Folder of the run.

    Raises:
        UserError: Whatever the user can set right; nothing is written or overwritten then.
    """
    terms = analysis.check(config)
    if not config.shots or min(config.shots) < 1:
        raise UserError(f"--shots must be whole numbers of at least 1, not {list(config.shots)}.")
    if not config.heads and not config.baselines:
        raise UserError("--heads and --baselines name no method: give at least one.")
    for name in config.baselines:
        catalogue.find(name)
    heads = {head_name(head): head_options(config, head) for head in dict.fromkeys(config.heads)}
    for options in heads.values():
        catalogue.build("deepemd", **options)
    material = setup.open_material(config, config.dataset, config.features, config.nodes, console)
    nodes = material.nodes_spec("fcn")
    queries = config.query if config.query_balance == BALANCED else config.way * config.query
    shots, left_out = affordable(sorted(set(config.shots)), queries, material)
    entries = (
        *(Entry(name, "deepemd", nodes, options) for name, options in heads.items()),
        *(Entry(name, name, nodes) for name in dict.fromkeys(config.baselines)),
    )
    reference = "cosine-centroid" if "cosine-centroid" in config.baselines else entries[0].name
    most = analysis.sample(material, config, shots[-1])
    panels = [Panel(f"shot-{k}", material, entries, FirstShots(most, k), reference) for k in shots]
    settings = {"shots": shots, "reference": reference}
    session = analysis.Session("shots", config.output, panels, settings, terms, console)
    finished = session.evaluate()
    records = {k: finished[f"shot-{k}"].record for k in shots}
    against_mean = compare_heads(finished, list(heads), material)
    span = f"{shots[0]}- to {shots[-1]}" if len(shots) > 1 else f"{shots[0]}"
    lines = [
        "episodes are nested: the same classes and queries at every k, the support of k images contains that of fewer",
        *left_out,
        *(
            line.replace(f"-way {shots[-1]}-shot", f"-way {span}-shot")
            for line in report.protocol_lines(records[shots[-1]])
        ),
    ]
    from otfew.reporting.shots_plot import picture

    return session.write(
        finished,
        {"heads_against_mean": against_mean},
        tables(records, against_mean),
        lines,
        {"shots.png": picture(records, against_mean)},
    )


def head_name(head: str) -> str:
    """Name DeepEMD with a head."""
    return f"deepemd {head}"


def head_options(config: Shots, head: str) -> dict[str, str | float]:
    """Return the constructor's options of a head."""
    fit = {"sfc_lr": config.sfc_lr, "sfc_epochs": config.sfc_epochs} if head == "sfc" else {}
    return {"shot_head": head, **fit}


def affordable(shots: Sequence[int], query: int, material: Material) -> tuple[list[int], list[str]]:
    """Keep the numbers of shots that every class has images for.

    Returns:
        Those, and sentences about the others.

    Raises:
        UserError: None is left.
    """
    counts = np.bincount(material.labels, minlength=len(material.classes))
    least = int(counts.argmin())
    room = int(counts[least]) - query
    kept = [k for k in shots if k <= room]
    reason = f"class {material.classes[least]!r} has {counts[least]} images, of which {query} are queries"
    if not kept:
        raise UserError(f"--shots {shots[0]} cannot be had: {reason}; lower --shots or --query.")
    dropped = [k for k in shots if k > room]
    return kept, [f"left out: {', '.join(map(str, dropped))} shots, since {reason}"] if dropped else []


def compare_heads(finished: Mapping[str, Finished], heads: Sequence[str], material: Material) -> dict[str, Record]:
    """Compare the heads with the mean, at every k one family; empty where the mean did not run."""
    mean = head_name("mean")
    if mean not in heads or len(heads) < 2:
        return {}
    others = [name for name in heads if name != mean]
    return {
        key: figures.differences(others, mean, panel.scores, panel.classes, material.classes)
        for key, panel in finished.items()
    }


def tables(records: Mapping[int, Record], against_mean: Mapping[str, Record]) -> list[Table]:
    """Lay out accuracies, differences to the reference, and heads against the mean; a column for every k."""
    first = next(iter(records.values()))
    names, data = first["protocol"]["order"], first["protocol"]["data"]["dataset"]
    columns = [f"{k}-shot" for k in records]
    marked = {name: report.mark(name, first["methods"][name]) for name in names}
    accuracies = [
        [marked[name], *(cells.with_intervals(r["methods"][name]["accuracy"]) for r in records.values())]
        for name in names
    ]
    reference = first["protocol"]["reference"]
    differences = cells.difference_rows(list(records.values()))
    heads = [
        [name, *(cells.short_difference(found[name]) for found in against_mean.values())]
        for name in next(iter(against_mean.values()), {})
    ]
    found = [
        Table(f"accuracy on {data}, % ± episodes ± classes", ["method", *columns], accuracies),
        Table(f"difference to {reference} ± classes, * where it counts", ["method", *columns], differences),
        Table("heads: difference to the mean ± classes, * where it counts", ["head", *columns], heads),
    ]
    return [table for table in found if table.rows]

"""Which weights? Table 2 of the DeepEMD paper on any data: ``python -m experiments.ablate_weights``.

Dense connections (all similarities averaged, no matching), then the earth mover's distance with equal weights, with the
clusters of k-means and of mean-shift as nodes, and with cross-reference weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from torch import Tensor

from otfew.errors import UserError
from otfew.evaluation.lineup import Entry
from otfew.evaluation.study import Panel, Record
from otfew.experiments.analyses.configs import AblateWeights
from otfew.experiments.common import analysis, setup
from otfew.reporting import cells
from otfew.reporting import comparison as report
from otfew.reporting.tables import Table
from otfew.scores.clusters import Remembered, mean_count, median_distance, pick
from otfew.scores.node_weights import Clustering, KMeans, MeanShift

REFERENCE = "deepemd"
PUBLISHED = {
    "cosine-nodes": 55.16,
    "product-coupling": 55.41,
    "deepemd uniform": 56.95,
    "k-means 25": 56.95,
    "k-means 10": 56.25,
    "k-means 5": 55.92,
    "k-means 2": 56.02,
    "k-means 1": 58.65,
    "mean-shift 0": 56.95,
    "mean-shift inf": 58.65,
    "mean-shift auto": 53.56,
    "deepemd": 61.13,
}
"""Table 2, 5-way 1-shot on miniImageNet, backbone pre-trained only; other bandwidths are in units of its features."""


def ablate(config: AblateWeights, console: Console) -> Path:
    """Run all weights and write the report.

    Args:
        config: The command line.
        console: Where the table and progress go.

    Returns:
        Folder of the run.

    Raises:
        UserError: Whatever the user can set right; nothing is written or overwritten then.
    """
    terms = analysis.check(config)
    factors = {given: _factor(given) for given in config.bandwidths}
    if not all(k >= 1 for k in config.clusters):
        raise UserError(f"--clusters must be whole numbers of at least 1, not {list(config.clusters)}.")
    material = setup.open_material(config, config.dataset, config.features, config.nodes, console)
    nodes = material.nodes_spec("fcn")
    images = pick(material.features(nodes, terms.device).nodes)
    unit = float(f"{median_distance(images):.6g}")
    clusterings = make_clusterings(config.clusters, factors, images.shape[1], unit)
    entries = (
        Entry("cosine-nodes", "cosine-nodes", nodes),
        Entry("product-coupling", "product-coupling", nodes),
        Entry("deepemd uniform", "deepemd", nodes, {"weights": "uniform"}),
        *(
            Entry(name, "deepemd", nodes, {"weights": Remembered(clustering)})
            for name, clustering in clusterings.items()
        ),
        Entry(REFERENCE, "deepemd", nodes),
    )
    sampler = analysis.sample(material, config, config.shot)
    panel = Panel("all", material, entries, sampler, REFERENCE)
    settings = {"median_distance": unit, "bandwidths": list(config.bandwidths)}
    session = analysis.Session("ablate-weights", config.output, [panel], settings, terms, console)
    finished = session.evaluate()
    record = finished["all"].record
    counts = {name: round(mean_count(clustering, images), 4) for name, clustering in clusterings.items()}
    lines = [
        "dense: all similarities averaged, without matching; clusters: mean number in an image, over "
        f"{len(images)} images; paper: miniImageNet, 5-way 1-shot, another backbone: compare the order, not the level",
        f"bandwidths are multiples of {unit:g}, the median distance between two nodes of an image; raw nodes are "
        "clustered, since the paper does not say which are",
        *report.protocol_lines(record),
    ]
    return session.write(finished, {"clusters": counts}, [_table(record, counts, images)], lines, {})


def _factor(given: str) -> float | None:
    """Read a multiple, or None for "auto"."""
    if given == "auto":
        return None
    try:
        factor = float(given)
    except ValueError:
        factor = math.nan
    if not factor >= 0:
        raise UserError(f"--bandwidths: {given!r} is neither a number of at least 0 nor inf nor auto.")
    return factor


def make_clusterings(
    clusters: Sequence[int], factors: dict[str, float | None], nodes: int, unit: float
) -> dict[str, Clustering]:
    """Make the clusterings by name.

    Args:
        clusters: K of k-means.
        factors: As given -> multiple of ``unit``, or None for scikit-learn's estimate.
        nodes: Of an image: larger K are left out.
        unit: Of the bandwidths.
    """
    made: dict[str, Clustering] = {f"k-means {k}": KMeans(n_clusters=k) for k in dict.fromkeys(clusters) if k <= nodes}
    for given, factor in factors.items():
        made[f"mean-shift {given}"] = MeanShift(bandwidth=None if factor is None else factor * unit if factor else 0.0)
    return made


HEAD = (
    "weights",
    "clusters",
    "accuracy %\n± episodes ± classes",
    "difference to EMD,\ncross-reference",
    "verdict\n(Holm's p)",
    "paper",
)
LABELS = {
    "cosine-nodes": "dense, average",
    "product-coupling": "dense, cross-reference",
    "deepemd uniform": "EMD, equal",
    "deepemd": "EMD, cross-reference",
}


def _table(record: Record, counts: dict[str, float], images: Tensor) -> Table:
    """Lay the ablation out in the paper's order."""
    rows = []
    for name in record["protocol"]["order"]:
        method = record["methods"][name]
        count = counts.get(name, images.shape[1])
        rows.append([
            LABELS.get(name, f"EMD, {name}"),
            "" if name in {"cosine-nodes", "product-coupling"} else f"{count:.1f}",
            cells.with_intervals(method["accuracy"]),
            *cells.difference(method),
            f"{PUBLISHED[name]:.2f}" if name in PUBLISHED else "",
        ])  # fmt: skip
    return Table(f"weights of the nodes on {record['protocol']['data']['dataset']}", HEAD, rows)

"""From the LP to no matching at all, on the same nodes: ``python -m experiments.does_ot_matter``.

The DeepEMD paper has no such table. Along a line from the optimal plan over entropic ones to the product of the
weights, and beside controls that do without a plan: accuracy, time, how spread out the plans are, and how much of
DeepEMD's gain over one global cosine comes from the weights of the nodes and how much from matching them.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from otfew.errors import UserError
from otfew.evaluation.lineup import Entry
from otfew.evaluation.shares import Design, effects
from otfew.evaluation.study import Panel, Record
from otfew.experiments.common import analysis, setup
from otfew.experiments.does_ot_matter.config import Config
from otfew.experiments.does_ot_matter.names import LP, PRODUCT, entropic
from otfew.method import shot_mean
from otfew.reporting import cells
from otfew.reporting import comparison as report
from otfew.reporting.tables import Table
from otfew.scores.spread import mean_partners
from otfew.transport import ConvergenceWarning, Sinkhorn

CONTROLS = (PRODUCT, "chamfer", "cr-pooled", "cosine-nodes", "cosine-centroid")
EQUAL = "deepemd uniform"
DESIGNS = {
    "over cosine-centroid": Design("cosine-centroid", "cr-pooled", EQUAL, LP),
    "over cosine-centroid via cosine-nodes": Design("cosine-nodes", PRODUCT, EQUAL, LP, "cosine-centroid"),
    "over cosine-nodes": Design("cosine-nodes", PRODUCT, EQUAL, LP),
}
"""Without matching, nodes are pooled and compared once, or all compared with all. From the first corner, "matching"
includes that nodes are compared one by one; the second design counts that apart, as what comes before."""


def measure(config: Config, console: Console) -> Path:
    """Run all entries and write the report.

    Args:
        config: The command line.
        console: Where tables and progress go.

    Returns:
        Folder of the run.

    Raises:
        UserError: Whatever the user can set right; nothing is written or overwritten then.
    """
    terms = analysis.check(config)
    if not config.regs or not all(0 < reg < float("inf") for reg in config.regs):
        raise UserError(f"--regs must be numbers above 0, at least one, not {list(config.regs)}.")
    if config.entropy_episodes < 1:
        raise UserError(f"--entropy-episodes must be at least 1, not {config.entropy_episodes}.")
    material = setup.open_material(config, config.dataset, config.features, config.nodes, console)
    nodes = material.nodes_spec("fcn")
    regs = sorted(set(config.regs))
    entries = (
        Entry(LP, "deepemd", nodes),
        *(Entry(entropic(reg), "deepemd", nodes, {"solver": Sinkhorn(reg=reg)}) for reg in regs),
        *(Entry(name, name, nodes) for name in CONTROLS),
        Entry(EQUAL, "deepemd", nodes, {"weights": "uniform"}),
    )
    sampler = analysis.sample(material, config, config.shot)
    panel = Panel("all", material, entries, sampler, LP)
    settings = {"regs": regs, "entropy_episodes": config.entropy_episodes}
    session = analysis.Session("does-ot-matter", config.output, [panel], settings, terms, console)
    finished = session.evaluate()
    record = finished["all"].record
    scores, classes = finished["all"].scores, finished["all"].classes
    shares = {
        name: effects([scores[cell].accuracy for cell in design.cells], classes, material.classes)
        for name, design in DESIGNS.items()
    }
    plans = measure_plans(panel, config.entropy_episodes, regs, terms.device)
    found = {"plans": plans, "shares": shares}
    times = finished["all"].times["methods"]
    from otfew.experiments.does_ot_matter.plot import picture

    return session.write(
        finished,
        found,
        tables(record, times, plans, shares),
        [*share_lines(shares), *report.protocol_lines(record)],
        {"does-ot-matter.png": picture(record, times, plans, {reg: entropic(reg) for reg in regs}, LP, PRODUCT)},
    )


def measure_plans(panel: Panel, episodes: int, regs: Sequence[float], device: str) -> dict[str, dict[str, float]]:
    """Average the entropy of the plans of the first episodes.

    Returns:
        Name of entry -> "entropy" in nats and "partners", see ``otfew.scores.spread.mean_partners``.
    """
    nodes = panel.material.features(panel.entries[0].nodes, device).nodes
    drawn = panel.sampler(0, episodes)
    support = nodes[torch.from_numpy(drawn.support)].to(device)
    query = nodes[torch.from_numpy(drawn.query)].flatten(1, 2).to(device)
    solvers: dict[str, Any] = {LP: "exact", **{entropic(reg): Sinkhorn(reg=reg) for reg in regs}, PRODUCT: None}
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for name, solver in solvers.items():
            # One episode at a time: plans of a whole batch need not fit.
            each = [mean_partners(shot_mean(s[None]), q[None], solver) for s, q in zip(support, query, strict=True)]
            entropy, count = torch.tensor(each, dtype=torch.float64).mean(0).tolist()
            found[name] = {"entropy": round(entropy, 6), "partners": round(count, 6)}
    return found


HEAD = (
    "method",
    "accuracy %\n± episodes ± classes",
    "difference to the LP\n± episodes ± classes",
    "verdict\n(Holm's p)",
    "entropy of\nthe plan",
    "partners\nof a node",
    "ms per\nepisode",
)


def tables(record: Record, times: Record, plans: Record, shares: Record) -> list[Table]:
    """Lay out the line from the LP to the centroid, and the two designs."""
    rows = []
    for name in record["protocol"]["order"]:
        method, plan = record["methods"][name], plans.get(name)
        spread = [f"{plan['entropy']:.3f}", f"{plan['partners']:.2f}"] if plan else ["", ""]
        rows.append([
            name,
            cells.with_intervals(method["accuracy"]),
            *cells.difference(method),
            *spread,
            cells.milliseconds(times[name]["ms_per_episode"]),
        ])  # fmt: skip
    parts = ("gain", "before", "weights", "matching")
    designs = [
        [
            name,
            *(cells.short_interval(found[part]) for part in parts),
            _share(found, "weights"),
            _share(found, "matching"),
        ]
        for name, found in shares.items()
    ]
    head = (
        "gain of DeepEMD",
        "gain",
        "node by node",
        "weights",
        "matching",
        "share of\nweights, %",
        "of match-\ning, %",
    )
    return [
        Table(f"does transport matter on {record['protocol']['data']['dataset']}?", HEAD, rows),
        Table("where the gain comes from, points ± classes", head, designs),
    ]


def _share(found: Record, part: str) -> str:
    """Format a share in per cent."""
    share = found[f"share_of_{part}"]
    return "undefined" if share is None else f"{cells.percent(share['mean'])} ± {cells.percent(share['class_ci'])}"


def share_lines(shares: Record) -> list[str]:
    """Say what the designs are and why a share is missing."""
    lines = [
        f"gain {name}: to {d.equal}, {d.weighted} adds the weights, {d.matched} the matching, {d.both} both; effects "
        "are averages over the two orders"
        for name, d in DESIGNS.items()
    ]
    lines.append(
        "node by node: what cosine-nodes, the mean of all similarities of centred nodes, adds to one cosine of means; "
        "without that column it is part of the matching"
    )
    lines += [
        f"shares {name} undefined: {found['share_undefined']}"
        for name, found in shares.items()
        if "share_undefined" in found
    ]
    lines.append(
        "entropy in nats; partners: among how many nodes of the other side a node's mass is divided, exp of the plan's "
        "entropy given the node"
    )
    return lines

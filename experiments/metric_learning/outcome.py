"""What ``experiments.metric_learning`` writes: results, times, the report, its tables and pictures."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from otfew.errors import UserError
from otfew.experiments.metric_learning import report
from otfew.experiments.metric_learning.page import html
from otfew.experiments.metric_learning.plot import everything, picture
from otfew.experiments.metric_learning.session import Record, Session
from otfew.reporting.tables import Table, bullets, in_markdown, markdown, terminal
from otfew.runs.directory import to_json
from otfew.runs.identity import versions


def write(session: Session) -> Path:
    """Report on all finished runs of the folder.

    Args:
        session: Whose runs are done.

    Returns:
        The folder.

    Raises:
        UserError: Every run diverged.
    """
    runs, trials = session.runs("test"), session.runs("val")
    diverged = {loss: {r["seed"]: r["diverged"] for r in found if r["diverged"]} for loss, found in runs.items()}
    finished = {loss: {r["seed"]: r["history"] for r in found if not r["diverged"]} for loss, found in runs.items()}
    histories = {loss: found for loss, found in finished.items() if found}
    if not histories:
        why = next(why for seeds in diverged.values() for why in seeds.values())
        raise UserError(f"every run diverged ({why.rstrip('.')}): give lower --learning-rates and another --output.")
    reference = session.reference if session.reference in histories else ""
    summary = report.summarise(histories, reference)
    timing = report.equal_time(histories, reference, session.config.clock)
    rates = {loss: found[0]["rate"] for loss, found in runs.items()}
    kept = {loss: {str(r["seed"]): r["curve"] for r in found if r["curve"]} for loss, found in runs.items()}
    results = {
        "protocol": session.protocol,
        "val_curves": {loss: each for loss, each in kept.items() if each},
        "versions": versions(),
        "reference": reference,
        "losses": {
            loss: {
                "learning_rate": rates[loss],
                "tuning": {f"{r['rate']:g}": _last_map(r) for r in trials.get(loss, [])},
                "diverged": {str(seed): why for seed, why in diverged[loss].items()},
                **summary.get(loss, {}),
                "seeds": {str(seed): _timeless(run) for seed, run in histories.get(loss, {}).items()},
            }
            for loss in runs
        },
    }
    machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    directory, console = session.directory, session.console
    directory.write("results.json", to_json(results))
    directory.write("timings.json", to_json({**timing, "threads": torch.get_num_threads(), "machine": machine}))
    lines = _lines(session, diverged)
    tables = report.tables(histories, summary, timing, reference, rates)
    for table in tables:
        console.print(terminal(table))
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    about = f"{_data(session)}, {_network(session)}"
    directory.write("curves.png", picture(histories, summary, reference, about))
    directory.write("curves-all.png", everything(histories, about))
    directory.write("report.md", _markdown(tables, lines).encode())
    found = {loss: r["nearest"] for loss, each in runs.items() for r in each if r.get("nearest")}
    directory.write("report.html", html(tables, lines, session.material, found, summary, _data(session)).encode())
    console.print(f"report: {directory.path / 'report.html'}", soft_wrap=True, markup=False)
    return directory.path


def _last_map(record: Record) -> float | None:
    return None if record["diverged"] else record["history"][-1]["figures"]["map"]


def _data(session: Session) -> str:
    across = session.protocol["across"]
    return session.config.dataset + (f" across modalities ({across})" if across else "")


def _network(session: Session) -> str:
    """Name the trunk, without a path."""
    return session.architecture if session.start is None else session.start.card.name


def _lines(session: Session, diverged: Mapping[str, Mapping[int, str]]) -> list[str]:
    """Say what was done, in sentences."""
    c, p, material = session.config, session.protocol, session.material
    train_images, test_images = (p["images"][split] for split in ("train", "test"))
    without_self = ", without the query itself" if len(test_images) == 1 or material.same_things else ""
    lines = [
        f"{_data(session)}: {train_images[0]:,} training and {test_images[-1]:,} test items of {p['classes']} classes, "
        f"{p['resolution']} px",
        f"{p['backbone']} {_layers(p)}; SGD, two batches of {c.batch_size} a step, "
        f"{c.epochs} epochs, precision {c.precision}",
        "identical first weights and batches for every loss of a seed; differences are paired by seed, intervals are "
        "Student's t over seeds, verdicts after Holm's correction: about these data and this network, not others",
        f"retrieval by Euclidean distance among the test items{without_self}; embeddings are divided by their norms "
        "for the losses that compare them so",
        *material.notes,
    ]
    if material.shared_classes:
        of = " of the gallery's modality" if p["across"] else ""
        count = min(p["probe_images"] or train_images[0], train_images[0])
        lines.append(f"kNN (5 neighbours) and linear accuracy: classifiers fitted on {count:,} training items{of}")
    else:
        lines.append("kNN and linear accuracy need test classes among the training classes: not measured")
    if len(p["learning_rates"]) > 1:
        rates = ", ".join(f"{rate:g}" for rate in p["learning_rates"])
        lines.append(
            f"learning rate of each loss: the best mAP on the val split after {c.tune_epochs} epochs, among {rates}"
        )
    else:
        lines.append("one learning rate for all losses, tuned for none of them")
    curve = p["curve"]
    lines.append(
        f"validation curves: mAP among {curve['items'][-1]:,} further items ({curve['from']}), which choose nothing"
        if curve
        else "no validation curves: all items are trained on or tested, or choose the rate"
    )
    return lines + [
        f"{loss} with seed {seed} diverged: {why.rstrip('.')}"
        for loss, seeds in diverged.items()
        for seed, why in seeds.items()
    ]


def _layers(protocol: Record) -> str:
    """Say what stands behind the trunk, and where that comes from."""
    head = "-".join(map(str, protocol["head"]))
    layers = f"with a head of {head}" if head else "whose pooled map is the embedding"
    return layers + (f", from {protocol['started_from']['name']}" if "started_from" in protocol else "")


def _timeless(run: Sequence[Record]) -> list[dict[str, Any]]:
    """Leave the times out: what remains is the same for the same protocol."""
    return [{k: v for k, v in record.items() if not k.endswith("seconds")} for record in run]


def _markdown(tables: Sequence[Table], lines: Sequence[str]) -> str:
    """Write the report."""
    shown = [f"**{in_markdown(table.title)}**\n\n{markdown(table)}" for table in tables]
    return "\n".join(
        ["# Losses of metric learning\n", *shown, bullets(lines), "![mAP](curves.png)\n\n![all](curves-all.png)\n"]
    )

"""From the histories of metric learning to figures with intervals, and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from otfew.reporting.tables import Table
from otfew.statistics.seeds import SeedDifference, SeedEstimate, differences, estimate
from otfew.training.metric.evaluation import FIGURES, SVC

Histories = Mapping[str, Mapping[int, Sequence[Mapping[str, Any]]]]
"""Loss -> seed -> epochs, from 0, as ``Epoch`` holds them."""

SUMMARIES = ("first_epoch", "last_epoch", "mean_of_epochs")
"""mAP after one epoch, after the last one, and its mean over the epochs: how fast a loss learns."""

HEADINGS = {
    "map": "mAP", "r_precision": "R-prec.", "map_at_r": "MAP@R", "p_at_1": "P@1", "nn": "NN", "ft": "FT", "st": "ST",
    "e": "E", "dcg": "DCG", "knn": "kNN", "linear": "linear", "svc": "SVC",
}  # fmt: skip


def summarise(histories: Histories, reference: str) -> dict[str, Any]:
    """Compute what results.json says about each loss: means over seeds, and paired differences in mAP.

    Args:
        histories: Finished runs.
        reference: Loss that the others are compared with, "" for none.
    """
    runs = {
        "first_epoch": _map(histories, lambda maps: maps[1]),
        "last_epoch": _map(histories, lambda maps: maps[-1]),
        "mean_of_epochs": _map(histories, lambda maps: sum(maps[1:]) / (len(maps) - 1)),
    }
    against = {name: differences(found, reference) if reference else {} for name, found in runs.items()}
    summary: dict[str, Any] = {}
    for loss, seeds in histories.items():
        summary[loss] = {
            "map": {name: _estimate(estimate(list(runs[name][loss].values()))) for name in SUMMARIES},
            "last_epoch": {
                name: _mean([run[-1]["figures"][name] for run in seeds.values()]) for name in _measured(histories)
            },
        }
        if reference and loss != reference:
            summary[loss]["difference"] = {name: _difference(against[name][loss]) for name in SUMMARIES}
    return summary


def _measured(histories: Histories) -> tuple[str, ...]:
    """Name the figures that all runs have."""
    runs = [run for seeds in histories.values() for run in seeds.values()]
    return (*FIGURES, SVC) if all(SVC in run[-1]["figures"] for run in runs) else FIGURES


def equal_time(histories: Histories, reference: str, clock: str = "wall") -> dict[str, Any]:
    """Compare mAP within one training time: that of the fastest loss's whole training.

    A loss takes the median of its epochs' times, over all its seeds, for each epoch; between two epochs its mAP is
    interpolated.

    Args:
        histories: Finished runs.
        reference: As in ``summarise``.
        clock: "wall" or "cpu".
    """
    key = "seconds" if clock == "wall" else "cpu_seconds"
    seconds = {
        loss: {name: float(np.median([record[name] for run in seeds.values() for record in run[1:]]))
               for name in ("seconds", "cpu_seconds")}
        for loss, seeds in histories.items()
    }  # fmt: skip
    epochs = min(len(run) - 1 for seeds in histories.values() for run in seeds.values())
    budget = epochs * min(found[key] for found in seconds.values())
    done = {loss: budget / found[key] if found[key] else float(epochs) for loss, found in seconds.items()}
    maps: dict[str, dict[int, list[float]]] = _map(histories, lambda maps: maps)
    runs = {
        loss: {seed: float(np.interp(done[loss], range(len(run)), run)) for seed, run in seeds.items()}
        for loss, seeds in maps.items()
    }
    against = differences(runs, reference) if reference else {}
    return {
        "clock": clock,
        "budget_seconds": budget,
        "losses": {
            loss: {
                "seconds_per_epoch": seconds[loss]["seconds"],
                "cpu_seconds_per_epoch": seconds[loss]["cpu_seconds"],
                "evaluation_seconds": _mean([r["evaluation_seconds"] for run in seeds.values() for r in run]),
                "epochs": done[loss],
                "map": _estimate(estimate(list(runs[loss].values()))),
                **({"difference": _difference(against[loss])} if loss in against else {}),
            }
            for loss, seeds in histories.items()
        },
    }


def tables(
    histories: Histories,
    summary: Mapping[str, Any],
    timing: Mapping[str, Any],
    reference: str,
    rates: Mapping[str, float],
) -> list[Table]:
    """Lay out: learning in equal epochs, in equal time, all figures after the last epoch, and what plans did."""
    learning = [
        [loss, str(len(histories[loss])), f"{rates[loss]:g}", *(_interval(found["map"][name]) for name in SUMMARIES)]
        for loss, found in summary.items()
    ]
    compared = [
        [loss, *(_starred(found["difference"][name]) for name in SUMMARIES)]
        for loss, found in summary.items()
        if "difference" in found
    ]
    timed = [
        [
            loss,
            f"{found['seconds_per_epoch']:.1f}",
            f"{found['cpu_seconds_per_epoch']:.1f}",
            f"{found['epochs']:.1f}",
            _interval(found["map"]),
            "reference" if loss == reference else _starred(found.get("difference")),
        ]
        for loss, found in timing["losses"].items()
    ]
    measured = _measured(histories)
    last = [[loss, *(_percent(found["last_epoch"][name]) for name in measured)] for loss, found in summary.items()]
    head = ["loss", "seeds", "rate", "epoch 1", "last epoch", "mean of epochs"]
    result = [Table("mAP, % ± 95 % over seeds", head, learning)]
    if compared:
        title = f"difference in mAP to {reference}, paired by seed, points ± 95 %, * where it counts"
        result.append(Table(title, ["loss", "epoch 1", "last epoch", "mean of epochs"], compared))
    result += [
        Table(
            f"mAP, %, within {timing['budget_seconds']:.0f} s of training ({timing['clock']}), the time of the fastest",
            ["loss", "s an epoch", "CPU s", "epochs", "mAP", f"difference to {reference or 'none'}"],
            timed,
        ),
        Table("after the last epoch, %", ["loss", *(HEADINGS[name] for name in measured)], last),
    ]
    plans = _plans(histories)
    if plans:
        head = ["loss", "entropy", "violating: mass", "pairs", "positives: mass"]
        result.append(Table("plans, first to last epoch; entropy 1 is uniform, shares in %", head, plans))
    return result


def _plans(histories: Histories) -> list[list[str]]:
    rows = []
    for loss, seeds in histories.items():
        runs = [run for run in seeds.values() if run[-1]["diagnostics"]]
        if not runs:
            continue
        cells = []
        for name, scale in (("entropy", 1), ("violating_mass", 100), ("violating_pairs", 100), ("positive_mass", 100)):
            ends = [_mean([run[epoch]["diagnostics"][name] for run in runs]) or 0.0 for epoch in (1, -1)]
            cells.append(" to ".join(f"{scale * value:.3g}" for value in ends))
        rows.append([loss, *cells])
    return rows


def _map(histories: Histories, pick: Any) -> dict[str, dict[int, Any]]:
    return {
        loss: {seed: pick([record["figures"]["map"] for record in run]) for seed, run in seeds.items()}
        for loss, seeds in histories.items()
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _estimate(found: SeedEstimate) -> dict[str, Any]:
    return {"mean": found.mean, "seed_ci": found.half_width, "seeds": found.seeds}


def _difference(found: SeedDifference | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {**_estimate(found.estimate), "p": found.p, "holm_p": found.adjusted_p, "verdict": found.verdict}


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _interval(found: Mapping[str, Any], sign: str = "") -> str:
    mean = f"{100 * found['mean']:{sign}.2f}"
    return mean if found["seed_ci"] is None else f"{mean} ± {100 * found['seed_ci']:.2f}"


def _starred(difference: Mapping[str, Any] | None) -> str:
    """Write a paired difference, with a star for "better" or "worse"."""
    if difference is None:
        return "–"
    return _interval(difference, "+") + ("*" if difference["verdict"] in {"better", "worse"} else "")

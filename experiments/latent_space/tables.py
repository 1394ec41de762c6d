"""Figures and tables of the comparison of latent spaces."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from otfew.evaluation.estimates import to_record
from otfew.evaluation.study import Finished
from otfew.evaluation.tuning import USED
from otfew.experiments.latent_space.entries import HEADS, TRANSFORMS, name
from otfew.reporting import cells
from otfew.reporting import comparison as report
from otfew.reporting.tables import Table
from otfew.statistics.intervals import estimate, holm, p_value, verdict

SAME = 1e-9
"""Differences of accuracies closer than this are equal but for rounding."""
STEPS = ("delta", "gamma", "joint centring")

ROWS = ("PT+MAP", "PT+GMM", "PT+k-means", "LST+MAP", "LST+GMM", "LST+k-means")
PAPER = {
    ("cifar-fs", 1): dict(zip(ROWS, (87.69, 86.96, 86.17, 87.79, 87.01, 85.76), strict=True)),
    ("cifar-fs", 5): dict(zip(ROWS, (90.68, 87.16, 86.70, 90.73, 87.33, 86.56), strict=True)),
    ("cub", 1): dict(zip(ROWS, (91.55, 90.06, 89.07, 91.68, 89.90, 89.26), strict=True)),
    ("cub", 5): dict(zip(ROWS, (94.09, 90.04, 89.72, 94.09, 90.06, 89.64), strict=True)),
}
"""Tables 2 and 3 of the LST paper, %; its "KNN" is k-means."""


def pairs(panel: Finished) -> dict[str, Any]:
    """Compare LST with PT under each head, and MAP with the Gaussian mixture, which has no transport, under each.

    All are one family for Holm's correction.

    Returns:
        "A - B" -> its paired difference with both intervals, "p_holm" and "verdict", and "t_test": p of the paper's
        own one-sided paired t-test over episodes, which speaks of these classes only.
    """
    against = [(name("lst", head), name("pt-map", head)) for head in HEADS]
    against += [(name(method, "map"), name(method, "gmm")) for method in ("pt-map", "lst")]
    values = {f"{a} - {b}": panel.scores[a].accuracy - panel.scores[b].accuracy for a, b in against}
    found = _family(values, *panel.units)
    for key, difference in values.items():
        found[key]["t_test"] = _one_sided(difference)
    return found


def _one_sided(difference: np.ndarray[Any, np.dtype[np.float64]]) -> float | None:
    """Return p of "no better" by Student's paired t-test; None where all episodes differ alike."""
    n = len(difference)
    if n < 2 or float(np.ptp(difference)) < SAME:
        return None
    p = float(stats.t.sf(float(difference.mean()) / float(difference.std(ddof=1)) * n**0.5, n - 1))
    # Six significant digits: more would record the order of additions.
    return float(f"{p:.6g}")


def steps(panel: Finished) -> dict[str, Any]:
    """Estimate what each of the three steps from PT to LST adds, averaged over the four settings of the others.

    Returns:
        Step -> its main effect with both intervals, "p_holm" and "verdict", one family.
    """
    effects = {}
    for place, step in enumerate(STEPS):
        settings = ["".join(digits) for digits in itertools.product("01", repeat=3)]
        signed = [panel.scores[s].accuracy * (1 if s[place] == "1" else -1) for s in settings]
        effects[step] = np.sum(signed, 0) / 4
    return _family(effects, *panel.units)


def _family(values: Mapping[str, Any], drawn: Any, classes: Sequence[str]) -> dict[str, Any]:
    """Estimate means of (episodes,) values, with Holm's correction over all of them."""
    found = {key: estimate(value, drawn, classes) for key, value in values.items()}
    raw = [p_value(value) for value in found.values()]
    return {
        key: {
            **to_record(value),
            "p_holm": None if adjusted is None else round(adjusted, 8),
            "verdict": verdict(value, adjusted),
        }
        for (key, value), adjusted in zip(found.items(), holm(raw), strict=True)
    }


def tables(shot: int, finished: Mapping[str, Finished], found: Mapping[str, Any]) -> list[Table]:
    """Lay out accuracies, paired differences, the ablation and its effects for one number of shots."""
    main, ablation = finished[f"shot-{shot}"], finished[f"ablation-{shot}"]
    data = main.record["protocol"]["data"]["dataset"]
    return [
        _accuracies(shot, data, main),
        _pairs(shot, data, found["pairs"]),
        _ablation(shot, data, ablation),
        _steps(shot, data, found["steps"]),
    ]


def _accuracies(shot: int, data: str, panel: Finished) -> Table:
    # The paper's queries are balanced.
    published = {} if "query_balance" in panel.record["protocol"] else PAPER.get((data, shot), {})
    methods, times = panel.record["methods"], panel.times["methods"]
    rows = [
        [
            row + (" (transductive)" if methods[row]["transductive"] else ""),
            cells.with_intervals(methods[row]["accuracy"]),
            *cells.difference(methods[row]),
            f"{published[row]:.2f}" if row in published else "",
            cells.milliseconds(times[row]["ms_per_episode"]),
        ]
        for row in panel.record["protocol"]["order"]
    ]
    head = (
        "method", "accuracy %\n± episodes ± classes", "difference to PT+MAP\n± episodes ± classes",
        "verdict\n(Holm's p)", "paper", "ms per\nepisode",
    )  # fmt: skip
    return Table(f"{shot}-shot on {data}", head, rows)


def _pairs(shot: int, data: str, found: Mapping[str, Any]) -> Table:
    rows = [
        [key, cells.with_intervals(record, sign=True), report.words(record), _p(record["t_test"])]
        for key, record in found.items()
    ]
    head = (
        "paired difference", "points\n± episodes ± classes", "verdict\n(Holm's p)",
        "paper's test: p of\n\"no better\", episodes",
    )  # fmt: skip
    return Table(f"{shot}-shot on {data}: LST against PT, and transport against a mixture", head, rows)


def _ablation(shot: int, data: str, panel: Finished) -> Table:
    rows = []
    for row in panel.record["protocol"]["order"]:
        options, method = panel.record["protocol"]["methods"][row]["options"], panel.record["methods"][row]
        rows.append([
            {"000": "PT", "111": "LST"}.get(row, row),
            f"{options['delta']:g}",
            f"{options['gamma']:g}",
            "joint" if options["joint"] else "apart",
            cells.with_intervals(method["accuracy"]),
            *cells.difference(method),
        ])  # fmt: skip
    head = (
        "MAP on", "delta", "gamma", "centring", "accuracy %\n± episodes ± classes",
        "difference to PT\n± episodes ± classes", "verdict\n(Holm's p)",
    )  # fmt: skip
    return Table(f"{shot}-shot on {data}: from PT to LST, with LST's other options", head, rows)


def _steps(shot: int, data: str, found: Mapping[str, Any]) -> Table:
    rows = [[step, cells.with_intervals(record, sign=True), report.words(record)] for step, record in found.items()]
    head = ("step", "points\n± episodes ± classes", "verdict\n(Holm's p)")
    return Table(f"{shot}-shot on {data}: what each step adds, over all settings of the others", head, rows)


def hyperparameters(shot: int, panel: Finished, tuned: Mapping[str, Any]) -> Table:
    """Lay out the options of every transform and head, and what they reached where they were chosen.

    Args:
        shot: Labelled images of each class.
        panel: Of that many shots.
        tuned: As ``Tuned.record`` gives it; empty where the options are the published ones.
    """
    rows = []
    for method, head in itertools.product(TRANSFORMS, HEADS):
        options = panel.record["protocol"]["methods"][name(method, head)]["options"]
        shown = [f"{options[o]:g}" if o in options and o in USED[head] else "" for o in USED["map"]]
        record = tuned.get(f"{method} {head}")
        reached = [cells.percent(record[key]) for key in ("published_on_val", "chosen_on_val")] if record else []
        rows.append([name(method, head), *shown, *reached])
    head_row = ("method", *USED["map"], *(("published,\n% on val", "chosen,\n% on val") if tuned else ()))
    return Table(f"{shot}-shot: hyper-parameters", head_row, rows)


def _p(value: float | None) -> str:
    return "–" if value is None else f"{value:.2g}"

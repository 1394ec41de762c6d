"""Errors overall and by class size, paired comparisons, and the published figures beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from otfew.reporting.tables import Table, in_markdown, sections, terminal
from otfew.runs.directory import RunDirectory
from otfew.statistics import intervals as statistics
from otfew.training.long_tail.losses import GROUPS, group_of

if TYPE_CHECKING:
    from rich.console import Console

Record = dict[str, Any]

ORIGINAL: dict[tuple[str, int], tuple[float, float]] = {
    ("cifar10", 200): (21.54, 22.63),
    ("cifar10", 100): (18.13, 17.6),
    ("cifar10", 50): (15.54, 17.02),
    ("cifar10", 20): (12.50, 13.05),
    ("cifar100", 200): (54.97, 56.42),
    ("cifar100", 100): (51.46, 55.46),
    ("cifar100", 50): (47.50, 47.91),
    ("cifar100", 20): (42.85, 42.63),
}
"""Errors of OT re-weighting in its paper, and those that a PyTorch replication reports in its README."""
METASAUG: dict[tuple[str, int], float] = {
    ("cifar10", 200): 22.65,
    ("cifar10", 100): 19.34,
    ("cifar10", 50): 15.66,
    ("cifar10", 20): 11.90,
    ("cifar100", 200): 56.91,
    ("cifar100", 100): 51.99,
    ("cifar100", 50): 47.73,
    ("cifar100", 20): 42.47,
}
"""Errors of MetaSAug with LDAM (Li et al. 2021, README), whose code the published one builds on."""
CROSS_ENTROPY: dict[tuple[str, int], float] = {
    ("cifar10", 100): 29.64,
    ("cifar10", 50): 25.19,
    ("cifar100", 100): 61.68,
    ("cifar100", 50): 56.15,
}
"""Errors of cross-entropy in the gallery of Zhang et al. (2021), "Bag of tricks for long-tailed visual recognition"."""


def compare(
    blocks: Mapping[str, Sequence[Record]],
    labels: npt.NDArray[np.int64],
    classes: Sequence[str],
    counts: npt.NDArray[np.int64],
    pairs: Sequence[tuple[str, str]],
) -> tuple[Record, list[Table], list[str]]:
    """Compute errors and paired differences.

    What is averaged is, for each test image, the share of seeds that get it right; seeds and images are the same for
    both arms of a pair. Intervals are over images, and over classes (a jackknife); verdicts rest on the wider one, with
    Holm's correction over all pairs.

    Args:
        blocks: Arm -> one record a seed, with "predictions" (test images,).
        labels: (test images,).
        classes: Names.
        counts: (classes,) training images.
        pairs: (arm, rival).

    Returns:
        What results.json holds, tables, and sentences.
    """
    right = {
        name: np.mean([record["predictions"] == labels for record in records], axis=0)
        for name, records in blocks.items()
    }
    groups = np.array([group_of(int(count)) for count in counts])[labels]
    arms = {name: _arm_record(records, right[name], labels, classes, groups) for name, records in blocks.items()}
    there = [(arm, rival) for arm, rival in pairs if arm in blocks and rival in blocks]
    estimates = [statistics.estimate(right[arm] - right[rival], labels[:, None], classes) for arm, rival in there]
    raw = [statistics.p_value(estimate) for estimate in estimates]
    comparisons = [
        {
            "arm": arm,
            "rival": rival,
            "error_difference": 0.0 - 100 * estimate.mean,
            "image_ci": _percent(estimate.episode_half_width),
            "class_ci": _percent(estimate.jackknife.half_width),
            "p": p,
            "p_holm": adjusted,
            "verdict": statistics.verdict(estimate, adjusted),
        }
        for (arm, rival), estimate, p, adjusted in zip(there, estimates, raw, statistics.holm(raw), strict=True)
    ]
    results = {
        "errors": arms,
        "comparisons": comparisons,
        "groups": {name: int(sum(group_of(int(count)) == name for count in counts)) for name in GROUPS},
        "training_images": [int(count) for count in counts],
    }
    return results, [_errors_table(arms, results["groups"]), *_pairs_table(comparisons)], _answers(comparisons)


def references(dataset: str, factor: float) -> list[str]:
    """Quote published errors of the same setting."""
    key = (dataset, int(factor))
    if factor != int(factor) or key not in ORIGINAL:
        return []
    original, replication = ORIGINAL[key]
    parts = [
        f"OT re-weighting {original:.2f} (Guo et al. 2022), {replication:.2f} (a replication)",
        f"MetaSAug with LDAM {METASAUG[key]:.2f} (Li et al. 2021)",
    ]
    if key in CROSS_ENTROPY:
        parts.append(f"cross-entropy {CROSS_ENTROPY[key]:.2f} (Zhang et al. 2021)")
    return [f"published errors: {'; '.join(parts)}"]


def show(title: str, tables: Sequence[Table], lines: Sequence[str], directory: RunDirectory, console: Console) -> None:
    """Print tables and sentences, and write them as report.md."""
    console.print(title)
    for table in tables:
        console.print(terminal(table))
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    text = sections(tables, lines, rule=(" --- ", " --- "), gap="\n")
    directory.write("report.md", f"# {in_markdown(title)}\n\n{text}".encode())
    console.print(f"results: {directory.path}", soft_wrap=True)


def _arm_record(
    records: Sequence[Record],
    right: npt.NDArray[np.float64],
    labels: npt.NDArray[np.int64],
    classes: Sequence[str],
    groups: npt.NDArray[np.str_],
) -> Record:
    """Describe one arm, errors in per cent."""
    estimate = statistics.estimate(right, labels[:, None], classes)
    each = [100 * float((record["predictions"] != labels).mean()) for record in records]
    return {
        "error": 100 * (1 - estimate.mean),
        "image_ci": _percent(estimate.episode_half_width),
        "class_ci": _percent(estimate.jackknife.half_width),
        "seed_errors": each,
        "seed_sd": float(np.std(each, ddof=1)) if len(each) > 1 else None,
        **{name: _group_error(right, groups == name) for name in GROUPS},
        "validation_error": float(np.mean([record["validation_error"] for record in records])),
        "chosen": [
            {key: record[key] for key in ("learning_rate", "epoch", "tau") if key in record} for record in records
        ],
    }


def _group_error(right: npt.NDArray[np.float64], members: npt.NDArray[np.bool_]) -> float | None:
    return 100 * (1 - float(right[members].mean())) if members.any() else None


def _percent(value: float | None) -> float | None:
    """Turn a half-width into per cent, None where there is none."""
    return None if value is None or not np.isfinite(value) else 100 * value


def _errors_table(arms: Mapping[str, Record], groups: Mapping[str, int]) -> Table:
    head = ["arm", "error %", "± images", "± classes", "sd seeds", *(f"{n} ({groups[n]})" for n in GROUPS), "val %"]
    rows = [
        [
            name,
            *(
                _number(record[key])
                for key in ("error", "image_ci", "class_ci", "seed_sd", *GROUPS, "validation_error")
            ),
        ]
        for name, record in arms.items()
    ]
    title = "error on the test images; by training images of the class: many > 100, medium, few < 20"
    return Table(title, head, rows)


def _pairs_table(comparisons: Sequence[Record]) -> list[Table]:
    if not comparisons:
        return []
    head = ["arm", "against", "difference", "± img", "± cls", "p", "verdict"]
    rows = [
        [
            record["arm"],
            record["rival"],
            f"{record['error_difference']:+.2f}",
            _number(record["image_ci"]),
            _number(record["class_ci"]),
            "-" if record["p_holm"] is None else f"{record['p_holm']:.3f}",
            record["verdict"],
        ]
        for record in comparisons
    ]
    title = "differences of errors, paired by test image and seed; negative: the arm errs less; p after Holm"
    return [Table(title, head, rows)]


def _answers(comparisons: Sequence[Record]) -> list[str]:
    """Answer the question of the whole exercise, where its arms have run."""
    lines = []
    for record in comparisons:
        if record["rival"] == "inverse-frequency+meta-ce" and record["arm"].startswith("ot-"):
            answer = {"better": "yes", "worse": "no, they do worse"}.get(record["verdict"], "not shown")
            lines.append(
                f"do OT weights ({record['arm']}) beat inverse-frequency weights with the same meta data? {answer}: "
                f"{record['error_difference']:+.2f} points of error"
            )
    return lines


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"

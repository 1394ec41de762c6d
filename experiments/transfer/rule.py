"""The primary contrast as it was fixed before its figures: cells, terms, choice and test, and a digest of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from otfew.evaluation.estimates import to_record
from otfew.evaluation.shift_gain import CLEAN, Part, choose, effect, pooled, shift_of
from otfew.experiments.transfer.config import CONTROLS, SEVERITIES, SHIFTS, TRANSPORT
from otfew.statistics.intervals import Estimate, holm, p_value, verdict

NETWORKS: dict[str, tuple[str, ...]] = {
    "cub-resnet12-quarter": ("cub",),
    "cifar-fs-resnet12-quarter": ("cifar-fs", "fashion-mnist"),
    "efficientnet-lite0": ("cub", "cifar-fs", "fashion-mnist"),
}
"""Network -> its data sets; there is no network of Fashion-MNIST, so that the one of CIFAR-FS is taken."""
TERMS: dict[str, Any] = {
    "shifts": list(SHIFTS),
    "severities": list(SEVERITIES),
    "choice_shifts": list(SHIFTS),
    "choice_split": "val",
    "choice_episodes": 100,
    "transport": list(TRANSPORT),
    "controls": list(CONTROLS),
    "images": 45,
    "nodes": "fcn",
    "way": 5,
    "shot": 5,
    "query": 8,
    "query_balance": "dirichlet:2",
    "class_prior": "estimated",
    "episodes": 400,
    "seed": 1,
    "split": "test",
}
"""What a run of the primary contrast is run with, beside network and data set."""
RESOLUTION = {"efficientnet-lite0": 96}
"""Side of the images in pixels, where it is not that of the network's training."""


@dataclass(frozen=True)
class Test:
    """The test of a network.

    Attributes:
        network: Its name.
        datasets: Whose effects are averaged.
        found: The mean with both intervals.
        p: Two-sided, over classes.
        p_holm: Corrected for the networks.
        verdict: "better", "worse", "no difference shown" or "not assessed".
    """

    network: str
    datasets: tuple[str, ...]
    found: Estimate
    p: float | None
    p_holm: float | None
    verdict: str


def tests(parts: Mapping[tuple[str, str], Part]) -> list[Test]:
    """Test each network, as one family; one whose cells are not all there is not assessed, and counts for no other.

    Args:
        parts: (network, data set) -> its effect.
    """
    rows: list[tuple[str, tuple[str, ...], Estimate, float | None]] = []
    for network, datasets in NETWORKS.items():
        own = [parts[network, dataset] for dataset in datasets if (network, dataset) in parts]
        if len(own) == len(datasets):
            found = pooled(own)
            rows.append((network, datasets, found, p_value(found)))
    adjusted = holm([p for *_, p in rows])
    return [Test(*row, p_holm, verdict(row[2], p_holm)) for row, p_holm in zip(rows, adjusted, strict=True)]


def follows(
    settings: Mapping[str, Any],
    network: str,
    dataset: str,
    resolution: int,
    trained: int,
    left_out: Sequence[str] = (),
) -> str:
    """Say in what a run differs from the rule; "" where it is one of its cells.

    Args:
        settings: As ``TERMS`` names them.
        network: Name of its backbone.
        dataset: Its data set.
        resolution: Side of its images.
        trained: Side that the network was trained at.
        left_out: Methods of the rule that did not run.
    """
    if dataset not in NETWORKS.get(network, ()):
        return f"no cell of the rule: {network} on {dataset}"
    if left_out:
        return f"{len(left_out)} methods of the rule are not there"
    wrong = [name for name, value in TERMS.items() if settings.get(name) != value]
    if resolution != RESOLUTION.get(network, trained):
        wrong.append("resolution")
    return f"other {', '.join(wrong)} than the rule's" if wrong else ""


def rule_digest() -> str:
    """Digest cells, terms, and the choices, effects and verdicts of made-up figures: ten hexadecimal digits."""
    said: list[str] = [repr((NETWORKS, TERMS, RESOLUTION))]
    views = [f"{shift}:{severity}" for shift in SHIFTS for severity in SEVERITIES]
    # Raw bits: distributions may change between versions of numpy.
    words = np.random.Philox(1).random_raw(6 * 3 * (1 + len(views))) >> np.uint64(11)
    values = iter((words * 2.0**-53).reshape(-1, 6))
    made_up = {view: {name: next(values) for name in "abc"} for view in (CLEAN, *views)}
    said += [choose("abc", made_up, shift) for shift in SHIFTS]
    pairs = {"edges": ("a", "b"), "blur": ("a", "c"), "dark": ("b", "c")}
    said += [f"{value:.9f}" for value in effect(made_up, pairs, views)]
    said += [repr([shift_of(view) for view in views])]
    for mean, half, error in ((0.03, 0.01, 0.004), (-0.03, 0.01, 0.004), (0.03, 0.04, 0.004), (0.002, 0.01, 0.004)):
        cells = {(n, d): Part(mean, half, error, 9 + len(d)) for n, ds in NETWORKS.items() for d in ds}
        said += _told(tests(cells))
    del cells["efficientnet-lite0", "cub"]
    said += _told(tests(cells))
    cells["cub-resnet12-quarter", "cub"] = Part(0.1, 0.01, None, 21)
    said += _told(tests(cells))
    return hashlib.sha256("\n".join(said).encode()).hexdigest()[:10]


def _told(found: Sequence[Test]) -> list[str]:
    return [
        f"{t.network} {t.found.mean:.6f} {t.found.half_width or 0:.6f} {t.p_holm or 0:.4f} {t.verdict}" for t in found
    ]


def record(test: Test) -> dict[str, Any]:
    """Put a test into JSON."""
    return {
        "network": test.network,
        "datasets": list(test.datasets),
        **to_record(test.found),
        "p": test.p,
        "p_holm": test.p_holm,
        "verdict": test.verdict,
    }

"""The primary contrast as it was fixed before its figures: cells, terms, choice and test, and a digest of them."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
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
RESOLUTION = {"cub-resnet12-quarter": 84, "cifar-fs-resnet12-quarter": 32, "efficientnet-lite0": 96}
"""Side of the images in pixels."""
IMAGES = {"cub": ("feat", "center"), "cifar-fs": ("", "none"), "fashion-mnist": ("", "none")}
"""Data set -> which of its splits, and the crop."""
MAY_LACK = ("pt-map",)
"""Methods that may be left out, as they do not take every network's features."""


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
    """Test each network whose cells are all there.

    The family is always that of all networks: one that is not tested, or has no p, counts with p = 1. So no network's
    p falls because another has not run.

    Args:
        parts: (network, data set) -> its effect.
    """
    rows = {
        network: pooled([parts[network, dataset] for dataset in datasets])
        for network, datasets in NETWORKS.items()
        if all((network, dataset) in parts for dataset in datasets)
    }
    p_values = {network: p_value(found) for network, found in rows.items()}
    family = [p_values.get(network) for network in NETWORKS]
    adjusted = dict(zip(NETWORKS, holm([1.0 if p is None else p for p in family]), strict=True))
    tested = []
    for network, own in rows.items():
        p = p_values[network]
        p_holm = None if p is None else adjusted[network]
        tested.append(Test(network, NETWORKS[network], own, p, p_holm, verdict(own, p_holm)))
    return tested


def follows(
    settings: Mapping[str, Any],
    network: str,
    data: Mapping[str, Any],
    resolution: int,
    left_out: Collection[str] = (),
    crop: str | None = None,
) -> str:
    """Say in what a run differs from the rule; "" where it is one of its cells.

    Args:
        settings: As ``TERMS`` names them.
        network: Name of its backbone.
        data: Its data set, as a protocol names it: "dataset" and "variant".
        resolution: Side of its images.
        left_out: Methods of the rule that did not run.
        crop: Of its images; None where that is not known, as a record does not hold it.
    """
    dataset = data["dataset"]
    if dataset not in NETWORKS.get(network, ()):
        return f"{network} on {dataset} is none of its cells"
    if missing := [name for name in left_out if name not in MAY_LACK]:
        return f"without {', '.join(missing)}"
    wrong = [name for name, value in TERMS.items() if settings.get(name) != value]
    variant, usual = IMAGES[dataset]
    if resolution != RESOLUTION[network]:
        wrong.append("resolution")
    if data["variant"] != variant:
        wrong.append("class split")
    if crop not in (None, usual):
        wrong.append("crop")
    return f"other {', '.join(wrong)} than the rule's" if wrong else ""


def rule_digest() -> str:
    """Digest cells, terms, and the choices, effects and verdicts of made-up figures: ten hexadecimal digits."""
    said: list[str] = [repr((NETWORKS, TERMS, RESOLUTION, IMAGES, MAY_LACK))]
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

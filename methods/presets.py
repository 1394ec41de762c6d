"""Hyper-parameters as published: method -> (data set, shot) -> options of its constructor.

LST: Chobola, Vasata and Kordik 2021, table 1, which is also what their code has. PT-MAP: the values that they compared
it with, on both data sets. How they were chosen is not said there; choose your own on validation classes, as
the command ``latent_space`` does where it is told to tune.
"""

from __future__ import annotations

from collections.abc import Mapping

Options = Mapping[str, float | int]

SOURCES = ("cifar-fs", "cub")
"""Data sets for which they are given."""

PUBLISHED: Mapping[str, Mapping[tuple[str, int], Options]] = {
    "lst": {
        ("cifar-fs", 1): {"beta": 0.5, "delta": 0.3, "gamma": 0.98, "alpha": 0.3, "n_steps": 20, "lam": 10.0},
        ("cifar-fs", 5): {"beta": 0.5, "delta": 0.4, "gamma": 0.95, "alpha": 0.2, "n_steps": 20, "lam": 10.0},
        ("cub", 1): {"beta": 0.5, "delta": 0.7, "gamma": 0.95, "alpha": 0.4, "n_steps": 30, "lam": 10.0},
        ("cub", 5): {"beta": 0.5, "delta": 0.3, "gamma": 0.9, "alpha": 0.2, "n_steps": 20, "lam": 10.0},
    },
    "pt-map": {
        (dataset, shot): {"beta": 0.5, "alpha": alpha, "n_steps": n_steps, "lam": 10.0}
        for dataset in ("cifar-fs", "cub")
        for shot, alpha, n_steps in ((1, 0.3, 30), (5, 0.2, 20))
    },
}


def published(method: str, dataset: str, shot: int) -> Options:
    """Return the published options for a data set, of which one-shot ones serve one shot and five-shot ones all others.

    Args:
        method: "lst" or "pt-map".
        dataset: "cifar-fs" or "cub"; any other gets those of CUB.
        shot: Labelled images of each class.
    """
    table = PUBLISHED[method]
    return table[dataset if (dataset, 1) in table else "cub", 1 if shot == 1 else 5]

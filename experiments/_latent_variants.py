"""Which transforms with which heads, and the eight ways between PT and LST."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from otfew.experiments._analysis import Variant
from otfew.experiments._latent_tuning import Tuned
from otfew.methods.presets import published

HEADS = {"ncm": "NCM", "kmeans": "k-means", "gmm": "GMM", "map": "MAP"}
TRANSFORMS = {"pt-map": "PT", "lst": "LST"}


def name(method: str, head: str) -> str:
    """Name a transform with a head as the paper does: "LST+MAP"."""
    return f"{TRANSFORMS[method]}+{HEADS[head]}"


def comparison(nodes: str, source: str, shot: int, tuned: Tuned | None) -> tuple[Variant, ...]:
    """List the rows of the paper's Tables 2 and 3.

    Args:
        nodes: Canonical kind of nodes.
        source: Data set whose published hyper-parameters are taken.
        shot: Labelled images of each class.
        tuned: Other hyper-parameters instead, or None.
    """
    rows = [Variant("NCM", "protonet", nodes)]
    for head in HEADS:
        for method in TRANSFORMS:
            options = tuned.options[method, head] if tuned else published(method, source, shot)
            rows.append(Variant(name(method, head), method, nodes, {**options, "head": head}))
    return tuple(rows)


def ablation(lst: Variant) -> tuple[Variant, ...]:
    """List the eight ways between PT and LST with MAP and the same other options.

    Names are three digits, 1 for LST's way and 0 for PT's: delta (full norm: 1), gamma (full norm: 1), joint centring.
    """
    rows = []
    for steps in itertools.product((False, True), repeat=3):
        delta, gamma, joint = steps
        changed: Mapping[str, Any] = {
            "delta": lst.options["delta"] if delta else 1.0,
            "gamma": lst.options["gamma"] if gamma else 1.0,
            "joint": joint,
        }
        rows.append(Variant("".join(str(int(s)) for s in steps), "lst", lst.nodes, {**lst.options, **changed}))
    return tuple(rows)

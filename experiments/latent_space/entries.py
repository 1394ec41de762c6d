"""Which transforms with which heads, and the eight ways between PT and LST."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from otfew.evaluation.lineup import Entry
from otfew.evaluation.tuning import Options
from otfew.methods.presets import published

HEADS = {"ncm": "NCM", "kmeans": "k-means", "gmm": "GMM", "map": "MAP"}
TRANSFORMS = {"pt-map": "PT", "lst": "LST"}


def name(method: str, head: str) -> str:
    """Name a transform with a head as the paper does: "LST+MAP"."""
    return f"{TRANSFORMS[method]}+{HEADS[head]}"


def published_options(source: str, shot: int, beta: float | None) -> dict[tuple[str, str], Options]:
    """Return the published options of every (transform, head), which has them from its transform.

    Args:
        source: Data set whose options are taken.
        shot: Labelled images of each class.
        beta: Another exponent of the power transform, or None.
    """
    changed = {} if beta is None else {"beta": beta}
    return {(m, head): {**published(m, source, shot), **changed} for m in TRANSFORMS for head in HEADS}


def comparison(nodes: str, options: Mapping[tuple[str, str], Options]) -> tuple[Entry, ...]:
    """List the rows of the paper's Tables 2 and 3.

    Args:
        nodes: Canonical kind of nodes.
        options: Of every (transform, head).
    """
    rows = [Entry("NCM", "protonet", nodes)]
    for head in HEADS:
        rows += [Entry(name(m, head), m, nodes, {**options[m, head], "head": head}) for m in TRANSFORMS]
    return tuple(rows)


def ablation(lst: Entry) -> tuple[Entry, ...]:
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
        rows.append(Entry("".join(str(int(s)) for s in steps), "lst", lst.nodes, {**lst.options, **changed}))
    return tuple(rows)

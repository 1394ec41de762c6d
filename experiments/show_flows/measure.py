"""Does the flow find the object? On ``glyphs``, where the true box of the letter is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from otfew.data.glyphs import GlyphSet
from otfew.evaluation.episodes import Indices, Protocol, Sampler
from otfew.evaluation.estimates import to_record
from otfew.experiments.show_flows.scenes import covered, look
from otfew.features.material import ImageMaterial
from otfew.nodes import parse
from otfew.nodes.boxes import Boxes
from otfew.nodes.sampling import Sampling
from otfew.scores.node_weights import resolve_weights
from otfew.scores.pairwise import similarities
from otfew.statistics.intervals import estimate, holm, p_value, verdict
from otfew.transport import Solver, solve

Floats = npt.NDArray[np.float64]
PAIRS = ("same class", "different class")
COUPLINGS = ("plan", "product")
WEIGHTS = ("cross_reference", "uniform")


def on_target(material: ImageMaterial, spec: str) -> Floats:
    """Compute for every node of every image the share of its area inside the letter's box: (images, nodes)."""
    images, extractor = material.images, parse(spec)
    assert isinstance(images, GlyphSet)
    target = images.boxes.astype(np.float64)

    def boxes(i: int) -> Boxes:
        return look(images.read(i), images.names[i], material.backbone, extractor, material.preparation).boxes

    # Pictures are of one size, so that only random crops differ from one to the next.
    places = [boxes(i) for i in range(len(images))] if isinstance(extractor, Sampling) else [boxes(0)] * len(images)
    return np.stack([covered(place, box) for place, box in zip(places, target, strict=True)])


def landing(plan: Tensor, here: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
    """Measure where the mass of the nodes on one object lands.

    Args:
        plan: (..., n, m).
        here: (..., n) share of each row's node that is on its image's object.
        there: (..., m) the same for the columns.

    Returns:
        The mass on the object, sum_ij here_i P_ij of total sum_ij P_ij, and the share of it that lands on the other
        object, sum_ij here_i P_ij there_j / sum_ij here_i P_ij; both (...).
    """
    leaving = (here[..., None] * plan).sum((-1, -2))
    landed = (here[..., None] * plan * there[..., None, :]).sum((-1, -2))
    return leaving / plan.sum((-1, -2)), landed / leaving


def measure(
    material: ImageMaterial, spec: str, solver: str | Solver, pairs: int, seed: int, device: str
) -> dict[str, Any]:
    """Measure the share of the flow from query nodes on the letter that lands on the support's letter.

    Pair i of either kind is a query and a support image of two-way one-shot episode i with one query: the first class's
    query with the first class's support, and with the second's. The product of the weights, which ignores the cost,
    shows what the weights do without any matching.

    Args:
        material: A split of ``glyphs``.
        spec: Kind of nodes.
        solver: As in ``otfew.solve``.
        pairs: How many of each kind.
        seed: Of the pairs.
        device: Where to compute.

    Returns:
        JSON-ready: "shares" and "mass" by kind of pair, weights and coupling, and "differences", paired, of
        cross-reference to equal weights and of same to different class, corrected as one family.
    """
    described = material.describe()["data"]
    keys = {name: described[name] for name in ("dataset", "variant", "split")}
    sampler = Sampler(Protocol(**keys, seed=seed, way=2, shot=1, query=1), material.labels, material.classes)
    episodes = sampler(0, pairs)
    support, query = episodes.support[:, :, 0], episodes.query[:, 0]
    nodes = material.features(spec, device).nodes
    inside = torch.from_numpy(on_target(material, spec))
    here, there = inside[query][:, :, None], inside[support][:, None]
    found: dict[tuple[str, str, str], Floats] = {}
    mass: dict[tuple[str, str, str], Floats] = {}
    for weights in WEIGHTS:
        support_map = nodes[torch.from_numpy(support)].to(device)
        weighted = resolve_weights(weights).weigh(support_map, nodes[torch.from_numpy(query)].to(device))
        cost = 1 - similarities(weighted.support_map, weighted.query)
        plans = {
            "plan": solve(cost, weighted.s, weighted.d, solver=solver).plan,
            "product": weighted.s[..., :, None] * weighted.d[..., None, :],
        }
        for coupling, plan in plans.items():
            on, share = landing(plan.double().cpu(), here, there)
            for k, kind in enumerate(PAIRS):
                found[kind, weights, coupling] = share[:, 0, k].numpy()
                mass[kind, weights, coupling] = on[:, 0, k].numpy()
    return _record(found, mass, episodes.classes, material.classes)


def _record(
    found: dict[tuple[str, str, str], Floats],
    mass: dict[tuple[str, str, str], Floats],
    classes: Indices,
    names: Sequence[str],
) -> dict[str, Any]:
    """Reduce (pairs,) shares to means and paired differences with intervals."""
    contrasts = {
        **{
            f"{kind}, {coupling}: cross-reference minus equal weights": found[kind, WEIGHTS[0], coupling]
            - found[kind, WEIGHTS[1], coupling]
            for kind in PAIRS
            for coupling in COUPLINGS
        },
        **{
            f"{weights}, plan: same minus different class": found[PAIRS[0], weights, "plan"]
            - found[PAIRS[1], weights, "plan"]
            for weights in WEIGHTS
        },
        **{
            f"same class, {weights}: plan minus product": found[PAIRS[0], weights, "plan"]
            - found[PAIRS[0], weights, "product"]
            for weights in WEIGHTS
        },
    }
    estimates = {name: estimate(values, classes, names) for name, values in contrasts.items()}
    raw = [p_value(value) for value in estimates.values()]
    return {
        "shares": {", ".join(key): to_record(estimate(values, classes, names)) for key, values in found.items()},
        "mass": {", ".join(key): to_record(estimate(values, classes, names)) for key, values in mass.items()},
        "differences": {
            name: {**to_record(value), "p_holm": None if p is None else round(p, 8), "verdict": verdict(value, p)}
            for (name, value), p in zip(estimates.items(), holm(raw), strict=True)
        },
    }

"""What a method is wrong about: its worst episodes asked again, for confusions and for queries to look at.

The evaluator keeps how many queries of each class were right, and not what the others were taken for; a few episodes
are soon asked again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from otfew.evaluation.episodes import Sampler
from otfew.evaluation.estimates import Floats
from otfew.evaluation.run import Ready
from otfew.features.extract import FeatureSet
from otfew.scores.node_weights import resolve_weights
from otfew.scores.pairwise import similarities
from otfew.transport import solve

EPISODES = 20
"""Episodes that are asked again."""
QUERIES = 4
"""Queries that are looked at."""
FLOWS = 5


@dataclass(frozen=True)
class Flow:
    """Where the mass of one node goes.

    Attributes:
        here: Node of the query.
        there: Node of the labelled image.
        share: Of all mass.
        similarity: Centred cosine of the two.
    """

    here: int
    there: int
    share: float
    similarity: float


@dataclass(frozen=True)
class Match:
    """A labelled image beside a query.

    Attributes:
        image: Its number in the split.
        flows: DeepEMD's strongest from the query to it.
    """

    image: int
    flows: tuple[Flow, ...]


@dataclass(frozen=True)
class Query:
    """A query that was taken for another class.

    Attributes:
        image: Its number in the split.
        episode: In which.
        label: Its class, by number in the split.
        taken: The class that it was taken for.
        margin: How far that class's logit was ahead.
        wrong: The labelled image of that class that is nearest by the mean of its nodes.
        right: The same of its own class.
    """

    image: int
    episode: int
    label: int
    taken: int
    margin: float
    wrong: Match
    right: Match


@dataclass(frozen=True)
class Worst:
    """What was found.

    Attributes:
        method: Name of the entry that was asked.
        nodes: Kind of the nodes that flows are between.
        count: How many an image has.
        episodes: How many episodes, those with the lowest accuracy.
        queries: Queries in them, of known classes.
        confusions: (label, taken for) -> how many, by numbers of classes.
        looked_at: The surest mistakes, one of a query image.
    """

    method: str
    nodes: str
    count: int
    episodes: int
    queries: int
    confusions: dict[tuple[int, int], int]
    looked_at: tuple[Query, ...]


def find_worst(ready: Ready, full: FeatureSet, sampler: Sampler, accuracy: Floats, device: str) -> Worst:
    """Ask a method again about the episodes in which it was worst.

    Args:
        ready: The method and its features.
        full: The features with all their nodes, where the method's are averaged: for the flows.
        sampler: Of the run.
        accuracy: (episodes,) of the method.
        device: Where it runs.
    """
    chosen = sorted(np.argsort(accuracy, kind="stable")[:EPISODES].tolist())
    confusions: Counter[tuple[int, int]] = Counter()
    wrong: list[tuple[float, int, int, int, int, npt.NDArray[np.int64]]] = []
    asked = 0
    for index in chosen:
        part = sampler(index, index + 1)
        support, query = (
            ready.features.rows(images[0].reshape(-1)).to(device) for images in (part.support, part.query)
        )
        support = support.view(1, *part.support.shape[1:], *support.shape[1:])
        prior = ready.prior(part)
        told = {} if prior is None else {"class_prior": torch.from_numpy(prior).to(support)}
        logits = ready.method(support, query[None], **told).detach().cpu().double().numpy()[0]
        truth, images, classes = part.answers[0], part.query[0].reshape(-1), part.classes[0]
        asked += len(truth)
        for row, label, image in zip(logits, truth.tolist(), images.tolist(), strict=True):
            taken = int(row.argmax())
            if taken != label:
                confusions[int(classes[label]), int(classes[taken])] += 1
                wrong.append((float(row[taken] - row[label]), index, image, label, taken, part.support[0]))
    wrong.sort(key=lambda w: (-w[0], w[1], w[2]))
    seen: dict[int, Query] = {}
    for margin, index, image, label, taken, labelled in wrong:
        if len(seen) == QUERIES:
            break
        if image not in seen:
            classes = sampler(index, index + 1).classes[0]
            there, own = (_match(full, image, labelled[c].tolist()) for c in (taken, label))
            seen[image] = Query(image, index, int(classes[label]), int(classes[taken]), margin, there, own)
    ordered = dict(sorted(confusions.items(), key=lambda item: (-item[1], item[0])))
    spec, count = full.nodes_spec, full.nodes.shape[1]
    return Worst(ready.name, spec, count, len(chosen), asked, ordered, tuple(seen.values()))


def _match(features: FeatureSet, image: int, labelled: Sequence[int]) -> Match:
    """Find the nearest of some labelled images, and the flows to it."""
    here, nodes = features.rows(np.array(image)), features.nodes
    mean = torch.nn.functional.normalize(here.mean(0), dim=0)
    near = [float(mean @ torch.nn.functional.normalize(nodes[i].mean(0), dim=0)) for i in labelled]
    best = labelled[int(np.argmax(near))]
    return Match(best, strongest(here, nodes[best]))


def strongest(here: Tensor, there: Tensor) -> tuple[Flow, ...]:
    """Find the flows that add most to DeepEMD's score, with its cross-reference weights.

    Args:
        here: (nodes, channels) of the query.
        there: (nodes, channels) of a labelled image.

    Returns:
        The strongest of each node of the query, the largest share times similarity first; none that adds nothing.
    """
    weighted = resolve_weights("cross_reference").weigh(there[None, None], here[None, None])
    similar = similarities(weighted.support_map, weighted.query)
    plan = solve(1 - similar, weighted.s, weighted.d).plan[0, 0, 0].detach().double().numpy()
    values = similar[0, 0, 0].double().numpy()
    plan = plan / plan.sum()
    worth = plan * values
    flows = []
    for i in np.argsort(-worth.max(1), kind="stable")[:FLOWS].tolist():
        j = int(worth[i].argmax())
        if worth[i, j] > 0:
            flows.append(Flow(i, j, float(plan[i, j]), float(values[i, j])))
    return tuple(flows)

"""Retrieval in two steps: global vectors rank the gallery, and scores of local nodes rank its head again.

Every image is a query against all others. Queries are worked on in blocks that are kept on disk; nothing that grows
with queries times gallery is ever held. Shapes: G images, C channels, Q queries of a block, K candidates of a query.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import normalize

from otfew.errors import UserError
from otfew.features.extract import FeatureSet
from otfew.random.words import permutation
from otfew.retrieval.metrics import ranking_metrics
from otfew.retrieval.reranking import NodeSets, Score, score_candidates
from otfew.runs.blocks import Arrays, Column, Form
from otfew.runs.directory import RunDirectory
from otfew.runs.files import Note
from otfew.runs.identity import code_digest
from otfew.scores.pairwise import NORM_EPS

BLOCK = 64
"""Queries in a block: the unit that is computed, kept and resumed."""
METRICS = ("p_at_1", "r_precision", "map_at_r")
"""P@1, R-precision and MAP@R, see ``otfew.retrieval.metrics``."""
HEAD = 10
"""Retrieved images that are kept for each query."""
GLOBAL = "global"
"""Name of the ranking by global vectors."""
CODE = ("otfew.random", "otfew.retrieval", "otfew.scores", "otfew.transport")
"""What rankings depend on, beside the features, whose digest a block holds."""
_TIES = 7
"""Key of the shuffle that orders images with equal scores."""

Floats = npt.NDArray[np.float64]
Progress = Callable[[int, str], None]
"""Called with the number of queries that were just ranked, and the name of the nodes that ranked them."""


@dataclass(frozen=True)
class Reranker:
    """Scores on one kind of nodes, which order the same candidates.

    Attributes:
        nodes: Name of the nodes; unique in a run.
        features: Nodes of the gallery's images.
        scores: Name -> score.
    """

    nodes: str
    features: FeatureSet
    scores: Mapping[str, Score]

    def name(self, score: str) -> str:
        """Return a ranking's name in reports.

        Args:
            score: A key of ``scores``.
        """
        return f"{score} [{self.nodes}]"


@dataclass(frozen=True)
class Ranked:
    """How well one ranking does.

    Attributes:
        metrics: Name in ``METRICS`` -> (G,) float64 in [0, 1]; NaN where no other image is of the query's class.
        head: (G, HEAD or fewer) int64, the first images retrieved for each query.
        seconds: From cached features to the ranking, all queries; candidates from the global ranking are given.
    """

    metrics: Mapping[str, Floats]
    head: npt.NDArray[np.int64]
    seconds: float


class Shortlist:
    """The global ranking, and with it each query's candidates.

    Equal cosines are ordered by a fixed shuffle of the gallery: data sets list their images class by class, and in
    that order ties would favour the first classes.

    Args:
        vectors: (G, C) global vectors; their cosines rank.
        device: Where to compute.
    """

    def __init__(self, vectors: Tensor, device: torch.device | str = "cpu") -> None:
        self._order = torch.from_numpy(permutation(len(vectors), _TIES)).to(device)
        self._vectors = normalize(vectors.to(device), dim=1, eps=NORM_EPS)
        self._gallery = self._vectors[self._order]

    def __call__(self, start: int, stop: int, size: int) -> Tensor:
        """Rank the gallery for queries start to stop - 1, without themselves.

        Returns:
            (stop - start, size) int64 image numbers, nearest first.
        """
        cosines = self._vectors[start:stop] @ self._gallery.mT
        own = torch.arange(start, stop, device=cosines.device)[:, None]
        cosines[self._order == own] = -torch.inf
        return self._order[cosines.argsort(dim=1, descending=True, stable=True)[:, :size]]


def reordered(candidates: Tensor, scores: Tensor) -> Tensor:
    """Order candidates (Q, K) by scores (Q, K), largest first; equal scores keep the order of the candidates."""
    order = scores.argsort(dim=1, descending=True, stable=True)
    return candidates.gather(1, order.to(candidates.device))


def retrieve(
    global_features: FeatureSet,
    rerankers: Sequence[Reranker],
    rerank: int,
    *,
    directory: RunDirectory | None = None,
    device: torch.device | str = "cpu",
    progress: Progress = lambda _, __: None,
    note: Note = lambda _: None,
) -> dict[str, Ranked]:
    """Rank the gallery for every image: by global vectors, and by every score, which re-orders the first ``rerank``.

    Blocks that ``directory`` holds are taken from there; a block does not depend on which others are there.

    Args:
        global_features: One node an image, or nodes whose mean is the global vector; with labels.
        rerankers: Scores by kind of nodes; may be none.
        rerank: K, from 1 to G - 1; G - 1 scores all pairs. Behind them follows the rest of the global ranking.
        directory: Where finished blocks are kept, or None.
        device: Where pairs are scored.
        progress: Called for every block and kind of nodes.
        note: Called with a sentence where a damaged block is computed again.

    Returns:
        Name -> results; ``GLOBAL``, then "score [nodes]".

    Raises:
        UserError: One class only, no class with two images, ``rerank`` out of range, or a score that is NaN.
    """
    check_gallery(global_features.labels, global_features.classes)
    if not 1 <= rerank < len(global_features.labels):
        raise UserError(f"`rerank` must be from 1 to {len(global_features.labels) - 1}, not {rerank}.")
    ranker = _Ranker(global_features, rerankers, rerank, torch.device(device), progress)
    blocks = []
    for index, start in enumerate(range(0, len(global_features.labels), BLOCK)):
        stop = min(start + BLOCK, len(global_features.labels))
        form = ranker.form(stop - start)
        block = directory.load_block(index, form, note) if directory else None
        if block is not None and ranker.stale(block):
            note(f"finished queries {start} to {stop - 1} ran on other features; computing them again")
            block = None
        if block is None:
            with torch.inference_mode():
                block = ranker.block(start, stop)
            if directory:
                directory.save_block(index, block, form)
        else:
            for reranker in rerankers:
                progress(stop - start, reranker.nodes)
        blocks.append(block)
    return {name: _joined(blocks, name) for name in ranker.names}


def check_gallery(labels: npt.NDArray[np.int64], classes: Sequence[str]) -> None:
    """Raise ``UserError`` where there is nothing to tell apart, or nothing to find."""
    present, counts = np.unique(labels, return_counts=True)
    if len(present) < 2:
        name = classes[int(present[0])] if len(present) else "none"
        raise UserError(f"all images are of one class ({name}), so every answer is right: give at least two classes.")
    if counts.max() < 2:
        raise UserError("every class has a single image, so no query has anything to find: give two of some class.")


class _Ranker:
    """Computes blocks."""

    def __init__(
        self,
        global_features: FeatureSet,
        rerankers: Sequence[Reranker],
        rerank: int,
        device: torch.device,
        progress: Progress,
    ) -> None:
        self._labels = torch.from_numpy(global_features.labels)
        # How many images beside the query are of its class; rankings are read down to the largest of these numbers.
        self._relevant = torch.bincount(self._labels)[self._labels] - 1
        self._depth = min(len(self._labels) - 1, max(int(self._relevant.max()), HEAD))
        self._rerank = rerank
        self._shortlist = Shortlist(global_features.pooled.nodes[:, 0], device)
        self._rerankers = rerankers
        self._device = device
        self._progress = progress
        self._sets: dict[str, NodeSets] = {}
        self._materials = {r.nodes: str(r.features.source.get("features_sha256", "")) for r in rerankers}
        self._materials[GLOBAL] = str(global_features.source.get("features_sha256", ""))
        self.names = [GLOBAL, *(r.name(score) for r in rerankers for score in r.scores)]
        self._code = code_digest(*CODE)

    def form(self, queries: int) -> Form:
        """Say what a finished block of so many queries is."""
        columns = {f"{name}.material": Column(kind="U") for name in self._materials}
        for name in self.names:
            columns |= {f"{name}.{metric}": Column((queries,), least=0, most=1, gaps=True) for metric in METRICS}
            columns[f"{name}.head"] = Column((queries, min(HEAD, self._depth)), "i", 0, len(self._labels) - 1)
            columns[f"{name}.seconds"] = Column(least=0)
        return Form(columns, self._code)

    def stale(self, block: Arrays) -> bool:
        """Tell whether a finished block ran on other features."""
        return any(str(block[f"{name}.material"]) != material for name, material in self._materials.items())

    def block(self, start: int, stop: int) -> Arrays:
        """Rank the gallery for queries start to stop - 1."""
        arrays: Arrays = {f"{name}.material": np.array(material) for name, material in self._materials.items()}
        started = time.perf_counter()
        ranking = self._shortlist(start, stop, max(self._rerank, self._depth)).cpu()
        arrays |= self._measured(GLOBAL, ranking, start, time.perf_counter() - started)
        query, candidates, rest = torch.arange(start, stop), ranking[:, : self._rerank], ranking[:, self._rerank :]
        for reranker in self._rerankers:
            scores, seconds = score_candidates(self._ready(reranker), query, candidates, reranker.scores)
            for score, values in scores.items():
                name = reranker.name(score)
                bad = values.isnan().any(1).nonzero()
                if len(bad):
                    raise UserError(f"{name} scored NaN for query {start + int(bad[0])}: check the features.")
                again = torch.cat([reordered(candidates, values), rest], 1)
                arrays |= self._measured(name, again, start, seconds[""] + seconds[score])
            self._progress(stop - start, reranker.nodes)
        return arrays

    def _ready(self, reranker: Reranker) -> NodeSets:
        """Measure the nodes once, and let what is compiled at first use be compiled before the clock runs."""
        if reranker.nodes not in self._sets:
            sets = self._sets[reranker.nodes] = NodeSets.of(reranker.features.nodes, self._device)
            score_candidates(sets, torch.tensor([0]), torch.tensor([[1]]), reranker.scores)
        return self._sets[reranker.nodes]

    def _measured(self, name: str, ranking: Tensor, start: int, seconds: float) -> Arrays:
        """Measure a ranking (Q, at least depth); what of it is kept does not grow with the gallery."""
        stop = start + len(ranking)
        top = ranking[:, : self._depth]
        found = ranking_metrics(self._labels[top] == self._labels[start:stop, None], self._relevant[start:stop])
        arrays: Arrays = {f"{name}.{metric}": found[metric].numpy() for metric in METRICS}
        return arrays | {f"{name}.head": top[:, :HEAD].numpy(), f"{name}.seconds": np.array(seconds)}


def _joined(blocks: Sequence[Arrays], name: str) -> Ranked:
    """Join what the blocks hold of one ranking."""

    def column(what: str) -> Iterator[npt.NDArray[np.float64]]:
        return (block[f"{name}.{what}"] for block in blocks)

    return Ranked(
        metrics={metric: np.concatenate(list(column(metric))) for metric in METRICS},
        head=np.concatenate([block[f"{name}.head"] for block in blocks]),
        seconds=float(sum(column("seconds"))),
    )

"""DeepEMD's many questions about the same photos: products of two photos are computed once and stand in all of them.

DeepEMD compares a photo with the location-wise mean of a class's photos. Products of nodes are linear in that mean,

    <u_i, mean_k v_kj> = mean_k <u_i, v_kj>,    |mean_k v_kj|^2 = mean_kl <v_kj, v_lj>,

so that a question which leaves other photos out is another mean of numbers that are there, and a product of two photos
serves both as the one that is asked about. What is left of each question is its transport.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from otfew import catalogue
from otfew.classifier.answering import takes_means
from otfew.method import FewShotMethod
from otfew.scores.emd import mean_similarity
from otfew.scores.node_weights import CrossReference
from otfew.scores.pairwise import NORM_EPS, centre, normalised_weights

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
Wanted = Mapping[tuple[int, ...], Sequence[int]]
"""For each set of known photos, of which every class has one, the photos to ask about."""


class PairProducts:
    """Answers to many questions, to be computed in parts that may run side by side.

    Args:
        method: One for which ``pay`` is True.
        nodes: (photos, nodes, channels) on the CPU.
        labels: (photos,) indices of classes; those of photos that are never known do not matter.
        way: Classes.
        wanted: The questions.
    """

    def __init__(self, method: FewShotMethod, nodes: Tensor, labels: Indices, way: int, wanted: Wanted) -> None:
        self._score = method.score  # type: ignore[attr-defined]
        self._temperature: float = method.temperature  # type: ignore[attr-defined]
        self._members = [torch.from_numpy(np.flatnonzero(labels == c)) for c in range(way)]
        self._wanted = wanted
        self._questions, self._asked = _rows(wanted)
        self._shares = _shares(list(wanted), labels, way, nodes)
        self._nodes = centre(nodes)
        self._lengths = torch.linalg.vector_norm(self._nodes, dim=-1).clamp_min(NORM_EPS)
        # <x_i, mean_j v_j> of every node of every photo with every photo: cross-reference weights are means of these.
        self._cross = (nodes.flatten(0, 1) @ nodes.mean(1).T).view(*nodes.shape[:2], len(nodes))
        self._mean_lengths = [self._lengths_of_mean(c) for c in range(way)]
        self._found = torch.empty(len(self._asked), way, dtype=torch.float64)

    def parts(self) -> list[Callable[[], None]]:
        """List what is to be done, of which no part touches what another one changes; the longest come first."""
        return [partial(self._compare, c) for c in range(len(self._members))]

    def answers(self) -> dict[tuple[int, ...], dict[int, Floats]]:
        """Return logits (way,) of each photo that is asked about, by the known ones; after all parts."""
        logits = (self._temperature * self._found).numpy()
        found: dict[tuple[int, ...], dict[int, Floats]] = {known: {} for known in self._wanted}
        names = list(self._wanted)
        for question, photo, row in zip(self._questions.tolist(), self._asked.tolist(), logits, strict=True):
            found[names[question]][photo] = row
        return found

    def _compare(self, c: int) -> None:
        """Compare the photos of a class with it and with later classes, and theirs with it."""
        one = self._nodes[self._members[c]]
        for d in range(c, len(self._members)):
            other = one if d == c else self._nodes[self._members[d]]
            products = (one.flatten(0, 1) @ other.flatten(0, 1).T).view(*one.shape[:2], *other.shape[:2])
            # (photos that are asked about, photos that are known, nodes of either)
            self._score_rows(c, d, products.transpose(1, 2))
            if d != c:
                self._score_rows(d, c, products.permute(2, 0, 3, 1))

    def _score_rows(self, asked: int, known: int, products: Tensor) -> None:
        """Score the photos of one class against the means of another, by their products.

        Args:
            asked: The one.
            known: The other.
            products: (photos of the one, photos of the other, nodes of the one, nodes of the other).
        """
        own = self._members[known]
        parts: list[tuple[Tensor, Tensor, Tensor]] = []
        rows: list[Tensor] = []
        for place, photo in enumerate(self._members[asked].tolist()):
            row = torch.from_numpy(np.flatnonzero(self._asked == photo))
            if not len(row):
                continue
            question = self._questions[row]
            share = self._shares[question][:, own]
            # In place: these are by far the largest tensors.
            similarity = (share @ products[place].flatten(1)).view(-1, *products.shape[2:])
            similarity.div_(self._lengths[photo][:, None]).div_(self._mean_lengths[known][question][:, None])
            parts.append((similarity, share @ self._cross[photo][:, own].T, share @ self._cross[own, :, photo]))
            rows.append(row)
        if rows:
            similarities, s, d = (torch.cat(each) for each in zip(*parts, strict=True))
            weights = (normalised_weights(s), normalised_weights(d))
            found = mean_similarity(similarities, *weights, self._score.solver, self._score.mass)
            self._found[torch.cat(rows), known] = found.double()

    def _lengths_of_mean(self, c: int) -> Tensor:
        """Measure the nodes of a class's mean in each question: (questions, nodes)."""
        own = self._nodes[self._members[c]].transpose(0, 1)
        share = self._shares[:, self._members[c]]
        squares = ((share @ (own @ own.mT)) * share).sum(-1)
        return squares.clamp_min(0).sqrt().clamp_min(NORM_EPS).T


def pay(method: FewShotMethod, nodes: Tensor, way: int, wanted: Wanted) -> bool:
    """Tell whether a method's questions can be answered so, with fewer products than one after another.

    Args:
        method: Any.
        nodes: (photos, nodes, channels).
        way: Classes.
        wanted: The questions.
    """
    if not (nodes.is_cpu and nodes.dtype in (torch.float32, torch.float64) and takes_means(method)):
        return False
    if type(method).__call__ is not catalogue.find("deepemd").__call__:
        return False
    if type(method.score.weights) is not CrossReference:  # type: ignore[attr-defined]
        return False
    asked = len(set().union(*wanted.values()))
    pairs = asked * len(nodes) - asked * (asked - 1) // 2
    return way * sum(map(len, wanted.values())) > pairs


def _rows(wanted: Wanted) -> tuple[Tensor, Indices]:
    """Number questions and photos that are asked about, a row each."""
    questions = [k for k, asked in enumerate(wanted.values()) for _ in asked]
    photos = [photo for asked in wanted.values() for photo in asked]
    return torch.tensor(questions, dtype=torch.int64), np.array(photos, dtype=np.int64)


def _shares(questions: Sequence[tuple[int, ...]], labels: Indices, way: int, like: Tensor) -> Tensor:
    """How much each photo counts in the mean of its class: (questions, photos), 0 where it is not known."""
    shares = np.zeros((len(questions), len(labels)))
    for row, known in zip(shares, questions, strict=True):
        own = np.array(known, dtype=np.int64)
        row[own] = 1 / np.bincount(labels[own], minlength=way)[labels[own]]
    return torch.from_numpy(shares).to(like.dtype)

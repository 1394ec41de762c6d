"""Labelled photos held out, a unit of each class at a time, and what a method says of them without having seen them.

A unit is a photo, or a group of near-duplicates, which is never split: a copy of a held-out photo among the labelled
ones would answer for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from otfew.classifier.answering import takes_means
from otfew.classifier.pair_products import PairProducts, pay
from otfew.errors import UserError
from otfew.method import FewShotMethod

Indices = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

MOST_ROUNDS = 8
"""Rounds of a pass: a fixed number, so that the answer does not depend on the machine."""
PASSES = 2
"""How often the rounds are gone through, each time with other photos held out beside a photo."""


@dataclass(frozen=True)
class Photos:
    """Labelled photos as a method sees them.

    Attributes:
        nodes: (images, nodes, channels).
        labels: (images,) indices into the classes.
        way: How many classes there are.
        units: (images,) ids of near-duplicate groups; photos of one id are held out together.
    """

    nodes: Tensor
    labels: Indices
    way: int
    units: Indices

    def pooled(self) -> Photos:
        """Return the same photos with one node each, the average of its nodes."""
        return Photos(self.nodes.mean(1, keepdim=True), self.labels, self.way, self.units)

    def turned(self) -> Photos:
        """Return the same photos of one node each in as few channels as there are photos.

        They are written in a basis of what they span: products and distances stay, up to rounding, and so does whatever
        a method makes of these alone, such as a regression with a penalty on its length.
        """
        if len(self.labels) >= self.nodes.shape[-1]:
            return self
        vectors = self.nodes[:, 0].double()
        basis = torch.linalg.qr(vectors.T)[0]
        return Photos((vectors @ basis).to(self.nodes)[:, None], self.labels, self.way, self.units)


@dataclass(frozen=True)
class Question:
    """Photos that are asked about, given others.

    Attributes:
        known: Indices of the photos whose labels are known, ascending; every class has one.
        asked: Indices of the photos to classify; none of them is known, nor a near-duplicate of one that is.
    """

    known: tuple[int, ...]
    asked: tuple[int, ...]


def rounds(labels: Indices, units: Indices, most: int = MOST_ROUNDS, passes: int = PASSES) -> list[list[int]]:
    """Settle which photos are held out together: at most one unit of each class, which keeps another.

    Which they are depends on the order of the photos and on who shares a label or a unit with whom, not on what the
    labels are called. A class of more units than rounds has some of them held out in the first pass and others in the
    next ones; one of a single unit never has it held out.

    Args:
        labels: (images,) indices of classes.
        units: (images,) ids of near-duplicate groups.
        most: Rounds of a pass.
        passes: How often.

    Returns:
        For each round the photos that are held out, ascending; rounds without any are left out.
    """
    # Classes in the order in which they appear: names would make another study of the same photos.
    order = [int(labels[i]) for i in sorted(np.unique(labels, return_index=True)[1])]
    own = {c: list(dict.fromkeys(units[labels == c].tolist())) for c in order}
    count = min(most, max(map(len, own.values())))
    found = []
    for turn in range(passes):
        for r in range(count):
            held: set[int] = set()
            for rank, c in enumerate(order):
                # Other classes move on by another step in each pass, so that a photo meets other companions.
                place = (r + turn * rank) % count + min(turn * count, max(0, len(own[c]) - count))
                if place >= len(own[c]):
                    continue
                more = held | set(np.flatnonzero(units == own[c][place]).tolist())
                if set(np.delete(labels, sorted(more)).tolist()) == set(order):
                    held = more
            if held:
                found.append(sorted(held))
    return found


def single(labels: Indices, held: Sequence[Sequence[int]]) -> list[Question]:
    """Ask about the photos of each round, given all others."""
    everything = range(len(labels))
    return [Question(tuple(sorted(set(everything) - set(out))), tuple(out)) for out in held]


def nested(labels: Indices, outer: Sequence[int], held: Sequence[Sequence[int]]) -> list[Question]:
    """Ask about the photos of other rounds, given what is neither theirs nor of one that stays out altogether.

    A class that would have no photo left keeps those of the inner round and is not asked about there.

    Args:
        labels: (images,) indices of classes.
        outer: Photos that no question may contain, with all their near-duplicates.
        held: The rounds.
    """
    away = set(outer)
    found = []
    for out in held:
        asked = [i for i in out if i not in away]
        known = set(range(len(labels))) - away - set(asked)
        bare = {int(labels[i]) for i in asked} - {int(labels[i]) for i in known}
        back = {i for i in asked if int(labels[i]) in bare}
        asked = [i for i in asked if i not in back]
        if asked:
            found.append(Question(tuple(sorted(known | back)), tuple(asked)))
    return found


@dataclass
class Answers:
    """Asks a method, and remembers: questions that differ only in whom they ask about share their refits.

    Attributes:
        method: Follows ``otfew.method.FewShotMethod``; not transductive.
        photos: All of them.
    """

    method: FewShotMethod
    photos: Photos
    _kept: dict[tuple[int, ...], dict[int, Floats]] = field(default_factory=dict)
    _products: PairProducts | None = None

    def prepare(self, questions: Iterable[Question]) -> None:
        """Answer many questions, those of the same known photos at once."""
        for part in self.parts(questions):
            part()
        self.settle()

    def parts(self, questions: Iterable[Question]) -> list[Callable[[], None]]:
        """List what ``prepare`` does before ``settle``: no part touches what another one changes."""
        wanted: dict[tuple[int, ...], set[int]] = {}
        for question in questions:
            missing = set(question.asked) - set(self._kept.get(question.known, ()))
            if missing:
                wanted.setdefault(question.known, set()).update(missing)
        rows = {known: sorted(asked) for known, asked in wanted.items()}
        if pay(self.method, self.photos.nodes, self.photos.way, rows):
            photos = self.photos
            self._products = PairProducts(self.method, photos.nodes, photos.labels, photos.way, rows)
            return self._products.parts()
        return [partial(self._ask, rows)] if rows else []

    def settle(self) -> None:
        """Take in what the parts have found."""
        if self._products is not None:
            for known, found in self._products.answers().items():
                self._kept.setdefault(known, {}).update(found)
            self._products = None

    def _ask(self, wanted: Mapping[tuple[int, ...], Sequence[int]]) -> None:
        for known, asked in wanted.items():
            logits = ask(self.method, self.photos, known, asked)
            self._kept.setdefault(known, {}).update(zip(asked, logits, strict=True))

    def __call__(self, question: Question) -> Floats:
        """Return logits (asked, way)."""
        self.prepare([question])
        kept = self._kept[question.known]
        return np.stack([kept[i] for i in question.asked])


def ask(method: FewShotMethod, photos: Photos, known: Sequence[int], asked: Sequence[int]) -> Floats:
    """Ask a method about photos, given others: logits (asked, way).

    Raises:
        UserError: It answers with another shape, or with NaN.
    """
    if takes_means(method):
        support, mask = means(photos.nodes, photos.labels, photos.way, known), None
    else:
        support, mask = padded(photos.nodes, photos.labels, photos.way, known)
    query = photos.nodes[torch.as_tensor(list(asked), device=photos.nodes.device)]
    return checked(method, support, query, mask)


def padded(nodes: Tensor, labels: Indices, way: int, known: Sequence[int]) -> tuple[Tensor, Tensor | None]:
    """Lay photos out by class: (1, way, shot, nodes, channels), and (1, way, shot) bool, None where none is short."""
    chosen = np.asarray(known, dtype=np.int64)
    members = [chosen[labels[chosen] == c] for c in range(way)]
    shot = max(map(len, members))
    index = np.stack([np.resize(own, shot) for own in members])
    support = nodes[torch.from_numpy(index.reshape(-1)).to(nodes.device)].view(1, way, shot, *nodes.shape[1:])
    valid = torch.arange(shot)[None] < torch.tensor([len(own) for own in members])[:, None]
    if bool(valid.all()):
        return support, None
    mask = valid[None].to(nodes.device)
    return support.masked_fill_(~mask[..., None, None], 0), mask


def means(nodes: Tensor, labels: Indices, way: int, known: Sequence[int]) -> Tensor:
    """Average the photos of each class, location by location, without laying them out: (1, way, 1, nodes, channels)."""
    chosen = np.asarray(known, dtype=np.int64)
    by_class = chosen[np.argsort(labels[chosen], kind="stable")]
    first = np.searchsorted(labels[by_class], np.arange(way))
    rows, starts = (torch.from_numpy(index).to(nodes.device) for index in (by_class, first))
    found = embedding_bag(rows, nodes.flatten(1), starts, mode="mean")
    return found.view(1, way, 1, *nodes.shape[1:])


def checked(method: FewShotMethod, support: Tensor, query: Tensor, mask: Tensor | None) -> Floats:
    """Call a method on one episode, and refuse an answer that is none.

    Args:
        method: Follows the contract.
        support: (1, way, shot, nodes, channels).
        query: (images, nodes, channels).
        mask: (1, way, shot) bool or None.

    Returns:
        (images, way).

    Raises:
        UserError: Another shape than (1, images, way), or NaN.
    """
    name = getattr(method, "name", "") or type(method).__name__
    logits = method(support, query[None], support_mask=mask)
    expected = (1, len(query), support.shape[1])
    if not isinstance(logits, Tensor) or logits.shape != expected:
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise UserError(f"method {name!r} answered with {got} in place of logits {expected}: mend the method.")
    if bool(logits.isnan().any()):
        raise UserError(f"method {name!r} answered NaN: check its options.")
    array: Floats = logits[0].detach().cpu().double().numpy()
    return array

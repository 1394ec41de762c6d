"""Few-shot episodes: episode i is a pure function of its protocol, on every machine.

The key is a hash of the protocol and the counter starts at the episode's index (see ``otfew.random.words``), so any
episode can be had without its predecessors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from numbers import Integral
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from otfew.data.class_labels import as_indices
from otfew.errors import UserError
from otfew.evaluation.query_balance import BALANCED, canonical, parse
from otfew.random.keys import key128
from otfew.random.shuffle import Deck, draw
from otfew.random.words import stream

Indices = npt.NDArray[np.int64]
VERSION = "otfew episodes 1"
Keeps = Literal["", "logits"]


@dataclass(frozen=True)
class Protocol:
    """What episodes are a function of.

    Attributes:
        dataset: Name of the data set.
        variant: Which of its published splits, crops or seeds.
        split: "train", "val" or "test".
        seed: Any integer.
        way: Classes in an episode.
        shot: Labelled images of each class.
        query: Images to classify of each class, on average: way * query in an episode.
        query_balance: "balanced", or "dirichlet:ALPHA" for classes with different numbers of them, perhaps none; see
            ``otfew.evaluation.query_balance``.
    """

    dataset: str
    variant: str
    split: str
    seed: int = 1
    way: int = 5
    shot: int = 1
    query: int = 15
    query_balance: str = BALANCED

    def __post_init__(self) -> None:
        object.__setattr__(self, "query_balance", canonical(self.query_balance))
        for name, least in (("seed", None), ("way", 2), ("shot", 1), ("query", 1)):
            value = getattr(self, name)
            if not isinstance(value, Integral):
                # A seed of 1.5 would have a key of its own, and episodes that no command can repeat.
                raise UserError(f"`{name}` must be a whole number, not {value!r}.")
            if least is not None and value < least:
                raise UserError(f"`{name}` must be at least {least}, not {value}.")

    @property
    def balanced(self) -> bool:
        """True where each class has ``query`` images to classify."""
        return self.query_balance == BALANCED

    @property
    def images(self) -> int:
        """The most images of one class that an episode may need."""
        return self.shot + (self.query if self.balanced else self.way * self.query)

    def key(self) -> int:
        """Hash the protocol, the balance apart, into Philox's 128-bit key: classes and support do not depend on it."""
        fields = asdict(self)
        del fields["query_balance"]
        return _key(fields)

    def balance_key(self) -> int:
        """Hash the whole protocol into the key of what an unbalanced episode adds to the balanced one."""
        return _key(asdict(self))


def _key(fields: Mapping[str, object]) -> int:
    """Hash named values into 128 bits."""
    text = "\0".join([VERSION, *(f"{name}={value}" for name, value in fields.items())])
    return key128(text)


@dataclass(frozen=True)
class Episodes:
    """Consecutive episodes.

    Attributes:
        classes: (episodes, way) int64, indices into the image set's classes.
        support: (episodes, way, shot) int64, indices of images.
        query: (episodes, way, query) int64, indices of the way * query images to classify, class after class: where
            the protocol is balanced, a row for each class.
        counts: (episodes, way) int64, how many of them each class has.
        unknown: (episodes, classes, query) int64, images of classes that have no support, which are asked about behind
            the others; None where there are none.
    """

    classes: Indices
    support: Indices
    query: Indices
    counts: Indices
    unknown: Indices | None = None

    def __getitem__(self, span: slice) -> Episodes:
        """Keep some of them."""
        unknown = None if self.unknown is None else self.unknown[span]
        return Episodes(self.classes[span], self.support[span], self.query[span], self.counts[span], unknown)

    @property
    def answers(self) -> Indices:
        """The class of each query: (episodes, way * query) int64 below ``way``, in the order of ``query``."""
        way = np.arange(self.counts.shape[1])
        return np.stack([np.repeat(way, row) for row in self.counts]).astype(np.int64)

    @property
    def proportions(self) -> npt.NDArray[np.float64]:
        """Share of each class in its episode's queries: (episodes, way)."""
        shares: npt.NDArray[np.float64] = self.counts / self.counts.sum(1, keepdims=True)
        return shares

    def __len__(self) -> int:
        """Count the episodes."""
        return len(self.classes)


class Sampler:
    """Draws episodes of one protocol from labelled images.

    Args:
        protocol: What the episodes are a function of.
        labels: (images,) indices into ``classes``, in the order of the images.
        classes: Names, for messages.

    Attributes:
        keeps: What the evaluator keeps of every query beside the answer: "" for nothing, or "logits".
        settings: What a run's protocol says beside, JSON-ready.

    Raises:
        UserError: Fewer classes than ``way``, a class with fewer than shot + query images, or a label that is none.
    """

    keeps: Keeps = ""

    def __init__(self, protocol: Protocol, labels: npt.ArrayLike, classes: Sequence[str]) -> None:
        self.protocol = protocol
        self.settings: dict[str, Any] = {}
        array = as_indices(labels, len(classes))
        counts = np.bincount(array, minlength=len(classes)).tolist()
        if protocol.way > len(classes):
            raise UserError(
                f"`way` {protocol.way} asks for more classes than the {len(classes)} that split {protocol.split!r} of "
                f"{protocol.dataset!r} has: choose `way` {len(classes)} or less."
            )
        needed = protocol.images
        for name, count in zip(classes, counts, strict=True):
            if count < needed:
                parts = f"`shot` {protocol.shot} + `query` {protocol.query}"
                if not protocol.balanced:
                    parts = (
                        f"`shot` {protocol.shot} + `way` {protocol.way} x `query` {protocol.query}, all of one class"
                    )
                raise UserError(
                    f"class {name!r} of {protocol.dataset!r} has {count} images, but an episode "
                    f"{'needs' if protocol.balanced else 'may need'} {needed} "
                    f"({parts}): lower them or remove the class."
                )
        order = np.argsort(array, kind="stable")
        self._images: list[list[int]] = [part.tolist() for part in np.split(order, np.cumsum(counts)[:-1])]
        self._key = protocol.key()
        self._balance = parse(protocol.query_balance)
        self._balance_key = protocol.balance_key()

    @property
    def unknown(self) -> int:
        """Images of unknown classes in an episode."""
        return 0

    def __call__(self, start: int, stop: int) -> Episodes:
        """Draw episodes ``start`` to ``stop - 1``."""
        p = self.protocol
        classes = np.empty((stop - start, p.way), dtype=np.int64)
        support = np.empty((stop - start, p.way, p.shot), dtype=np.int64)
        query = np.empty((stop - start, p.way * p.query), dtype=np.int64)
        counts = np.empty((stop - start, p.way), dtype=np.int64)
        for row, index in enumerate(range(start, stop)):
            chosen, drawn = self._episode(index)
            classes[row] = chosen
            support[row] = [images[: p.shot] for images in drawn]
            query[row] = [image for images in drawn for image in images[p.shot :]]
            counts[row] = [len(images) - p.shot for images in drawn]
        return Episodes(classes, support, query.reshape(-1, p.way, p.query), counts)

    def _episode(self, index: int) -> tuple[list[int], list[list[int]]]:
        """Draw one episode: classes first, then each class's support and query images, all without replacement.

        An unbalanced episode is the balanced one, whose classes lose their last queries or get more: these, and how
        many, come from words of its own.
        """
        p = self.protocol
        words = stream(self._key, index, p.way * (1 + p.shot + p.query))
        chosen = draw(words, len(self._images), p.way)
        decks = [Deck(len(self._images[c])) for c in chosen]
        drawn = [deck.draw(words, p.shot + p.query) for deck in decks]
        if self._balance is not None:
            more = stream(self._balance_key, index, 8 * p.way)
            counts = self._balance.counts(more, p.way, p.way * p.query)
            drawn = [
                [*images, *deck.draw(more, max(0, count - p.query))][: p.shot + count]
                for deck, images, count in zip(decks, drawn, counts, strict=True)
            ]
        return chosen, [[self._images[c][i] for i in images] for c, images in zip(chosen, drawn, strict=True)]

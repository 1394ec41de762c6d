"""Episodes whose labelled images come from one domain and whose queries come from another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from otfew.data.class_labels import as_indices
from otfew.errors import UserError
from otfew.evaluation.episodes import Episodes, Protocol, Sampler
from otfew.random.shuffle import Deck, draw
from otfew.random.words import stream


class TwoDomains(Sampler):
    """Draws labelled images from one set and queries from another of the same classes.

    Args:
        protocol: What the episodes are a function of.
        labels: Of the two sets: (images,) indices into ``classes`` each.
        classes: Names.
        names: Of the domains.

    Raises:
        UserError: Fewer classes than ``way``, or a class with fewer images in a domain than an episode may need.
    """

    def __init__(
        self,
        protocol: Protocol,
        labels: tuple[npt.ArrayLike, npt.ArrayLike],
        classes: Sequence[str],
        names: tuple[str, str],
    ) -> None:
        needs = (protocol.shot, f"`shot` {protocol.shot}"), (protocol.images - protocol.shot, _queries(protocol))
        self._members: list[list[list[int]]] = []
        for own, name, (needed, parts) in zip(labels, names, needs, strict=True):
            array = as_indices(own, len(classes))
            for k, count in enumerate(np.bincount(array, minlength=len(classes)).tolist()):
                if count < needed:
                    raise UserError(
                        f"class {classes[k]!r} has {count} images in domain {name!r} of {protocol.dataset!r}, but an "
                        f"episode {'needs' if protocol.balanced else 'may need'} {needed} there ({parts}): lower them "
                        "or remove the class."
                    )
            self._members.append([np.flatnonzero(array == k).tolist() for k in range(len(classes))])
        # The rest is checked, and kept, as for one domain with enough of all.
        enough = np.repeat(np.arange(len(classes)), protocol.images)
        super().__init__(protocol, enough, classes)

    def _episode(self, index: int) -> tuple[list[int], list[list[int]]]:
        """Draw one episode as ``Sampler`` does, each class from two decks."""
        p = self.protocol
        words = stream(self._key, index, p.way * (1 + p.shot + p.query))
        chosen = draw(words, len(self._members[0]), p.way)
        decks = [[Deck(len(members[c])) for members in self._members] for c in chosen]
        drawn = [(support.draw(words, p.shot), query.draw(words, p.query)) for support, query in decks]
        if self._balance is not None:
            more = stream(self._balance_key, index, 8 * p.way)
            counts = self._balance.counts(more, p.way, p.way * p.query)
            drawn = [
                (labelled, [*asked, *deck.draw(more, max(0, count - p.query))][:count])
                for (_, deck), (labelled, asked), count in zip(decks, drawn, counts, strict=True)
            ]
        support, query = self._members
        return chosen, [
            [*(support[c][i] for i in labelled), *(query[c][i] for i in asked)]
            for c, (labelled, asked) in zip(chosen, drawn, strict=True)
        ]


def _queries(protocol: Protocol) -> str:
    """Say how many queries of a class an episode may have."""
    if protocol.balanced:
        return f"`query` {protocol.query}"
    return f"`way` {protocol.way} x `query` {protocol.query}, all of one class"


class QueriesBehind(Sampler):
    """Episodes of another sampler, with the queries' numbers those of images that lie behind the labelled ones.

    Where both domains hold the same images, these are the ordinary episodes: an image that is labelled in one is not
    asked about in it, however it is seen.

    Args:
        sampler: Whose queries are numbered within their domain.
        first: Number of the first image of that domain.
    """

    def __init__(self, sampler: Sampler, first: int) -> None:
        self.protocol = sampler.protocol
        self.settings = sampler.settings
        self.keeps = sampler.keeps
        self._sampler, self._first = sampler, first

    @property
    def unknown(self) -> int:
        """Images of unknown classes in an episode."""
        return self._sampler.unknown

    def __call__(self, start: int, stop: int) -> Episodes:
        """Draw episodes ``start`` to ``stop - 1``."""
        found = self._sampler(start, stop)
        unknown = None if found.unknown is None else found.unknown + self._first
        return replace(found, query=found.query + self._first, unknown=unknown)

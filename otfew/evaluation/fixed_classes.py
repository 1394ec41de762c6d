"""Episodes for users whose classes are these and no others: every class is in each episode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from otfew.errors import UserError
from otfew.evaluation.episodes import Episodes, Indices, Protocol, Sampler
from otfew.statistics.photos import Roles


class FixedClasses(Sampler):
    """Draws episodes that have every class each, and shrinks them to what the poorest class has.

    Of photos that are copies of one another, the first alone has a part: none is then labelled while its copy is asked
    about.

    Args:
        protocol: Its ``way`` is replaced by the number of classes; shots and queries as many as wanted.
        labels: (images,) indices into ``classes``.
        classes: Names.
        copies: (images,) ids, equal for copies of one image.

    Raises:
        UserError: Queries that are not balanced, or a class with fewer than two images.
    """

    def __init__(self, protocol: Protocol, labels: npt.ArrayLike, classes: Sequence[str], copies: Indices) -> None:
        if not protocol.balanced:
            raise UserError("`fixed_classes` asks for as many queries of each class: leave `query_balance` out.")
        own = np.asarray(labels, dtype=np.int64)
        first = np.zeros(len(own), dtype=bool)
        first[np.unique(copies, return_index=True)[1]] = True
        counts = np.bincount(own[first], minlength=len(classes))
        poorest = int(counts.argmin())
        if counts[poorest] < 2:
            raise UserError(
                f"class {classes[poorest]!r} of {protocol.dataset!r} has {counts[poorest]} image(s) that are no "
                "copies, but `fixed_classes` needs two of each class: one labelled and one to ask about."
            )
        shot = min(protocol.shot, int(counts[poorest]) - 1)
        query = min(protocol.query, int(counts[poorest]) - shot)
        super().__init__(replace(protocol, way=len(classes), shot=shot, query=query), own, classes)
        self._images = [[i for i in images if first[i]] for images in self._images]
        self._labels = np.where(first, own, -1)
        self.settings = {"fixed_classes": True, "copies_left_out": int((~first).sum())}
        if (shot, query) != (protocol.shot, protocol.query):
            self.settings["shrunk_from"] = {"shot": protocol.shot, "query": protocol.query}
            self.settings["poorest_class"] = {"name": classes[poorest], "images": int(counts[poorest])}

    def roles(self, episodes: Episodes) -> Roles:
        """Say which photo was what in episodes of this sampler."""
        rows = len(episodes)
        return Roles(episodes.support.reshape(rows, -1), episodes.query.reshape(rows, -1), self._labels)


def copies_of(vectors: npt.NDArray[np.float32]) -> Indices:
    """Number images by their features: (images,) ids, equal where (images, channels) vectors are equal to the bit."""
    seen: dict[bytes, int] = {}
    return np.array([seen.setdefault(row.tobytes(), len(seen)) for row in vectors], dtype=np.int64)

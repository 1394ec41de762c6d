"""Episodes of a cell whose classes are within one group, or of a group each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy.typing as npt

from otfew.errors import UserError
from otfew.evaluation.episodes import Protocol, Sampler
from otfew.random.keys import key128
from otfew.random.shuffle import Deck, draw
from otfew.random.words import stream


class Grouped(Sampler):
    """Episodes whose classes are all of one group, or each of another.

    Args:
        protocol: What the episodes are a function of.
        labels: (images,) indices into ``classes``.
        classes: Names.
        groups: Class -> its group.
        ways: "within" or "across".

    Raises:
        UserError: As ``Sampler``, a class without a group, or too few classes of a group, or groups.
    """

    def __init__(
        self,
        protocol: Protocol,
        labels: npt.ArrayLike,
        classes: Sequence[str],
        groups: Mapping[str, str],
        ways: Literal["within", "across"],
    ) -> None:
        super().__init__(protocol, labels, classes)
        if missing := [name for name in classes if name not in groups]:
            raise UserError(f"class {missing[0]!r} belongs to no group.")
        members: dict[str, list[int]] = {}
        for c, name in enumerate(classes):
            members.setdefault(groups[name], []).append(c)
        self._members = [members[group] for group in sorted(members)]
        self._within = ways == "within"
        if self._within:
            self._members = [own for own in self._members if len(own) >= protocol.way]
        if len(self._members) < (1 if self._within else protocol.way):
            raise UserError(f"`way` {protocol.way} asks for more classes {ways} groups than there are.")
        self._group_key = key128(f"otfew grouped classes 1\n{protocol.key()}\n{ways}")

    def _episode(self, index: int) -> tuple[list[int], list[list[int]]]:
        """Draw classes by their groups, then images as ``Sampler`` does."""
        p = self.protocol
        words = stream(self._group_key, index, p.way * (2 + p.shot + p.query))
        if self._within:
            own = self._members[draw(words, len(self._members), 1)[0]]
            chosen = [own[i] for i in draw(words, len(own), p.way)]
        else:
            groups = draw(words, len(self._members), p.way)
            chosen = [self._members[g][draw(words, len(self._members[g]), 1)[0]] for g in groups]
        drawn = [Deck(len(self._images[c])).draw(words, p.shot + p.query) for c in chosen]
        return chosen, [[self._images[c][i] for i in images] for c, images in zip(chosen, drawn, strict=True)]

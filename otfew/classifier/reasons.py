"""Why a photo got its answer: what is found, and what it says in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from otfew.data.base import Image
from otfew.nodes.boxes import Boxes

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Evidence:
    """A labelled photo that counted.

    Attributes:
        place: Among ``labelled_.photos``.
        label: Of the photo.
        name: Of the photo.
        picture: (height, width, 3) uint8 at its original resolution, or a thumbnail where its file is gone; None where
            there is neither.
        effect: By how much the answer's lead falls without this photo, in the method's logits; negative where the photo
            speaks for the runner-up. None for the only photo of its class, without which there is no class.
    """

    place: int
    label: Any
    name: str
    picture: Image | None
    effect: float | None


@dataclass(frozen=True)
class Flow:
    """A region of the photo and the region of a labelled photo that most of its mass goes to.

    Attributes:
        number: In the pictures, from 1.
        here: x0, y0, x1, y1 in pixels of the photo.
        there: The same in the picture of the answer's labelled photo.
        share: Of all mass.
        similarity: Centred cosine of the two nodes.
        rival: Where most of the same region's mass goes in the runner-up's labelled photo.
        rival_similarity: Centred cosine there.
    """

    number: int
    here: tuple[float, float, float, float]
    there: tuple[float, float, float, float]
    share: float
    similarity: float
    rival: tuple[float, float, float, float]
    rival_similarity: float


@dataclass(frozen=True)
class Transport:
    """Where the mass of every region of the photo goes in one labelled photo, as DeepEMD moves it.

    Attributes:
        place: Of the labelled photo, among ``labelled_.photos``.
        plan: (nodes, nodes of the labelled photo) of total 1.
        similarity: (nodes, nodes of the labelled photo) centred cosines.
        there: (nodes of the labelled photo, 4) where these are in its picture.
    """

    place: int
    plan: Floats
    similarity: Floats
    there: Boxes


@dataclass(frozen=True)
class Opinion:
    """DeepEMD's view of the same nodes.

    Attributes:
        answer: The class that it gives.
        agrees: Whether that is the classifier's.
        decided: Whether DeepEMD is the classifier's own method, and this no second opinion but the first.
    """

    answer: Any
    agrees: bool
    decided: bool


@dataclass(frozen=True)
class Deletion:
    """What becomes of the answer's lead when the regions that speak for it most are painted over.

    Attributes:
        regions: (regions, 4) boxes in the photo.
        before: Lead over the runner-up, in the method's logits.
        after: Lead without the regions.
        random: (removals,) leads without as many regions drawn at random.
    """

    regions: Boxes
    before: float
    after: float
    random: Floats

    @property
    def p(self) -> float:
        """Chance of a lead as low as ``after`` where regions are drawn at random."""
        return float(1 + (self.random <= self.after).sum()) / (1 + len(self.random))

    @property
    def tells(self) -> bool:
        """Whether the map shows what the answer rests on: its regions take more than all but 5 % of random ones."""
        return self.after < self.before and self.p <= 0.05


@dataclass(frozen=True)
class Reasons:
    """Why a photo got its answer; ``str()`` says it in words.

    Attributes:
        name: Of the photo.
        picture: (height, width, 3) uint8, the photo at its original resolution.
        method: That decided.
        answer: Class with the highest score.
        confidence: Its probability.
        refused: Whether that is too low for an answer, so that ``predict`` says unknown.
        runner_up: Class with the second highest.
        runner_up_confidence: Its probability.
        boxes: (nodes, 4) where the nodes are in the photo.
        for_answer: (nodes,) by how much the answer's logit falls without a node: what the method itself makes of that
            region.
        for_runner_up: (nodes,) the same of the runner-up's logit.
        evidence: Labelled photos of the answer and of the runner-up, those that count most for their class first.
        flows: The strongest flows of DeepEMD from the photo to the first labelled photo of the answer.
        transports: All that DeepEMD moves, to the first labelled photo of the answer and to that of the runner-up.
        opinion: DeepEMD's answer.
        deletion: Whether the map tells what the answer rests on; None for an image of one node.
    """

    name: str
    picture: Image
    method: str
    answer: Any
    confidence: float
    refused: bool
    runner_up: Any
    runner_up_confidence: float
    boxes: Boxes
    for_answer: Floats
    for_runner_up: Floats
    evidence: tuple[Evidence, ...]
    flows: tuple[Flow, ...]
    transports: tuple[Transport, Transport]
    opinion: Opinion
    deletion: Deletion | None

    def best(self, label: Any) -> Evidence:
        """Return the labelled photo that counts most for a class.

        Args:
            label: The answer, or the runner-up.
        """
        return next(one for one in self.evidence if one.label == label)

    def sentences(self) -> tuple[str, ...]:
        """Return it in words, a sentence each, without full stops."""
        told = [
            f"{self.name}: {self.answer} ({self.confidence:.2f}), then {self.runner_up} "
            f"({self.runner_up_confidence:.2f}), by {self.method}",
            f"counted most: {self._counted(self.answer)} for {self.answer}, {self._counted(self.runner_up)} for "
            f"{self.runner_up}",
        ]
        if self.refused:
            told.insert(1, "that is not sure enough for an answer: unknown")
        if self.opinion.decided:
            told.append("the numbered flows are DeepEMD's, which decided")
        else:
            verdict = "agrees" if self.opinion.agrees else f"says {self.opinion.answer} instead"
            told.append(f"the numbered flows are a second opinion, DeepEMD's, which {verdict}; {self.method} decided")
        if self.deletion is not None:
            told.append(_deleted(self.deletion))
        return tuple(told)

    def __str__(self) -> str:
        return "\n".join(self.sentences())

    def _counted(self, label: Any) -> str:
        """Name the labelled photo that counts most, with what it counts."""
        one = self.best(label)
        if one.effect is None:
            return f"{one.name}, its only photo,"
        return f"{one.name} (lead {'falls' if one.effect >= 0 else 'rises'} by {abs(one.effect):.3f} without it)"


def _deleted(test: Deletion) -> str:
    """Say what the deletion test found."""
    count, times = len(test.regions), len(test.random)
    regions = "outlined region" if count == 1 else f"{count} outlined regions"
    measured = (
        f"painting over the {regions} takes the lead from {test.before:.2f} to {test.after:.2f}, as many at random to "
        f"{test.random.mean():.2f} on average, as low in {int((test.random <= test.after).sum())} of {times}"
    )
    verdict = "the map shows what the answer rests on" if test.tells else "the map explains no more than chance would"
    return f"{measured}: {verdict}"

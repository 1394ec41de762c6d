"""What is known of labelled photos before any new one is asked about: accuracy, confusions, doubtful labels, copies."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from otfew.classifier.by_class import Evenly
from otfew.classifier.calibration import Calibration, HeldOut, Quality, quality
from otfew.classifier.holdouts import Indices, Photos
from otfew.classifier.rejection import Detection
from otfew.classifier.selection import Choice, reason_of
from otfew.statistics.intervals import Z

Floats = npt.NDArray[np.float64]

SURE = 0.5
"""A held-out photo that is taken for another class with this probability or more has a label to be looked at."""


@dataclass(frozen=True)
class Accuracy:
    """Held-out accuracy with a 95 % interval: of new photos that come evenly from the classes.

    Attributes:
        mean: Share that was right, averaged over classes, in a class over units, in a unit over photos.
        low: Of Wilson's interval for as many units of equal weight as vary as much, see ``by_class.Evenly``.
        high: Likewise.
        units: How many there are, near-duplicates counting once.
        nested: True where the method was chosen anew without the photos that it was then judged by.
        classes: How many of the classes the average is over: those of which a photo could be held out.
        even: Whether as many units of each were held out, so that the average over units is the same.
    """

    mean: float
    low: float
    high: float
    units: int
    nested: bool
    classes: int
    even: bool


@dataclass(frozen=True)
class Confusion:
    """Two classes that are taken for each other.

    Attributes:
        label: One, as the user names it.
        other: The other.
        count: Held-out photos of either that were taken for the other.
    """

    label: Any
    other: Any
    count: int


@dataclass(frozen=True)
class Suspect:
    """A photo whose label looks wrong.

    Attributes:
        photo: Its place among the images given to ``fit``.
        label: Its label.
        looks_like: The class that it was taken for when it was held out.
        confidence: With which probability.
    """

    photo: int
    label: Any
    looks_like: Any
    confidence: float


@dataclass(frozen=True)
class Evidence:
    """All that held-out photos say.

    Attributes:
        photos: Labelled photos.
        classes: How many kinds they are of.
        fewest: Photos of the class with the fewest.
        most: Photos of the class with the most.
        accuracy: Of held-out photos; None where none could be held out.
        rounds: How often photos were held out, one of a class at a time.
        quality: Log-loss and Brier score before and after calibration, of the chosen method; None likewise.
        confusions: The most frequent first.
        suspects: The surest first.
        duplicates: Groups of near-duplicates, by place among the images given to ``fit``.
        calibration: Temperature and threshold.
        detection: Of unknown kinds; None with fewer than four classes.
        choice: Which candidate, and why; None where the user named the method.
        reason: Why nothing was held out, or "".
    """

    photos: int
    classes: int
    fewest: int
    most: int
    accuracy: Accuracy | None
    rounds: int
    quality: Quality | None
    confusions: tuple[Confusion, ...]
    suspects: tuple[Suspect, ...]
    duplicates: tuple[tuple[int, ...], ...]
    calibration: Calibration
    detection: Detection | None
    choice: Choice | None
    reason: str = ""

    def to_record(self) -> dict[str, Any]:
        """Return all numbers, as dictionaries and lists."""
        return asdict(self)

    def lines(self, names: Sequence[str] | None = None) -> list[str]:
        """Say it, a sentence a line.

        Args:
            names: Of the photos given to ``fit``, such as their files; None names them by their place.

        Returns:
            The sentences, without full stops.
        """

        def name(i: int) -> str:
            return f"photo {i}" if names is None else names[i]

        sizes = f"{self.fewest} to {self.most} each"
        lines = [f"{self.photos} photos of {self.classes} classes ({sizes}); {self._accuracy()}"]
        if self.confusions:
            told = ", ".join(f"{c.label} / {c.other} ({c.count})" for c in self.confusions[:3])
            lines.append(f"most confused: {told}")
        lines += [
            f"look at: {name(s.photo)} (labelled {s.label}, looks {s.looks_like} {s.confidence:.2f})"
            for s in self.suspects[:5]
        ]
        if self.duplicates:
            told = "; ".join(", ".join(map(name, group)) for group in self.duplicates[:3])
            more = f" and {len(self.duplicates) - 3} more groups" if len(self.duplicates) > 3 else ""
            lines.append(f"near-duplicates, counted once and never divided: {told}{more}")
        if self.choice is not None:
            lines.append(f"method: {reason_of(self.choice)}")
        lines.append(self._calibration())
        if self.detection is not None:
            lines.append(str(self.detection))
        return lines

    def _accuracy(self) -> str:
        if self.accuracy is None:
            return f"nothing could be held out: {self.reason}"
        a = self.accuracy
        how = ", the method chosen anew each time" if a.nested else ""
        told = (
            f"held out one a class, {self.rounds} times{how}: {100 * a.mean:.1f} % right "
            f"[{100 * a.low:.1f}, {100 * a.high:.1f}]"
        )
        if a.classes < self.classes:
            return f"{told}, as if new photos came evenly from the {a.classes} classes of which one could be held out"
        return told if a.even else f"{told}, as if new photos came evenly from the classes"

    def _calibration(self) -> str:
        c = self.calibration
        if self.quality is None:
            return f"temperature {c.temperature:.3g}, from {c.source or 'the method itself'} alone"
        q = self.quality
        return (
            f"temperature {c.temperature:.3g} ({c.expected:.3g} expected from {c.source}), {c.photos} held-out photos: "
            f"log-loss {q.log_loss[0]:.3f} -> {q.log_loss[1]:.3f}, Brier {q.brier[0]:.3f} -> {q.brier[1]:.3f}"
        )


def wilson(right: float, count: float, z: float = Z) -> tuple[float, float]:
    """Compute Wilson's interval (1927) of a share.

    Args:
        right: How many were right; a fraction where photos of a group disagree.
        count: Of how many; a fraction where they do not weigh alike.
        z: Of the normal distribution.
    """
    share = right / count
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def gather(
    photos: Photos,
    classes: npt.NDArray[Any],
    places: Indices,
    *,
    judged: HeldOut,
    held: HeldOut,
    rounds: int,
    nested: bool,
    calibration: Calibration,
    detection: Detection | None,
    choice: Choice | None,
    reason: str = "",
) -> Evidence:
    """Put together what is known.

    Args:
        photos: Labelled ones.
        classes: Labels of the classes.
        places: (images,) place of each photo among those given to ``fit``.
        judged: Held-out photos that accuracy, confusions and doubtful labels come from.
        held: Held-out photos of the chosen method, for log-loss and Brier score.
        rounds: How often photos were held out for ``judged``.
        nested: Whether the method was chosen anew in each.
        calibration: Of the chosen method.
        detection: Of unknown kinds, or None.
        choice: Of a candidate, or None.
        reason: Why nothing was held out.
    """
    accuracy = None
    confusions: Counter[tuple[int, int]] = Counter()
    suspects = []
    if len(judged.labels):
        which, shares = judged.by_photo()
        truth, taken = photos.labels[which], shares.argmax(1)
        weights = Evenly.of(truth, photos.units[which])
        # Sums of weights miss 1 by their rounding.
        mean = min(1.0, weights.mean((truth == taken).astype(np.float64)))
        low, high = wilson(mean * weights.effective, weights.effective)
        units = len(np.unique(photos.units[which]))
        accuracy = Accuracy(mean, low, high, units, nested, weights.classes, weights.even)
        for i, true, other, share in zip(
            which.tolist(), truth.tolist(), taken.tolist(), shares.max(1).tolist(), strict=True
        ):
            if true != other:
                confusions[min(true, other), max(true, other)] += 1
                if share >= SURE:
                    suspects.append(Suspect(int(places[i]), classes[true], classes[other], share))
    counts = np.bincount(photos.labels, minlength=photos.way)
    groups = [np.flatnonzero(photos.units == u) for u in np.unique(photos.units)]
    return Evidence(
        len(photos.labels),
        photos.way,
        int(counts.min()),
        int(counts.max()),
        accuracy,
        rounds,
        quality(held),
        tuple(
            Confusion(classes[a], classes[b], n)
            for (a, b), n in sorted(confusions.items(), key=lambda x: (-x[1], x[0]))
        ),
        tuple(sorted(suspects, key=lambda s: (-s.confidence, s.photo))),
        tuple(tuple(sorted(places[g].tolist())) for g in groups if len(g) > 1),
        calibration,
        detection,
        choice,
        reason,
    )

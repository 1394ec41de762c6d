"""From figures to verdicts: what the evidence says of a claim."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from otfew.experiments.reproduce.claims import Claim
from otfew.experiments.reproduce.figures import Figure
from otfew.statistics.crossed import Spread, crossed
from otfew.statistics.intervals import Z, holm

LEVEL = 0.05
DRAWS = frozenset({"episodes", "queries"})
"""What varies even when classes and network stay."""
NETWORKS = 3
"""Fewer networks, and a verdict is about these checkpoints; a way of training then gets none."""

CONFIRMED, CONTRADICTED, EQUIVALENT = "confirmed", "contradicted", "equivalent within {:g}"
INCONCLUSIVE, UNTESTABLE, MISSING = "inconclusive", "not testable here", "not run yet"
FEW = " (few networks)"
ALONE = ("checkpoint", "on one machine", " seeds")
"""Words of verdicts that are about the networks at hand only."""
KINDS = (
    CONFIRMED, CONFIRMED + FEW, CONTRADICTED, CONTRADICTED + FEW, "equivalent", "equivalent" + FEW, INCONCLUSIVE,
    UNTESTABLE, MISSING,
)  # fmt: skip
"""Of verdicts: first words, and whether they are about the networks at hand only."""


@dataclass(frozen=True)
class Verdict:
    """What is made of a claim.

    Attributes:
        text: In words.
        p_holm: Corrected over the claims of its table, or None.
        few: It rests on fewer networks than ``NETWORKS``.
    """

    text: str
    p_holm: float | None = None
    few: bool = False

    @property
    def kind(self) -> str:
        """The member of ``KINDS``."""
        first = next(kind for kind in KINDS if self.text.startswith(kind))
        return first + FEW if self.few else first


def kind_of(text: str) -> str:
    """Sort a verdict of which only the words are known into ``KINDS``."""
    few = any(word in text for word in ALONE) and not text.startswith(INCONCLUSIVE)
    return Verdict(text, few=few).kind


@dataclass(frozen=True)
class Basis:
    """What a verdict takes of a figure.

    Attributes:
        over: What varies: "classes", or "images" where classes are fixed by design, each alone or with "networks"; or
            "seeds"; or "runs".
        half_width: Of the 95 % interval over all of these at once; None where only draws from the very same classes
            are known.
        p: Two-sided, of "no difference"; None for runs of a clock, and where there is no interval.
    """

    over: tuple[str, ...] = ()
    half_width: float | None = None
    p: float | None = None


def basis(figure: Figure) -> Basis:
    """Say what decides about a figure.

    Images and not classes where both are known: such a figure is of a long tail, whose classes are fixed by design.
    Networks are crossed with either: the interval and p are the largest of each source's own and of both together
    (``otfew.statistics.crossed``). p is asked of differences alone; of a level it says nothing.
    """
    first = "images" if "images" in figure.intervals else "classes"
    over = tuple(name for name in (first, "networks") if name in figure.intervals)
    if len(over) > 1:
        half, p = crossed(figure.mean, [_spread(figure, name) for name in over])
        return Basis(over, half, p)
    over = over or tuple(name for name in figure.intervals if name not in DRAWS)
    return Basis(over, max(figure.intervals[name] for name in over), figure.p) if over else Basis()


def _spread(figure: Figure, name: str) -> Spread:
    """Find one source's standard error."""
    half = figure.intervals[name]
    if name == "images":
        return Spread(half / Z, math.inf)
    return Spread.of_interval(half, figure.seeds - 1 if name == "networks" else figure.degrees[name])


def judge(claims: list[Claim], figures: Mapping[str, Figure]) -> dict[str, Verdict]:
    """Judge the claims of one table, with Holm's correction over those that have a figure and are about a difference.

    Args:
        claims: Of the table.
        figures: By claim's id; differences left - right, or levels.
    """
    tested = [claim.id for claim in claims if claim.id in figures and claim.level is None]
    corrected = dict(zip(tested, holm([basis(figures[name]).p for name in tested]), strict=True))
    return {claim.id: _judge(claim, figures.get(claim.id), corrected.get(claim.id)) for claim in claims}


def surviving(claims: Iterable[Claim], figures: Mapping[str, Figure], verdicts: Mapping[str, Verdict]) -> set[str]:
    """Name the confirmed and contradicted differences that stand after one correction (Holm's) over all claims."""
    tested = [claim.id for claim in claims if claim.id in figures and claim.level is None]
    corrected = dict(zip(tested, holm([basis(figures[name]).p for name in tested]), strict=True))
    decided = {name for name in tested if verdicts[name].kind.startswith((CONFIRMED, CONTRADICTED))}
    return {name for name in decided if (p := corrected[name]) is not None and p < LEVEL}


def _judge(claim: Claim, figure: Figure | None, p: float | None) -> Verdict:
    if claim.untestable:
        return Verdict(UNTESTABLE)
    if figure is None:
        return Verdict(MISSING)
    text = _about_level(claim, figure) if claim.level is not None else _about_difference(claim, figure, p)
    if text == INCONCLUSIVE:
        return Verdict(text, p)
    whose = _few(claim.first(figure.seeds), figure)
    if whose and claim.training:
        return Verdict(f"{INCONCLUSIVE}: {whose}", p)
    return Verdict(f"{text} {whose}".rstrip(), p, few=bool(whose))


def _few(claim: Claim, figure: Figure) -> str:
    """Say what alone a verdict is about, or "" where it rests on networks enough to be about others too."""
    if "runs" in figure.intervals:
        # Repetitions of a timing are no networks.
        return "on one machine"
    if figure.seeds >= NETWORKS:
        return ""
    counted = "seeds" if "seeds" in figure.intervals else "networks"
    if claim.training:
        return f"{figure.seeds} of {NETWORKS} {counted}"
    if counted == "seeds":
        return f"with {figure.seeds} seeds"
    return "on these checkpoints" if len(claim.runs) > 1 else "on this checkpoint"


def _about_difference(claim: Claim, figure: Figure, p: float | None) -> str:
    """Judge "left is better than right": significance first, then equivalence."""
    half = basis(figure).half_width
    if half is None:
        return INCONCLUSIVE
    inside = abs(figure.mean) + half <= claim.delta
    if p is not None and p < LEVEL and abs(figure.mean) > half:
        return (CONFIRMED if figure.mean > 0 else CONTRADICTED) + (f", by less than {claim.delta:g}" if inside else "")
    return EQUIVALENT.format(claim.delta) if inside else INCONCLUSIVE


def _about_level(claim: Claim, figure: Figure) -> str:
    """Judge "left reaches the level within delta"."""
    half = basis(figure).half_width
    if half is None or claim.level is None:
        return INCONCLUSIVE
    least = claim.level - claim.delta
    if figure.mean - half >= least:
        return CONFIRMED
    return CONTRADICTED if figure.mean + half < least else INCONCLUSIVE

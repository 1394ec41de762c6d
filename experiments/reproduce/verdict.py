"""From figures to verdicts: what the evidence says of a claim."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from otfew.experiments.reproduce.claims import Claim
from otfew.experiments.reproduce.figures import Figure
from otfew.statistics.intervals import holm

LEVEL = 0.05
NETWORKS = 3
"""Fewer networks, and a verdict is about these checkpoints; a way of training then gets none."""

CONFIRMED, CONTRADICTED, EQUIVALENT = "confirmed", "contradicted", "equivalent within {:g}"
INCONCLUSIVE, UNTESTABLE, MISSING = "inconclusive", "not testable here", "not run yet"
FEW = " (few networks)"
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


def judge(claims: list[Claim], figures: Mapping[str, Figure]) -> dict[str, Verdict]:
    """Judge the claims of one table, with Holm's correction over those that have a figure and are about a difference.

    Args:
        claims: Of the table.
        figures: By claim's id; differences left - right, or levels.
    """
    tested = [claim.id for claim in claims if claim.id in figures and claim.level is None]
    corrected = dict(zip(tested, holm([figures[name].p for name in tested]), strict=True))
    return {claim.id: _judge(claim, figures.get(claim.id), corrected.get(claim.id)) for claim in claims}


def surviving(claims: Iterable[Claim], figures: Mapping[str, Figure], verdicts: Mapping[str, Verdict]) -> set[str]:
    """Name the confirmed and contradicted differences that stand after one correction (Holm's) over all claims."""
    tested = [claim.id for claim in claims if claim.id in figures and claim.level is None]
    corrected = dict(zip(tested, holm([figures[name].p for name in tested]), strict=True))
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
    whose = _few(claim, figure)
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
    half = figure.half_width
    if half is None:
        return INCONCLUSIVE
    inside = abs(figure.mean) + half <= claim.delta
    if p is not None and p < LEVEL and abs(figure.mean) > half:
        return (CONFIRMED if figure.mean > 0 else CONTRADICTED) + (f", by less than {claim.delta:g}" if inside else "")
    return EQUIVALENT.format(claim.delta) if inside else INCONCLUSIVE


def _about_level(claim: Claim, figure: Figure) -> str:
    """Judge "left reaches the level within delta"."""
    half = figure.half_width
    if half is None or claim.level is None:
        return INCONCLUSIVE
    least = claim.level - claim.delta
    if figure.mean - half >= least:
        return CONFIRMED
    return CONTRADICTED if figure.mean + half < least else INCONCLUSIVE

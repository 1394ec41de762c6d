"""Options of the command; imports nothing heavy, so that ``--help`` is there at once."""

from __future__ import annotations

from dataclasses import dataclass

from otfew.experiments.common.options import AnalysisOfOneSet


@dataclass
class Config(AnalysisOfOneSet):
    """Measure what optimal transport adds on the same nodes and episodes, and where the gain comes from.

    The run is kept in --output: the same command goes on where it was interrupted.
    """

    shot: int = 1
    """Labelled images of each class; their node sets are averaged location by location."""
    nodes: str = "fcn"
    """Kind of nodes for all methods."""
    regs: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
    """Strengths of entropic regularisation, in units of the cost 1 - cosine."""
    entropy_episodes: int = 2
    """Episodes whose plans are measured."""

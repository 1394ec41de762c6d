"""Options of the command; imports nothing heavy, so that ``--help`` is there at once."""

from __future__ import annotations

from dataclasses import dataclass

from otfew.experiments.common.options import AnalysisOfOneSet

RIVALS = ("tim", "alpha-tim", "laplacianshot", "sot")
"""Other transductive methods of the catalogue, with their own defaults."""


@dataclass
class Config(AnalysisOfOneSet):
    """Compare LST with PT-MAP, their heads and rivals on the same episodes (Tables 2 to 4 of the LST paper).

    The run is kept in --output: the same command goes on where it was interrupted.
    """

    shots: tuple[int, ...] = (1, 5)
    """Numbers of labelled images of each class."""
    nodes: str = "fcn"
    """Kind of nodes; the methods here average them."""
    rivals: tuple[str, ...] = RIVALS
    """Other methods beside them."""
    published: str = ""
    """Whose published hyper-parameters: cifar-fs or cub. Default: the data set's own, else those of cub."""
    beta: float | None = None
    """Exponent of the power transform everywhere; 1 leaves features as they are, and negative ones are allowed then.
    Default: the published one."""
    tune_on: str = ""
    """val: choose the hyper-parameters on the validation classes instead."""
    tune_episodes: int = 300
    """Episodes to choose them by."""

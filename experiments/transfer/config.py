"""Options of the command, and what the primary contrast is made of; imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from otfew.choices import ClassPrior, Part
from otfew.experiments.common.options import Analysis

SHIFTS = ("edges", "blur", "dark")
SEVERITIES = (1, 2, 3)
TRANSPORT = tuple(
    f"domain-transport:plan={plan},step={step}"
    for plan in ("exact", "entropic", "unbalanced", "class-regularised")
    for step in ("1.0", "0.5")
)
"""Candidates of the method that is judged."""
CONTROLS = (
    "cosine-centroid", "mean-alignment", "coral", "whitening", "gaussian-transport", "pt-map", "tim", "alpha-tim",
    "laplacianshot",
)  # fmt: skip
"""What moves no domain, or moves it without transport: the best is chosen among these."""


@dataclass
class Config(Analysis):
    """Run methods over shifts and severities on the same episodes: support as it is, queries shifted.

    A method's gain under a shift is set against its gain on the same episodes without one. Which candidate of
    --transport and which of --controls are compared under a shift is chosen on the other shifts, on validation classes.

    Runs are kept in --output and --output-choice: the same command goes on where it was interrupted.
    """

    dataset: str = "cub"
    """Data set; compare --list prints them."""
    shifts: tuple[str, ...] = SHIFTS
    """Views of the queries: edges, blur, dark, clutter, occlusion, scale, or package.module:Name of your own."""
    severities: tuple[int, ...] = SEVERITIES
    """1 (mild), 2, 3 (hard); unshifted queries always run too."""
    choice_shifts: tuple[str, ...] = SHIFTS
    """Shifts on which candidates are chosen; a shift has no part in the choice for itself."""
    choice_split: Part = "val"
    """Classes, or where splits share their classes images, on which candidates are chosen."""
    choice_episodes: int = 100
    """Episodes of each view of the choice."""
    transport: tuple[str, ...] = TRANSPORT
    """Candidates of the method that is judged."""
    controls: tuple[str, ...] = CONTROLS
    """What it is compared with; also the other methods of the table. Methods that do not suit the features are left
    out, and named, where these are the default."""
    methods: tuple[str, ...] = ()
    """These methods, in place of --transport and --controls: tables and the plot, and no choice."""
    images: int = 45
    """Images of each class, the first by the hash of their names; 0 for all."""
    nodes: str = "fcn"
    """Kind of nodes for all methods."""
    shot: int = 5
    """Labelled images of each class."""
    query: int = 8
    """Images to classify of each class, on average."""
    query_balance: str = "dirichlet:2"
    """balanced, or dirichlet:ALPHA: as many queries in all, divided among the classes at random."""
    class_prior: ClassPrior = "estimated"
    """What transductive methods are told of the classes' shares in the queries: uniform, true (an oracle) or estimated
    (nothing). Without effect where no method makes use of it."""
    episodes: int = 400
    """How many episodes, the same for every view."""
    reference: str = ""
    """Method that the others are compared with in each view. Default: cosine-centroid, else the first."""
    solver: str = "exact"
    """Transport solver."""
    page: bool = False
    """Write the figures of docs/transfer.md from the records docs/results/transfer-*.json, and nothing else."""
    docs: Path = Path("docs")
    """Folder of that page."""

"""The options of device-check."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass
class Config:
    """Check and time this machine's GPU: the tests marked cuda, then kernels, methods and trainings beside the CPU.

    The most valuable part comes first; what does not fit the minutes is left out, and said. Each figure is in the
    record as soon as it is there, so that a run that is cut off leaves what it had.
    """

    minutes: float = 4.0
    """How long all of it may take."""
    parts: tuple[str, ...] = ("all",)
    """tests, exact, methods, metatrain, sinkhorn, points, images, or all."""
    device: str = "cuda"
    """cuda, or cuda:1, ...; with --toy any other."""
    output: Path | None = None
    """Folder of the record, device-CARD.json. Default: docs/results, where there is one, else this folder."""
    docs: Path = Path("docs")
    """Folder whose page gpu.md --page writes."""
    page: bool = False
    """Measure nothing: write the figures of docs/gpu.md from the records in docs/results."""
    toy: bool = False
    """Tiny problems, and no card needed: to see that all works. The record says so and no page shows it."""

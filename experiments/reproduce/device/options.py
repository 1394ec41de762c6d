"""Options of ``experiments.reproduce --suite device``; nothing heavy is imported for them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from otfew.training.settings import Accelerator

JOBS = Path(__file__).with_name("jobs.toml")


@dataclass(frozen=True)
class DeviceOptions:
    """What ``--suite device`` takes beside --data-root, --runs and --threads; the other suites take none of it."""

    minutes: float | None = None
    """With --suite device: how long this call may take, its start and its end included."""
    later_minutes: float = 0.0
    """Minutes of later calls with the same --runs: a job that ends only then may be begun now."""
    accelerator: Accelerator = "auto"
    """With --suite device: what networks run on; auto takes a GPU where there is one."""
    jobs: Path = field(default=JOBS)
    """File of jobs, the most valuable first."""
    output: Path | None = None
    """Folder of what is brought back: queue.json, and results.tar.gz in pieces. Default: RUNS/back."""
    brought: tuple[Path, ...] = ()
    """Folders that earlier calls have brought back: what is in them is not done again."""
    max_mb: float = 100.0
    """Most that is brought back, in MB."""
    piece_mb: float = 15.0
    """Largest file of it, in MB."""
    dry_run: bool = False
    """Measure the rates and print the plan; nothing is run or kept."""

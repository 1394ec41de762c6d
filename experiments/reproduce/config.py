"""Options of ``experiments.reproduce``; nothing heavy is imported for them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from otfew.experiments.reproduce.device.options import DeviceOptions

CLAIMS = Path(__file__).parents[1] / "claims.toml"


@dataclass(frozen=True)
class Config:
    """Test what the papers claim, and write docs/reproduction.md and docs/results/claims.json.

    Attributes:
        suite: quick runs what committed checkpoints allow again, with few episodes; full runs everything, and trains
            what is missing; report only writes figures and page anew from the answers and records in docs/results,
            those of other processes and checkouts included; check writes nothing, and compares page, records and
            figures with the answers in docs/results/answers, without data or networks; device runs what needs a GPU,
            on a machine that is there for --minutes, and writes no page.
        data_root: Folder of data sets; default $OTFEW_DATA, then a cache folder.
        download: Fetch data sets that are missing. Default: those of at most 100 MB.
        docs: Folder of reproduction.md and of results.
        runs: Folder of the runs; default runs/reproduce-SUITE. The same command resumes.
        only: Runs whose names begin so; default all of the suite.
        claims: File of claims; a file .lock beside it must list every change of them.
        threads: CPU threads; 0 takes all cores.
        device: Options of the suite device.
    """

    suite: Literal["quick", "full", "report", "check", "device"] = "quick"
    data_root: Path | None = None
    download: Annotated[bool | None, tyro.conf.DisallowNone] = None
    docs: Path = Path("docs")
    runs: Path | None = None
    only: tuple[str, ...] = ()
    claims: Path = CLAIMS
    threads: int = 0
    device: Annotated[DeviceOptions, tyro.conf.arg(name="")] = field(default_factory=DeviceOptions)

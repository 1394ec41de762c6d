"""What refusals and near-duplicates go by, measured: ``python -m experiments.thresholds``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from otfew.experiments.common.cli import parse, run


@dataclass
class Config:
    """Measure what the classifier's refusals and its groups of near-duplicates go by, on classes that judge nothing.

    refusal: five scores that tell photos of unknown kinds, on validation classes of birds and training classes of
    CIFAR-FS. duplicates: thresholds of the perceptual hash and of the backbone, on birds and copies of them.
    """

    of: Literal["refusal", "duplicates"] = "refusal"
    """refusal or duplicates."""
    backbone: str = "efficientnet-lite0"
    """Network."""
    episodes: int = 40
    """Episodes of each data set, method, way and number of shots, for refusal."""
    data_root: Path | None = None
    """Folder of data sets. Default: $OTFEW_DATA, then a cache folder."""
    output: Path = Path("thresholds.json")
    """Where the record goes."""
    threads: int = 0
    """CPU threads; 0 takes all cores."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and measure.

    Args:
        arguments: Instead of those of the process.
    """
    config = parse(Config, "thresholds", arguments)
    from otfew.classifier import duplicate_study, refusal_study
    from otfew.experiments.common import setup
    from otfew.experiments.common.watch import ConsoleWatch
    from otfew.runs.directory import to_json
    from otfew.runs.files import write_atomically

    console = setup.make_console()
    setup.need_one_process("thresholds")
    setup.set_threads(config.threads)
    line = f"python -m experiments.thresholds --of {config.of} --backbone {config.backbone}"
    watch = ConsoleWatch(console)
    if config.of == "refusal":
        record = refusal_study.study(
            config.backbone,
            size=refusal_study.Size(episodes=config.episodes),
            data_root=config.data_root,
            command=f"{line} --episodes {config.episodes}",
            watch=watch,
        )
    else:
        record = duplicate_study.study(config.backbone, data_root=config.data_root, command=line, watch=watch)
    write_atomically(config.output, to_json(record))
    console.print(f"record: {config.output}", markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    run(main)

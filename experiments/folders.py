"""Is method="auto" as good as a method fixed beforehand: ``python -m experiments.folders``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from otfew.experiments.common.cli import parse, run


@dataclass
class Config:
    """Judge the classifier's choice of a method on 40 folders that had no part in the table behind it.

    Ten folders each of birds (CUB), CIFAR-FS, Omniglot and Fashion-MNIST, test parts alone: accuracy beside each method
    fixed beforehand, calibration error, realised refusals and coverage of sets. Goes on where it was interrupted.
    """

    backbone: str = "efficientnet-lite0"
    """Network of all folders."""
    data_root: Path | None = None
    """Folder of data sets. Default: $OTFEW_DATA, then a cache folder."""
    download: bool = True
    """Fetch what is missing where the publisher allows it."""
    output: Path | None = None
    """Folder of the run. Default: runs/folders-HASH."""
    record: Path = Path("docs/results/folders.json")
    """Where the record goes; with --page, where it is read."""
    docs: Path = Path("docs")
    """Folder whose page own-photos.md --page writes."""
    page: bool = False
    """Run nothing: write the figures of docs/own-photos.md from the record."""
    threads: int = 0
    """CPU threads; 0 takes all cores."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and run, or write the page.

    Args:
        arguments: Instead of those of the process.
    """
    config = parse(Config, "folders", arguments)
    from otfew.classifier import folder_run
    from otfew.classifier.folder_tables import lines, tables, write_page
    from otfew.experiments.common import setup
    from otfew.experiments.common.watch import ConsoleWatch
    from otfew.reporting.tables import terminal
    from otfew.runs.directory import to_json
    from otfew.runs.files import write_atomically

    if config.page:
        write_page(config.docs / "own-photos.md", config.record)
        return
    console = setup.make_console()
    setup.need_one_process("folders")
    setup.set_threads(config.threads)
    record = folder_run.run(
        config.backbone,
        data_root=config.data_root,
        download=config.download,
        output=config.output,
        command=f"python -m experiments.folders --backbone {config.backbone}",
        watch=ConsoleWatch(console),
    )
    write_atomically(config.record, to_json(record))
    for table in tables(record):
        console.print(terminal(table))
    for line in lines(record):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    run(main)

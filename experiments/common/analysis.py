"""What the analyses share: from a command line to panels of paired scores, and the report in one run folder."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from otfew.evaluation import answers
from otfew.evaluation.episodes import Protocol, Sampler
from otfew.evaluation.figures import FORMAT
from otfew.evaluation.study import Finished, Panel, Record, Study, Terms
from otfew.evaluation.study import sample as sample_material
from otfew.experiments.common import setup
from otfew.experiments.common.options import Analysis, WithEpisodes
from otfew.experiments.common.watch import ConsoleWatch
from otfew.features.material import Material
from otfew.reporting import comparison as report
from otfew.reporting.tables import Table, sections, terminal
from otfew.runs.directory import to_json
from otfew.runs.identity import short_hash, versions
from otfew.transport import ConvergenceWarning


def check(options: Analysis) -> Terms:
    """Refuse what can be refused without data, set the threads, and return what holds for all panels.

    Raises:
        UserError: A number out of range, or no such device.
    """
    Protocol("", "", options.split, options.seed, options.way, 1, options.query, options.query_balance)
    terms = Terms(options.episodes, options.class_prior, options.allow_overlap, setup.pick_device(options.device))
    setup.set_threads(options.threads)
    return terms


def sample(material: Material, options: WithEpisodes, shot: int) -> Sampler:
    """Make the sampler of a material's episodes; the same episodes as those of ``compare``."""
    return sample_material(
        material,
        way=options.way,
        shot=shot,
        query=options.query,
        seed=options.seed,
        query_balance=options.query_balance,
    )


class Session:
    """An analysis from its claim to its report.

    Args:
        command: Its name.
        output: Its folder, or None for runs/COMMAND-HASH.
        panels: What will run.
        settings: Further settings that the results depend on, JSON-ready.
        terms: What holds for all panels.
        console: Where tables and progress go.

    Raises:
        UserError: The folder holds another run, or features cannot be had; nothing is written then.
    """

    def __init__(
        self,
        command: str,
        output: Path | None,
        panels: Sequence[Panel],
        settings: Record,
        terms: Terms,
        console: Console,
    ) -> None:
        self.console = console
        self.identity: Record = {
            "command": command,
            "format": FORMAT,
            "settings": settings,
            "panels": {panel.key: panel.protocol(terms) for panel in panels},
            "versions": versions(),
        }
        folder = output or Path("runs") / f"{command}-{short_hash(self.identity)}"
        self._study = Study(panels, terms, self.identity, folder, watch=ConsoleWatch(console))
        assert self._study.directory is not None
        self.directory = self._study.directory

    def evaluate(self) -> dict[str, Finished]:
        """Run all panels, or take finished episodes from the folder."""
        with warnings.catch_warnings():
            # Where an entropic solver stops early shows in the table of accuracies.
            warnings.simplefilter("ignore", ConvergenceWarning)
            return self._study.evaluate()

    def write(
        self,
        finished: Mapping[str, Finished],
        found: Record,
        tables: Sequence[Table],
        lines: Sequence[str],
        pictures: Mapping[str, bytes],
    ) -> Path:
        """Write the report's files and print the tables.

        Args:
            finished: By panel.
            found: What results.json holds beside the panels.
            tables: In order.
            lines: Sentences below them.
            pictures: File name -> PNG.
        """
        results = {**self.identity, **found, "panels": {key: f.record for key, f in finished.items()}}
        self.directory.write("results.json", to_json(results))
        self.directory.write("timings.json", to_json({key: f.times for key, f in finished.items()}))
        accuracies = {key: {name: s.accuracy for name, s in f.scores.items()} for key, f in finished.items()}
        self.directory.write("episodes.csv", report.panels_csv(accuracies))
        for panel in finished.values():
            if panel.directory is not None:
                classes = report.classes_csv(panel.classes, panel.record["class_names"])
                panel.directory.write("classes.csv", classes)
                if panel.answers is not None:
                    panel.directory.write(answers.FILE, answers.to_bytes(panel.answers))
        for table in tables:
            self.console.print(terminal(table))
        lines = [*lines, *dict.fromkeys(line for f in finished.values() for line in report.timing_lines(f.times))]
        for line in lines:
            self.console.print(f"- {line}", markup=False, highlight=False)
        self.directory.write("report.md", sections(tables, lines).encode())
        for name, picture in pictures.items():
            self.directory.write(name, picture)
        self.console.print(f"report: {self.directory.path}", markup=False, highlight=False, soft_wrap=True)
        return self.directory.path

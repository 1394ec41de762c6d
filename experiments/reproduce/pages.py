"""All that the ledger writes from its evidence, but pictures: as bytes, to be written or to be compared."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from otfew.backbones.zoo import zoo
from otfew.experiments.reproduce import lock as ledger_lock
from otfew.experiments.reproduce import report, tallies
from otfew.experiments.reproduce.budget import bearings
from otfew.experiments.reproduce.claims import Claim, Ledger
from otfew.experiments.reproduce.evidence import SUITES, Evidence, Figures, answered
from otfew.experiments.reproduce.figures import Reader
from otfew.experiments.reproduce.runs_of_page import Kept
from otfew.runs.directory import to_json

BEGIN, END = "<!-- reproduction: written by experiments.reproduce -->", "<!-- end of reproduction -->"


@dataclass(frozen=True)
class Known:
    """The evidence of both suites.

    Attributes:
        full: Figures of the full suite.
        quick: Of the quick one.
        readers: Suite -> answers of its runs, by name.
        records: Suite -> what each run's file says, by name.
    """

    full: Figures
    quick: Figures
    readers: Mapping[str, Mapping[str, Reader]]
    records: Mapping[str, Mapping[str, Mapping[str, Any]]]

    @classmethod
    def load(cls, ledger: Ledger, results: Path) -> Known:
        """Read all of it.

        Raises:
            UserError: Some of it is damaged.
        """
        both = {suite: Evidence(results, suite) for suite in SUITES}
        full, quick = (each.load(ledger) for each in both.values())
        readers = {suite: each.readers(ledger) for suite, each in both.items()}
        records = {
            suite: {name: each.record(name) for name in ledger.runs if (each.folder / f"{name}.json").exists()}
            for suite, each in both.items()
        }
        return cls(full, quick, readers, records)

    def figures(self, suite: str) -> Figures:
        """Return those of a suite."""
        return self.quick if suite == "quick" else self.full

    def only_recorded(self, ledger: Ledger, suite: str) -> list[Claim]:
        """List the claims with a figure in a suite that its answers do not give again."""
        found = self.readers[suite]
        figures = self.figures(suite)
        claims = [claim for claim in ledger.claims.values() if claim.id in figures]
        return [claim for claim in claims if answered(claim, found, figures[claim.id]) is None]

    def kept(self, ledger: Ledger) -> Kept:
        """Say what can be computed again."""
        full, quick = (frozenset(self.readers[suite]) for suite in SUITES)
        best = [c.id for c in self.only_recorded(ledger, "full")]
        best += [c.id for c in self.only_recorded(ledger, "quick") if c.id not in self.full]
        return Kept(full, quick, tuple(best))


def pages(ledger: Ledger, lock: ledger_lock.Lock | None, known: Known, docs: Path) -> dict[Path, bytes]:
    """Write claims.json, reproduction.md and the README, where that has a place for the ledger's table.

    Args:
        ledger: The claims.
        lock: What they were, and when.
        known: The evidence.
        docs: The folder docs.

    Returns:
        Path -> content.

    Raises:
        UserError: The verdicts of before are damaged.
    """
    full, quick, results = known.full, known.quick, docs / "results"
    protocols = {
        name: record["protocol"] for suite in ("quick", "full") for name, record in known.records[suite].items()
    }
    bears = bearings(ledger, protocols, zoo())
    history = [] if lock is None else ledger_lock.section(lock)
    before = tallies.load(results)
    made = {
        results / "claims.json": to_json(report.records(ledger, full, quick, bears)),
        docs / "reproduction.md": report.page(ledger, full, quick, bears, known.kept(ledger), before, history),
    }
    readme = docs.parent / "README.md"
    if readme.exists() and BEGIN in (old := readme.read_text(encoding="utf-8")):
        table = report.answers(ledger, full, quick)
        new = re.sub(
            f"{re.escape(BEGIN)}.*?{re.escape(END)}", lambda _: f"{BEGIN}\n\n{table}\n\n{END}", old, flags=re.DOTALL
        )
        made[readme] = new.encode()
    return made

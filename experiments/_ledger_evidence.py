"""The evidence as files: what each run found, and the figures of the claims, below ``docs/results``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from otfew.errors import UserError
from otfew.experiments._ledger_claims import Claim, Ledger, Run
from otfew.experiments._ledger_figures import DIGITS, READERS, Figure, Reader, difference, level
from otfew.feature_cache import write_atomically
from otfew.run_directory import to_json

SUITES = ("full", "quick")
Figures = dict[str, dict[str, Figure]]
"""Claim's id -> "figure", "left" and, where there is one, "right"."""


class Evidence:
    """Files of one suite.

    Args:
        results: The folder ``docs/results``.
        suite: "full" or "quick".
    """

    def __init__(self, results: Path, suite: str) -> None:
        self.suite = suite
        self.folder = results if suite == "full" else results / suite
        self.path = results / f"figures-{suite}.json"

    def load(self) -> Figures:
        """Read the figures; nothing where there are none.

        Raises:
            UserError: The file is damaged.
        """
        if not self.path.exists():
            return {}
        try:
            written = json.loads(self.path.read_bytes())
            return {id_: {name: Figure(**f) for name, f in sides.items()} for id_, sides in written.items()}
        except (ValueError, TypeError) as error:
            raise UserError(f"{self.path} is damaged ({error}): restore it from the repository.") from None

    def keep(self, ledger: Ledger, runs: Mapping[str, Path], quick: bool) -> None:
        """Write what finished runs say: a file for each, and the figures of claims whose runs are all there.

        Figures of other claims stay as they are.

        Args:
            ledger: The claims.
            runs: Name of a run -> its folder.
            quick: Which arguments they ran with.
        """
        readers = {name: READERS[ledger.runs[name].command](folder) for name, folder in runs.items()}
        figures = self.load()
        for claim in ledger.claims.values():
            if claim.left and set(claim.runs) <= readers.keys():
                figures[claim.id] = measure(claim, readers)
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, reader in readers.items():
            arms = _arms(name, ledger)
            record = _record(ledger.runs[name], reader, arms, quick)
            write_atomically(self.folder / f"{name}.json", to_json(record))
        written = {
            id_: {name: figure.to_json() for name, figure in sides.items()}
            for id_, sides in figures.items()
            if id_ in ledger.claims
        }
        write_atomically(self.path, to_json(written))

    def file(self, run: str) -> Path:
        """Name the file of a run."""
        return self.folder / f"{run}.json"


def measure(claim: Claim, readers: Mapping[str, Reader]) -> dict[str, Figure]:
    """Take a claim's figures from finished runs.

    Returns:
        "left", "right" and their difference as "figure"; without a right side "figure" is the left one.
    """
    left = [(readers[arm.run], arm.key) for arm in claim.left]
    right = [(readers[arm.run], arm.key) for arm in claim.right]
    levels = {"left": level(left, claim.measure)}
    if not right:
        return {**levels, "figure": levels["left"]}
    pairs = list(zip(left, right, strict=True))
    return {**levels, "right": level(right, claim.measure), "figure": difference(pairs, claim.measure)}


def _arms(run: str, ledger: Ledger) -> list[tuple[str, str]]:
    """List the arms of a run that claims name, each with its measure."""
    named = [
        (arm.key, claim.measure)
        for claim in ledger.claims.values()
        for arm in (*claim.left, *claim.right)
        if arm.run == run
    ]
    return sorted(set(named))


def _record(run: Run, reader: Reader, arms: list[tuple[str, str]], quick: bool) -> dict[str, Any]:
    return {
        "command": f"python -m experiments.{run.command.replace('-', '_')} {' '.join(run.spelled(quick))}",
        "protocol": _rounded(reader.protocol()),
        "versions": reader.results.get("versions", {}),
        "arms": {
            f"{key}, {measure}" if measure else key: reader.level(key, measure).to_json() for key, measure in arms
        },
    }


def _rounded(record: Any) -> Any:
    """Leave no more digits than figures have, and no list longer than a screen."""
    if isinstance(record, Mapping):
        return {key: _rounded(value) for key, value in record.items()}
    if isinstance(record, list):
        return [_rounded(value) for value in record] if len(record) <= 32 else f"{len(record)} entries"
    return round(record, DIGITS) if isinstance(record, float) else record

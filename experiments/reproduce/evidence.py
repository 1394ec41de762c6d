"""The evidence as files: what each run found, and the figures of the claims, below ``docs/results``."""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from otfew.errors import UserError
from otfew.experiments.reproduce.claims import Claim, Ledger, Run
from otfew.experiments.reproduce.figures import DIGITS, READERS, Figure, Reader, difference, level
from otfew.runs.directory import to_json
from otfew.runs.files import write_atomically

SUITES = ("full", "quick")
SIDES = ("figure", "left", "right")
Figures = dict[str, dict[str, Figure]]
"""Claim's id -> "figure", "left" and, where there is one, "right"."""


class Evidence:
    """Files of one suite.

    Args:
        results: The folder ``docs/results``.
        suite: "full" or "quick".
    """

    def __init__(self, results: Path, suite: str) -> None:
        self.folder = results if suite == "full" else results / suite
        self.path = results / f"figures-{suite}.json"

    def load(self, ledger: Ledger) -> Figures:
        """Read the figures of claims that are still about the same arms; nothing where there are none.

        Raises:
            UserError: The file is damaged, or belongs to other claims.
        """
        if not self.path.exists():
            return {}
        try:
            written = json.loads(self.path.read_bytes())
            figures = {
                id_: {name: Figure(**sides[name]) for name in SIDES if name in sides}
                for id_, sides in written.items()
                if id_ in ledger.claims and sides["arms"] == ledger.claims[id_].arms
            }
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(f"{self.path} is damaged ({error}): restore it from the repository.") from None
        if written and not written.keys() & ledger.claims.keys():
            raise UserError(f"{self.path} holds figures of other claims: give another --docs.")
        return figures

    def keep(self, ledger: Ledger, runs: Mapping[str, Path], new: str, quick: bool) -> dict[str, str]:
        """Write what a finished run says: its file, and the figures of its claims whose other runs are there too.

        Figures of other claims stay as they are.

        Args:
            ledger: The claims.
            runs: Name of a finished run -> its folder.
            new: Name of the run that has just finished.
            quick: Which arguments they ran with.

        Returns:
            Claim's id -> why it can't be measured although its runs are there.
        """
        claims = [claim for claim in ledger.claims.values() if new in claim.runs and set(claim.runs) <= runs.keys()]
        needed = {new, *(run for claim in claims for run in claim.runs)}
        readers = {name: READERS[ledger.runs[name].command](runs[name]) for name in sorted(needed)}
        figures, failed = self.load(ledger), {}
        for claim in claims:
            sides, reason = _try_measure(claim, readers)
            if reason:
                failed[claim.id] = reason
            else:
                figures[claim.id] = sides
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.folder / f"{new}.json", to_json(_record(new, ledger, readers[new], quick)))
        written = {
            id_: {"arms": ledger.claims[id_].arms, **{name: figure.to_json() for name, figure in sides.items()}}
            for id_, sides in figures.items()
        }
        write_atomically(self.path, to_json(written))
        return failed

    def finished(self, ledger: Ledger, folder: Path, quick: bool) -> dict[str, Path]:
        """Find the runs whose folders are there and whose evidence was written for the very same commands."""
        found = {}
        for name, run in ledger.runs.items():
            path, file = folder / name, self.folder / f"{name}.json"
            if (path / "results.json").exists() and file.exists() and _command(file) == spelled(run, quick):
                found[name] = path
        return found


def _command(file: Path) -> str:
    """Read which command a file of evidence was written for."""
    try:
        return str(json.loads(file.read_bytes())["command"])
    except (ValueError, TypeError, KeyError):
        raise UserError(f"{file} is damaged: restore it from the repository.") from None


def protocol_of(file: Path) -> Any:
    """Read on what a record of a run rests.

    Raises:
        UserError: It is damaged.
    """
    try:
        return json.loads(file.read_bytes())["protocol"]
    except (ValueError, TypeError, KeyError):
        raise UserError(f"{file} is damaged: restore it from the repository.") from None


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


def _try_measure(claim: Claim, readers: Mapping[str, Reader]) -> tuple[dict[str, Figure], str]:
    """Take a claim's figures, or say why there are none."""
    try:
        return measure(claim, readers), ""
    except UserError as error:
        return {}, str(error)


def spelled(run: Run, quick: bool) -> str:
    """Spell the command of a run for a shell."""
    return shlex.join(["python", "-m", f"experiments.{run.command.replace('-', '_')}", *run.spelled(quick)])


def _record(run: str, ledger: Ledger, reader: Reader, quick: bool) -> dict[str, Any]:
    """Describe a run by the arms that claims name."""
    named = {
        (arm.key, claim.measure)
        for claim in ledger.claims.values()
        for arm in (*claim.left, *claim.right)
        if arm.run == run
    }
    arms = {}
    for key, measured in sorted(named):
        with contextlib.suppress(UserError):
            arms[f"{key}, {measured}" if measured else key] = reader.level(key, measured).to_json()
    return {
        "command": spelled(ledger.runs[run], quick),
        "protocol": _rounded(reader.protocol()),
        "versions": reader.results.get("versions", {}),
        "arms": arms,
    }


def _rounded(record: Any) -> Any:
    """Leave no more digits than figures have, and no list longer than a screen."""
    if isinstance(record, Mapping):
        return {key: _rounded(value) for key, value in record.items()}
    if isinstance(record, list):
        return [_rounded(value) for value in record] if len(record) <= 32 else f"{len(record)} entries"
    return round(record, DIGITS) if isinstance(record, float) else record

"""The evidence as files below ``docs/results``: what each run answered and found, and the figures of the claims."""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from otfew.errors import UserError
from otfew.experiments.reproduce.answers import EPISODES, Answers, gather
from otfew.experiments.reproduce.claims import Claim, Ledger, Run
from otfew.experiments.reproduce.figures import DIGITS, Figure, Reader, difference, level, reader_of
from otfew.runs.directory import to_json
from otfew.runs.files import write_atomically

SUITES = ("full", "quick")
SIDES = ("figure", "left", "right")
Figures = dict[str, dict[str, Figure]]
"""Claim's id -> "figure", "left" and, where there is one, "right"."""


class Evidence:
    """Files of one suite.

    A run leaves two: RUN.json says on what it rests and what its arms reached, answers/RUN.npz holds the answers that
    all of this is taken from. Runs from before answers were kept have the first alone.

    Args:
        results: The folder ``docs/results``.
        suite: "full" or "quick".
    """

    def __init__(self, results: Path, suite: str) -> None:
        self.quick = suite == "quick"
        self.folder = results / suite if self.quick else results
        self.answers = results / "answers" / suite if self.quick else results / "answers"
        self.path = results / f"figures-{suite}.json"

    def load(self, ledger: Ledger) -> Figures:
        """Read the figures of claims that are still about the same arms, or have come to be about further networks.

        Nothing where there are none.

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
                if id_ in ledger.claims and sides["arms"] == ledger.claims[id_].first(sides["figure"]["seeds"]).arms
            }
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(f"{self.path} is damaged ({error}): restore it from the repository.") from None
        if written and not written.keys() & ledger.claims.keys():
            raise UserError(f"{self.path} holds figures of other claims: give another --docs.")
        return figures

    def keep(self, ledger: Ledger, name: str, folder: Path) -> dict[str, str]:
        """Write what a finished run says, as soon as it ends: its answers, its record, and the figures of its claims.

        A claim is measured on the first of its networks, as many as there are answers of, for the commands that the
        ledger has now; a figure of more networks, from before answers were kept, stands until there are as many.
        Figures of other claims stay as they are.

        Args:
            ledger: The claims.
            name: Of the run.
            folder: Where it ran.

        Returns:
            Claim's id -> why it can't be measured although its runs are there.

        Raises:
            UserError: The folder holds no answers, or the evidence is damaged.
        """
        run = ledger.runs[name]
        answers = gather(run.command, folder)
        answers = replace(answers, about={**answers.about, "command": spelled(run, self.quick)})
        self.answers.mkdir(parents=True, exist_ok=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.answers / f"{name}.npz", answers.to_bytes())
        results = json.loads((folder / "results.json").read_bytes())
        record = {
            "command": spelled(run, self.quick),
            "protocol": {**_rounded(_protocol(run, results)), **_curves(results)},
            "versions": results.get("versions", {}),
            "arms": {arm: figure.to_json() for arm, figure in arms_of(name, ledger, reader_of(answers, name)).items()},
        }
        write_atomically(self.folder / f"{name}.json", to_json(record))
        return self.refresh(ledger, [claim for claim in ledger.claims.values() if name in claim.runs])

    def refresh(self, ledger: Ledger, claims: Iterable[Claim]) -> dict[str, str]:
        """Take the figures of claims from the answers that are there, whichever process or checkout they came from.

        Args:
            ledger: The claims.
            claims: Those to be measured; figures of others stay as they are.

        Returns:
            Claim's id -> why it can't be measured although its runs are there.

        Raises:
            UserError: The evidence is damaged.
        """
        readers = self.readers(ledger)
        figures, failed = self.load(ledger), {}
        for claim in claims:
            if (there := answered(claim, readers, figures.get(claim.id))) is not None:
                try:
                    figures[claim.id] = measure(there, readers)
                except UserError as error:
                    failed[claim.id] = str(error)
        if not figures:
            return failed
        written = {
            id_: {
                "arms": ledger.claims[id_].first(sides["figure"].seeds).arms,
                **{name: figure.to_json() for name, figure in sides.items()},
            }
            for id_, sides in figures.items()
        }
        write_atomically(self.path, to_json(written))
        return failed

    def readers(self, ledger: Ledger) -> dict[str, Reader]:
        """Open the answers of runs whose commands are those that the ledger has now, by name.

        Raises:
            UserError: Answers are damaged.
        """
        found = {}
        for name, run in ledger.runs.items():
            path = self.answers / f"{name}.npz"
            if path.exists():
                answers = Answers.read(path)
                if answers.about.get("command") == spelled(run, self.quick):
                    found[name] = reader_of(answers, name)
        return found

    def record(self, name: str) -> dict[str, Any]:
        """Read the record of a run.

        Raises:
            UserError: It is damaged.
        """
        path = self.folder / f"{name}.json"
        try:
            found: dict[str, Any] = json.loads(path.read_bytes())
            return {key: found[key] for key in ("command", "protocol", "versions", "arms")}
        except (OSError, ValueError, TypeError, KeyError):
            raise UserError(f"{path} is damaged: restore it from the repository.") from None


def answered(claim: Claim, readers: Mapping[str, Reader], sides: Mapping[str, Figure] | None) -> Claim | None:
    """Cut a claim to the first of its networks that all have answers: what can be measured of it.

    Args:
        claim: Which.
        readers: Answers by run.
        sides: Its recorded figures.

    Returns:
        None where there are none, or fewer networks than the recorded figure is of.
    """
    there = 0
    while there < len(claim.left) and set(claim.first(there + 1).runs) <= readers.keys():
        there += 1
    recorded = min(sides["figure"].seeds, len(claim.left)) if sides else 1
    return claim.first(there) if there >= max(1, recorded) else None


def measure(claim: Claim, readers: Mapping[str, Reader]) -> dict[str, Figure]:
    """Take a claim's figures from finished runs.

    Returns:
        "left", "right" and their difference as "figure"; without a right side "figure" is the left one.

    Raises:
        UserError: An arm is not there, or runs that can't be compared.
    """
    left = [(readers[arm.run], arm.key) for arm in claim.left]
    right = [(readers[arm.run], arm.key) for arm in claim.right]
    levels = {"left": level(left, claim.measure)}
    if not right:
        return {**levels, "figure": levels["left"]}
    pairs = list(zip(left, right, strict=True))
    return {**levels, "right": level(right, claim.measure), "figure": difference(pairs, claim.measure)}


def arms_of(run: str, ledger: Ledger, reader: Reader) -> dict[str, Figure]:
    """Measure the arms of a run that claims name."""
    named = {
        (arm.key, claim.measure)
        for claim in ledger.claims.values()
        for arm in (*claim.left, *claim.right)
        if arm.run == run
    }
    arms = {}
    for key, measured in sorted(named):
        with contextlib.suppress(UserError):
            arms[f"{key}, {measured}" if measured else key] = reader.level(key, measured)
    return arms


def spelled(run: Run, quick: bool) -> str:
    """Spell the command of a run for a shell."""
    return shlex.join(["python", "-m", f"experiments.{run.command.replace('-', '_')}", *run.spelled(quick)])


def _protocol(run: Run, results: Mapping[str, Any]) -> Any:
    """Say on what the figures of a run rest."""
    if run.command == "long-tail":
        return {name: results[name] for name in ("setting", "stage2", "seeds", "ot")}
    if run.command in EPISODES and "panels" in results:
        return {key: panel["protocol"] for key, panel in results["panels"].items()}
    return results["protocol"]


def _curves(results: Mapping[str, Any]) -> dict[str, Any]:
    """Take the validation curves along, whole, where a run trained its own networks: the rule on budgets reads them."""
    kept = results.get("val_curves")
    if not kept:
        return {}
    return {
        "val_curves": {
            name: {seed: [round(value, DIGITS) for value in curve] for seed, curve in seeds.items()}
            for name, seeds in kept.items()
        }
    }


def _rounded(record: Any) -> Any:
    """Leave no more digits than figures have, and no list longer than a screen."""
    if isinstance(record, Mapping):
        return {key: _rounded(value) for key, value in record.items()}
    if isinstance(record, list):
        return [_rounded(value) for value in record] if len(record) <= 32 else f"{len(record)} entries"
    return round(record, DIGITS) if isinstance(record, float) else record

"""What claims were before their figures, and every change since: ``claims.lock``, compared with ``claims.toml``."""

from __future__ import annotations

import difflib
import hashlib
import itertools
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from otfew.classifier.folder_rule import rule_digest
from otfew.errors import UserError
from otfew.experiments.regimes.rule import digest as regimes_digest
from otfew.experiments.reproduce.budget import Own, bearing
from otfew.experiments.reproduce.claims import Arm, Claim, Ledger, Spent
from otfew.experiments.reproduce.evidence import spelled
from otfew.experiments.reproduce.figures import Figure
from otfew.experiments.reproduce.verdict import judge
from otfew.experiments.transfer.rule import rule_digest as transfer_digest
from otfew.reporting.tables import Table, markdown

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Terms = dict[str, Any]
KNOWN = ("no", "in part", "few episodes", "yes")
"""Whether figures of a claim were there: of none of its runs, of some, of all but with few episodes, of all."""
DEFAULTS: dict[str, Terms] = {
    "claim": {"level": "", "training": False, "ours": False, "untestable": False},
    "run": {},
    "rule": {},
}
"""Terms that the lock leaves out, by kind of entry."""
YES_OR_NO = {
    "removed": ("taken away", "back"),
    "training": ("needs three networks or seeds", "no longer needs three networks or seeds"),
    "ours": ("counted as a question of ours", "counted as a claim of the paper"),
    "untestable": ("not testable here", "testable here"),
}
"""Terms that are true or false, in words."""
HEAD = ("when", "figure known", "what", "of")


@dataclass(frozen=True)
class Change:
    """A change of terms.

    Attributes:
        on: Date and time of the commit.
        known: A member of ``KNOWN``: what was known just before.
        terms: Those that changed, with their new values; ``removed`` = true takes the entry away.
        why: In words.
    """

    on: str
    known: str
    terms: Terms
    why: str


@dataclass(frozen=True)
class Entry:
    """A claim, a run or the rules of verdicts.

    Attributes:
        kind: A key of ``DEFAULTS``.
        id: Of the claim or run.
        on: When it was first written down.
        known: A member of ``KNOWN``: what was known just before.
        terms: As they were first written down.
        changes: In order.
    """

    kind: str
    id: str
    on: str
    known: str
    terms: Terms
    changes: tuple[Change, ...]

    def states(self) -> list[Terms]:
        """Return the terms as first written and after each change."""
        states = [{**DEFAULTS[self.kind], **self.terms}]
        for change in self.changes:
            states.append({**states[-1], **change.terms})
        return states


Lock = dict[tuple[str, str], Entry]
"""By kind and id."""


def load(path: Path) -> Lock | None:
    """Read a lock, or return None where there is none.

    Raises:
        UserError: It can't be read, or lacks something.
    """
    if not path.exists():
        return None
    try:
        written = tomllib.loads(path.read_text(encoding="utf-8"))
        lock = {(kind, e["id"]): _entry(kind, e) for kind in DEFAULTS for e in written.get(kind, ())}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} can't be read ({error}): restore it from the repository.") from None
    return lock


def _entry(kind: str, written: Mapping[str, Any]) -> Entry:
    changes = tuple(Change(**change) for change in written.get("changes", ()))
    entry = Entry(kind, written["id"], written["on"], written["known"], written["terms"], changes)
    if wrong := {entry.known, *(change.known for change in changes)} - set(KNOWN):
        raise ValueError(f"{entry.id}: known must be one of {', '.join(KNOWN)}, not {sorted(wrong)}")
    return entry


def terms(ledger: Ledger) -> dict[tuple[str, str], Terms]:
    """Return what the lock must say of claims, runs and rules, by kind and id."""
    found: dict[tuple[str, str], Terms] = {
        ("rule", "verdicts"): {"digest": rules_digest()},
        ("rule", "folders"): {"digest": rule_digest()},
        ("rule", "transfer"): {"digest": transfer_digest()},
        ("rule", "bears"): {"digest": budgets_digest(ledger)},
        ("rule", "regimes"): {"digest": regimes_digest()},
    }
    for run in ledger.runs.values():
        found["run", run.name] = {"command": spelled(run, quick=False)}
    for claim in ledger.claims.values():
        found["claim", claim.id] = {
            "arms": claim.arms,
            "level": "" if claim.level is None else f"{claim.level:g}",
            "margin": float(claim.delta),
            "training": claim.training,
            "family": claim.table,
            "ours": claim.ours,
            "untestable": bool(claim.untestable),
        }
    return found


def differences(ledger: Ledger, lock: Lock) -> dict[tuple[str, str], list[str]]:
    """Name what differs from the lock: by kind and id, the terms, or "not there" and "not in the lock"."""
    now, then = terms(ledger), {key: entry.states()[-1] for key, entry in lock.items()}
    # A rule without a digest is one that other pages hold to: here it is only written down.
    then = {k: s for k, s in then.items() if not s.get("removed") and (k[0] != "rule" or "digest" in s)}
    found = {key: ["not there"] for key in then.keys() - now.keys()}
    for key, mine in now.items():
        locked = then.get(key)
        different = ["not in the lock"] if locked is None else [n for n in mine if mine[n] != locked.get(n)]
        if different:
            found[key] = different
    return found


def check(ledger: Ledger, lock: Lock) -> None:
    """Compare claims, runs and rules with the lock.

    Raises:
        UserError: Something was changed that the lock does not list.
    """
    for (kind, name), different in sorted(differences(ledger, lock).items()):
        now = terms(ledger).get((kind, name), {})
        new = f" (now {now['digest']})" if kind == "rule" and now else ""
        raise UserError(
            f"{kind} {name!r} differs from claims.lock: {', '.join(different)}{new}; list the change there, with its "
            "date, why, and whether its figure was known."
        )


def rules_digest() -> str:
    """Digest the verdicts of made-up figures that lie on all sides of every rule, in ten hexadecimal digits."""
    said = []
    cases = itertools.product(
        (-3.0, -1.2, -0.4, 0.0, 0.4, 1.2, 3.0),
        (0.1, 0.5, 2.0),
        (0.001, 0.02, 0.2),
        (1, 2, 3),
        (False, True),
        (0.5, 1.0),
    )
    for mean, half, p, seeds, training, margin in cases:
        for intervals in (
            {"episodes": half},
            {"classes": half, "networks": 1.5 * half},
            {"images": half, "classes": 2 * half},
            {"images": half, "networks": 0.5 * half},
            {"seeds": half},
            {"runs": half},
        ):
            left, right = (Arm("r", "a"),), (Arm("r", "b"),)
            claims = [
                Claim(i, "t", "s", left=left, right=right, delta=margin, training=training)
                for i in ("one", "two", "three")
            ]
            figure = Figure(mean, intervals, p, seeds + ("networks" in intervals), {"classes": 19})
            alone = Claim("level", "t", "s", left=left, level=0.0, delta=margin, training=training)
            family = [*claims, alone]
            figures = {
                "one": figure,
                "two": figure,
                "three": Figure(0.0, intervals, 0.9, figure.seeds, figure.degrees),
                "level": figure,
            }
            said += [f"{v.text} {v.few} {v.p_holm or 0:.3f}" for v in judge(family, figures).values()]
    return hashlib.sha256("\n".join(said).encode()).hexdigest()[:10]


def budgets_digest(ledger: Ledger) -> str:
    """Digest what papers spent, for which claims, and the rule's word on made-up budgets on all sides of it."""
    said = [f"{name} {spent}" for name, spent in sorted(ledger.budgets.items())]
    said += [f"{claim.id} {claim.budget}" for claim in ledger.claims.values()]
    paper = Spent("net", 1.0, 100, 5000, 1000, 84, ("one", "other"), ("one",))
    claim = Claim("c", "t", "s", left=(Arm("r", "a"),), right=(Arm("r", "b"),))
    level = (70.0,) * 20
    enough = Own("net", 0.5, 50, 2500, 500, 42, ("one",), ("one",), "base", "", (level,), "fcn", "fcn")
    short: dict[str, Any] = {
        "network": "another", "width": 0.25, "epochs": 49, "meta_episodes": 2499, "images": 499, "resolution": 41,
        "data": ("third",), "learned": ("other",), "partial": "1 of 2 classes", "nodes": "grid",
    }  # fmt: skip
    cases = [enough, *(replace(enough, **{name: value}) for name, value in short.items())]
    cases += [replace(enough, curves=(level, (*level[:18], x, x))) for x in (69.0, 70.5, 70.6, 80.0)]
    cases += [replace(enough, curves=curves) for curves in ((), ((70.0,) * 3,), ((70.0,) * 100,))]
    said += [bearing(claim, paper, found).text for found in ([], *([case] for case in cases), cases)]
    said += [bearing(replace(claim, ours=True), paper, [enough]).text, bearing(claim, None, [enough]).text]
    return hashlib.sha256("\n".join(said).encode()).hexdigest()[:10]


def section(lock: Lock) -> list[str]:
    """Write the part of docs/reproduction.md that says what was fixed, when, and what was changed since."""
    claims = [entry for entry in lock.values() if entry.kind == "claim"]
    lines = ["## Fixed before the figures, and changed since", "", _SECTION, ""]
    first: dict[tuple[str, str], list[str]] = {}
    for entry in claims:
        first.setdefault((entry.on, entry.known), []).append(entry.id)
    rows = [
        [on, known, str(len(ids)), ", ".join(ids) if known != "no" else ""]
        for (on, known), ids in sorted(first.items())
    ]
    lines += [markdown(Table("", ("first written", "figure known", "claims", "which"), rows)).rstrip(), ""]
    grouped: dict[tuple[str, str, str], list[str]] = {}
    for on, known, what, name in sorted(_changes(lock), key=lambda row: row[0]):
        grouped.setdefault((on, known, what), []).append(name)
    rows = [[*key, ", ".join(names)] for key, names in grouped.items()]
    return [*lines, markdown(Table("", HEAD, rows)).rstrip()]


def _changes(lock: Lock) -> Iterator[tuple[str, str, str, str]]:
    """Go through all changes: when, known, what, whose."""
    for entry in lock.values():
        name = entry.id if entry.kind == "claim" else f"{entry.kind} {entry.id}"
        for old, change in zip(entry.states(), entry.changes, strict=False):
            for term, value in change.terms.items():
                if term != "digest":
                    yield change.on, change.known, _what(term, old.get(term), value), name


def _what(name: str, old: Any, new: Any) -> str:
    """Describe one changed term."""
    if name in YES_OR_NO:
        return YES_OR_NO[name][0 if new else 1]
    if name in {"says", "id"}:
        return str(new) if name == "says" else f"renamed, before {old}"
    if name == "arms" and _turned(old, new):
        return f"turned round: {new}"
    if name in {"arms", "command"}:
        words = difflib.SequenceMatcher(None, a := old.split(), b := new.split()).get_opcodes()
        gone = [" ".join(a[i:j]) for tag, i, j, _, _ in words if tag != "equal" and i < j]
        come = [" ".join(b[i:j]) for tag, _, _, i, j in words if tag != "equal" and i < j]
        return f"{name}: {'; '.join(gone) or 'nothing'} became {'; '.join(come) or 'nothing'}"
    before, after = ("none" if value in {"", None} else value for value in (old, new))
    return f"{name}: {before} became {after}"


def _turned(old: str, new: str) -> bool:
    left, _, right = old.partition(" - ")
    return bool(right) and new == f"{right} - {left}"


_SECTION = """`experiments/claims.lock` holds, for each claim, what was first written down and every change since: arms
and direction, level, margin, whether it needs three networks, its family for Holm's correction, whether it counts as a
claim of the paper; the same for the commands of the runs and for the rules of verdicts. A test, and the command that
writes this page, refuse any change that is not listed there. "Figure known": records or tables of the claim's runs were
committed before: of all runs (yes), of all but with few episodes, of some (in part), of none. Figures that somebody had
seen and not committed do not count here."""

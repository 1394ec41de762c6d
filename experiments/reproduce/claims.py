"""What is claimed, and which runs judge it: ``claims.toml``, read and checked."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from otfew.errors import UserError
from otfew.experiments.commands import COMMANDS
from otfew.experiments.reproduce.answers import COMMANDS as MEASURING
from otfew.experiments.reproduce.config import CLAIMS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SHARED = ("delta", "on", "reruns", "training", "ours", "unit", "budget")
"""What a table may say once for its claims."""


PLACE = r"\{([\w-]+)\}"
"""A claim's figure and verdict in a line or row of the summary."""


@dataclass(frozen=True)
class Run:
    """A command with its arguments.

    Attributes:
        name: Unique; of its folder and of its file of results.
        command: Key of ``otfew --help``.
        arguments: Without those that say where things lie.
        quick: Options that replace those of ``arguments`` in the quick suite; None leaves the run out of it.
    """

    name: str
    command: str
    arguments: tuple[str, ...]
    quick: tuple[str, ...] | None

    def spelled(self, quick: bool) -> tuple[str, ...]:
        """Return the arguments of a suite: an option of ``quick`` goes before the same option of ``arguments``."""
        if not quick:
            return self.arguments
        replaced = _options(self.arguments) | _options(self.quick or ())
        return tuple(word for option, values in replaced.items() for word in (option, *values))


@dataclass(frozen=True)
class Training:
    """How a checkpoint is made that a run needs and that is not there.

    Attributes:
        name: Of the checkpoint.
        command: pretrain, metatrain or metric-learning, which names its checkpoints itself.
        arguments: Without ``--name`` and ``--output``.
    """

    name: str
    command: str
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class Spent:
    """What a paper spent on the figures of a table; None, or empty, where it does not say or where it is of no matter.

    Attributes:
        network: Key of an architecture, without its width.
        width: Share of the full width.
        epochs: Of training, before any meta-training.
        meta_episodes: Of meta-training.
        images: Training images.
        resolution: Side in pixels.
        data: Names of the data sets that were tested on; one of them will do.
        learned: Names of those that were learned from, where these are not the same.
    """

    network: str = ""
    width: float | None = None
    epochs: int | None = None
    meta_episodes: int | None = None
    images: int | None = None
    resolution: int | None = None
    data: tuple[str, ...] = ()
    learned: tuple[str, ...] = ()


@dataclass(frozen=True)
class Arm:
    """One side of a difference.

    Attributes:
        run: Name of a run.
        key: Name of the arm there, behind its panel where the run has several.
    """

    run: str
    key: str


@dataclass(frozen=True)
class Claim:
    """A statement of a paper about the difference of two arms, or about the level of one.

    Attributes:
        id: Unique.
        table: Whose family it belongs to.
        says: The statement.
        data: On what it is tested here.
        left: One arm for each seed; empty where the claim can't be tested.
        right: As many, or none where ``level`` is given.
        level: In per cent; the statement is that left reaches it.
        delta: Points that would not matter.
        measure: Of several that a run holds, or "".
        paper: The published figures of left and right.
        on: What those were measured on.
        reruns: What others measured.
        untestable: Why it can't be tested here, or "".
        training: It is about a way of training: fewer than three networks or seeds can't judge it.
        ours: A question of ours, not a claim of the paper.
        unit: Of its figures.
        budget: Name of what the paper spent on it, or "".
    """

    id: str
    table: str
    says: str
    data: str = ""
    left: tuple[Arm, ...] = ()
    right: tuple[Arm, ...] = ()
    level: float | None = None
    delta: float = 0.0
    measure: str = ""
    paper: tuple[float, ...] = ()
    on: str = ""
    reruns: str = ""
    untestable: str = ""
    training: bool = False
    ours: bool = False
    unit: str = "points"
    budget: str = ""

    @property
    def arms(self) -> str:
        """Spell both sides: figures of other arms are not this claim's."""
        sides = [" + ".join(f"{arm.run} / {arm.key}" for arm in side) for side in (self.left, self.right)]
        return " - ".join(side for side in sides if side) + (f", {self.measure}" if self.measure else "")

    @property
    def reference(self) -> float:
        """What its figure is shown relative to: a level in points; ratios and differences are shown as they are."""
        return self.level if self.level is not None and self.unit == "points" else 0.0

    @property
    def runs(self) -> tuple[str, ...]:
        """Names of the runs that it rests on."""
        return tuple(dict.fromkeys(arm.run for arm in (*self.left, *self.right)))

    def first(self, networks: int) -> Claim:
        """Cut it to the first of its networks: what a figure of so many is about."""
        return replace(self, left=self.left[:networks], right=self.right[:networks])


@dataclass(frozen=True)
class Elsewhere:
    """A row of a table that no run of the suites measured: the question with another network or size.

    Attributes:
        says: The question.
        data: On what.
        left: Level of the first arm, as it stands on the page.
        right: Of the second.
        page: Of the folder docs, where these stand beside their command.
        difference: As it stands on the page, left - right, or "" where it holds the levels only.
    """

    says: str
    data: str
    left: str
    right: str
    page: str
    difference: str = ""


@dataclass(frozen=True)
class Answer:
    """A row of the README.

    Attributes:
        question: That a user asks.
        command: Behind ``python -m experiments.``.
        finding: In which {ID} stands for a claim's figure and verdict.
        budget: With which it was found.
    """

    question: str
    command: str
    finding: str
    budget: str


@dataclass(frozen=True)
class Ledger:
    """All of ``claims.toml``.

    Attributes:
        runs: By name.
        trainings: By name of the checkpoint.
        claims: By id, in order.
        sources: Table -> paper.
        elsewhere: Table -> its rows from other pages.
        summary: Lines of the page, in which {ID} stands for a claim's figure and verdict.
        answers: Rows of the README.
        budgets: Name -> what a paper spent.
        notes: Table -> a sentence above its rows, where it has one.
    """

    runs: Mapping[str, Run]
    trainings: Mapping[str, Training]
    claims: Mapping[str, Claim]
    sources: Mapping[str, str]
    elsewhere: Mapping[str, tuple[Elsewhere, ...]]
    summary: tuple[str, ...]
    answers: tuple[Answer, ...]
    budgets: Mapping[str, Spent] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)

    def tables(self) -> Iterator[tuple[str, list[Claim]]]:
        """Go through the tables with their claims."""
        for table in self.sources:
            yield table, [claim for claim in self.claims.values() if claim.table == table]


def load(path: Path = CLAIMS) -> Ledger:
    """Read and check a file of claims.

    Raises:
        UserError: It is not there, not TOML, or says something that makes no sense.
    """
    try:
        text = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"--claims {path} can't be read: {error}.") from None
    try:
        return _ledger(text)
    except KeyError as error:
        raise UserError(f"--claims {path} lacks {error}.") from None
    except (TypeError, ValueError) as error:
        raise UserError(f"--claims {path}: {error}.") from None


def _ledger(text: Mapping[str, Any]) -> Ledger:
    runs: dict[str, Run] = {}
    seeds: dict[str, int] = {}
    for entry in text["run"]:
        _known(entry, {"name", "command", "arguments", "quick", "seeds"})
        seeds[entry["name"]] = len(entry.get("seeds", ())) or 1
        for seed, backbone in enumerate(entry.get("seeds", [""]), start=1):
            run = Run(
                _filled(entry["name"], seed),
                entry["command"],
                tuple(_filled(word, seed).replace("{backbone}", backbone) for word in entry["arguments"]),
                None if "quick" not in entry else tuple(entry["quick"]),
            )
            if run.name in runs or run.command not in COMMANDS:
                raise ValueError(f"run {run.name!r} is there twice, or has no command of otfew")
            if run.command not in MEASURING:
                # Said only after the run, it would be a traceback.
                raise ValueError(f"run {run.name!r}: {run.command} measures nothing that a claim could rest on")
            runs[run.name] = run
    trainings = {e["name"]: Training(e["name"], e["command"], tuple(e["arguments"])) for e in text.get("training", ())}
    budgets = {e["name"]: _spent(e) for e in text.get("budget", ())}
    claims: dict[str, Claim] = {}
    sources: dict[str, str] = {}
    for table in text["table"]:
        _known(table, {"name", "source", "claims", "elsewhere", "note", *SHARED})
        sources[table["name"]] = table["source"]
        shared = {key: table[key] for key in SHARED if key in table}
        for entry in table["claims"]:
            claim = _claim({**shared, **entry}, table["name"], seeds)
            missing = set(claim.runs) - runs.keys()
            if claim.id in claims or missing or not (claim.left or claim.untestable):
                raise ValueError(f"claim {claim.id!r} is there twice, has no arms, or unknown runs: {sorted(missing)}")
            if claim.budget and claim.budget not in budgets:
                raise ValueError(f"claim {claim.id!r} names an unknown budget: {claim.budget!r}")
            claims[claim.id] = claim
    elsewhere = {
        table["name"]: tuple(Elsewhere(**row) for row in table.get("elsewhere", ())) for table in text["table"]
    }
    summary = tuple(text.get("summary", {}).get("lines", ()))
    answers = tuple(Answer(*row) for row in text.get("summary", {}).get("rows", ()))
    said = "".join([*summary, *(answer.finding for answer in answers)])
    if unknown := set(re.findall(PLACE, said)) - claims.keys():
        raise ValueError(f"the summary names unknown claims: {sorted(unknown)}")
    notes = {table["name"]: table["note"] for table in text["table"] if "note" in table}
    return Ledger(runs, trainings, claims, sources, elsewhere, summary, answers, budgets, notes)


def _spent(entry: Mapping[str, Any]) -> Spent:
    plain: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in entry.items() if key != "name"}
    return Spent(**plain)


def _claim(entry: Mapping[str, Any], table: str, seeds: Mapping[str, int]) -> Claim:
    sides = {side: _arms(entry[side], seeds) for side in ("left", "right") if side in entry}
    lengths = {len(arms) for arms in sides.values()}
    if len(lengths) > 1 or ("left" in sides and ("right" in sides) == ("level" in entry)):
        raise ValueError(f"claim {entry['id']!r} must have as many arms on both sides, or a level")
    plain = {key: value for key, value in entry.items() if key not in {"left", "right", "paper"}}
    left, right = sides.get("left", ()), sides.get("right", ())
    return Claim(table=table, paper=tuple(entry.get("paper", ())), left=left, right=right, **plain)


def _arms(written: str, seeds: Mapping[str, int]) -> tuple[Arm, ...]:
    """Read "RUN / ARM" or "RUN / PANEL / ARM", once for each seed where it holds {seed}."""
    run, _, key = written.partition(" / ")
    if not key:
        raise ValueError(f"arm {written!r} must be RUN / ARM or RUN / PANEL / ARM")
    return tuple(Arm(_filled(run, seed), key) for seed in range(1, (seeds.get(run, 0) if "{seed}" in run else 1) + 1))


def _filled(name: str, seed: int) -> str:
    return name.replace("{seed}", str(seed))


def _known(entry: Mapping[str, Any], keys: set[str]) -> None:
    if unknown := entry.keys() - keys:
        raise ValueError(f"{entry.get('name')!r} has unknown keys: {sorted(unknown)}")


def _options(words: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Group words by the option that they follow."""
    grouped: dict[str, tuple[str, ...]] = {}
    option = ""
    for word in words:
        if word.startswith("--"):
            option = word
            grouped[option] = ()
        else:
            grouped[option] = (*grouped[option], word)
    return grouped

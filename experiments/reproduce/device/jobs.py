"""The list of jobs: commands of this project, what they are worth, and what their time is made of."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from otfew.errors import UserError
from otfew.experiments.commands import COMMANDS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TRAININGS = ("pretrain", "metatrain")
"""Commands that are measured by what they would do themselves, and whose epochs are followed while they run."""
NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")
NEEDED, HERE = "{needs}", "{here}"
"""In arguments: the weights of the job that this one needs, and this job's own folder, beside what it writes."""
OUTPUT = "run"
"""Folder, in that of a job, of what its command writes: most commands want one of their own."""
_KEYS = {"name", "value", "command", "arguments", "needs", "steps", "images", "seconds", "step"}
_STEP_KEYS = {"network", "side", "batch"}


@dataclass(frozen=True)
class NetworkStep:
    """A step of softmax through a network: what steps of commands without a measurement of their own are taken for.

    Attributes:
        network: An architecture of ours.
        side: Of the images, in pixels.
        batch: Images.
    """

    network: str
    side: int
    batch: int


@dataclass(frozen=True)
class Job:
    """A command of otfew.

    Attributes:
        name: Unique; of its folder and, for trainings, of its checkpoint.
        value: What it is worth, beside the others.
        command: Key of ``otfew --help``.
        arguments: Without those that say where things lie and on what they run.
        needs: Name of the job whose weights it takes, or "".
        steps: Of an optimizer. Of trainings an estimate, which what their data hold replaces.
        images: That are read, and go once through the network of the job that it needs.
        seconds: What it takes beside all that.
        step: What its steps are measured by; None for trainings, and where there are none.
    """

    name: str
    value: float
    command: str
    arguments: tuple[str, ...]
    needs: str = ""
    steps: int = 0
    images: int = 0
    seconds: float = 0.0
    step: NetworkStep | None = None

    @property
    def trains(self) -> bool:
        """Whether it is a training whose epochs can be followed."""
        return self.command in TRAININGS

    def words(self, runs: Path) -> list[str]:
        """Spell its arguments.

        Args:
            runs: Folder of all jobs.
        """
        places = {NEEDED: str(weights(runs, self.needs)), HERE: str(runs / self.name)}
        words = [_filled(word, places) for word in self.arguments]
        if self.trains:
            words += ["--name", self.name]
        return [*words, "--output", str(runs / self.name / OUTPUT)]


@dataclass(frozen=True)
class Work:
    """What a job's time is made of.

    Attributes:
        steps: Of an optimizer.
        epochs: How often it validates.
        validated: Images that a validation takes.
        images: That are read.
        closings: Validations on the CPU, after the last epoch.
        seconds: Beside all that.
    """

    steps: float = 0.0
    epochs: float = 0.0
    validated: int = 0
    images: int = 0
    closings: int = 0
    seconds: float = 0.0

    def left(self, share: float) -> Work:
        """What is left of it where a share of steps and epochs is done."""
        return replace(self, steps=self.steps * (1 - share), epochs=self.epochs * (1 - share))


@dataclass(frozen=True)
class Rates:
    """What a machine takes for a job's kind of work, in seconds.

    Attributes:
        step: Of a step.
        warm: What the first steps take beside that.
        read: Of reading an image.
        validate: Of an image of a validation, episodes included.
        close: The same on the CPU.
    """

    step: float = 0.0
    warm: float = 0.0
    read: float = 0.0
    validate: float = 0.0
    close: float = 0.0

    def seconds(self, work: Work) -> float:
        """What a work takes, once its process has started."""
        return (
            self.warm
            + work.steps * self.step
            + work.images * self.read
            + work.epochs * work.validated * self.validate
            + work.closings * work.validated * self.close
            + work.seconds
        )


@dataclass(frozen=True)
class Measured:
    """What was found of a job.

    Attributes:
        rates: Of its kind of work.
        work: What it is made of.
        reason: Why it can't be done, or could not be measured; "" where there is no such.
    """

    rates: Rates = field(default_factory=Rates)
    work: Work = field(default_factory=Work)
    reason: str = ""


def weights(runs: Path, name: str) -> Path:
    """Say where a training leaves its weights."""
    return runs / name / OUTPUT / f"{name}.safetensors"


def load(path: Path) -> list[Job]:
    """Read and check a list of jobs.

    Raises:
        UserError: It is not there, not TOML, or says something that makes no sense.
    """
    try:
        text = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"`jobs` {path} can't be read: {error}.") from None
    jobs: dict[str, Job] = {}
    try:
        if set(text) != {"job"} or not isinstance(text["job"], list):
            raise ValueError("it must hold [[job]] tables and nothing else")
        for entry in text["job"]:
            job = _job(entry, jobs)
            jobs[job.name] = job
    except (KeyError, TypeError, ValueError) as error:
        said = f"a job lacks {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(f"`jobs` {path}: {said}.") from None
    return list(jobs.values())


def _job(entry: Mapping[str, Any], before: Mapping[str, Job]) -> Job:
    name = entry["name"]
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ValueError(f"job {name!r} must be named by small letters, digits, '-', '_' and '.'")
    if unknown := entry.keys() - _KEYS:
        raise ValueError(f"job {name!r} has unknown keys: {', '.join(sorted(unknown))}")
    if name in before:
        raise ValueError(f"job {name!r} is there twice")
    arguments = entry["arguments"]
    if not isinstance(arguments, list) or not all(isinstance(word, str) for word in arguments):
        raise ValueError(f"the arguments of job {name!r} must be strings")
    step = NetworkStep(**_table(name, entry["step"])) if "step" in entry else None
    numbers = {key: entry[key] for key in ("value", "steps", "images", "seconds") if key in entry}
    job = Job(
        name, command=entry["command"], arguments=tuple(arguments), needs=entry.get("needs", ""), step=step,
        **{"value": entry["value"], **numbers},
    )  # fmt: skip
    _check(job, numbers, before)
    return job


def _table(name: str, step: Any) -> dict[str, Any]:
    if not isinstance(step, dict) or step.keys() != _STEP_KEYS:
        raise ValueError(f"`step` of job {name!r} must hold {', '.join(sorted(_STEP_KEYS))}")
    return step


def _check(job: Job, numbers: Mapping[str, Any], before: Mapping[str, Job]) -> None:
    for key, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number < math.inf:
            raise ValueError(f"`{key}` of job {job.name!r} must be a number from 0 on, not {number!r}")
    if job.command not in COMMANDS or job.command == "reproduce":
        raise ValueError(f"job {job.name!r}: {job.command!r} is no command of otfew that a queue could run")
    if job.needs and job.needs not in before:
        raise ValueError(f"job {job.name!r} needs {job.needs!r}, which is not listed before it")
    if (NEEDED in " ".join(job.arguments)) != bool(job.needs):
        raise ValueError(f"job {job.name!r} must say {NEEDED} in its arguments if, and only if, it has `needs`")
    if job.needs and not before[job.needs].trains:
        raise ValueError(f"job {job.name!r} needs {job.needs!r}, which leaves no weights")
    if job.steps and not job.trains and job.step is None:
        raise ValueError(f"job {job.name!r} has steps, but no `step` that says how they are measured")


def _filled(word: str, places: Mapping[str, str]) -> str:
    for mark, path in places.items():
        word = word.replace(mark, path)
    return word


def chain(job: Job, jobs: Sequence[Job]) -> list[Job]:
    """Name a job and those that it needs, the first first."""
    by_name = {each.name: each for each in jobs}
    found = [job]
    while found[0].needs:
        found.insert(0, by_name[found[0].needs])
    return found

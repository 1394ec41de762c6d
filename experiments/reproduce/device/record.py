"""What a queue knows of each job: ``job.json`` in its folder, from which another call goes on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from otfew.errors import UserError
from otfew.experiments.reproduce.device import bring
from otfew.experiments.reproduce.device.jobs import OUTPUT, Job, Measured
from otfew.runs.directory import to_json
from otfew.runs.files import write_atomically

FILE = "job.json"
STATE = f"{OUTPUT}/{bring.STATE}"
DONE, FAILED, UNFINISHED, NEW = "done", "failed", "unfinished", "not begun"


@dataclass(frozen=True)
class State:
    """How far a job is.

    Attributes:
        state: DONE, FAILED, UNFINISHED or NEW.
        arguments: That it was begun with.
        reason: Why it failed.
        seconds: That it has taken, over all calls.
        epochs_done: Of a training.
        epochs: Of all.
        epoch_seconds: What one took, in the last call; 0 where that is not known.
    """

    state: str = NEW
    arguments: Sequence[str] = field(default=())
    reason: str = ""
    seconds: float = 0.0
    epochs_done: int = 0
    epochs: int = 0
    epoch_seconds: float = 0.0

    @property
    def share(self) -> float:
        """How much of it is done, as far as its epochs tell."""
        if self.state == DONE:
            return 1.0
        return self.epochs_done / self.epochs if self.epochs else 0.0

    def write(self, folder: Path) -> None:
        """Keep it."""
        plain = {**asdict(self), "arguments": list(self.arguments), "seconds": round(self.seconds, 1)}
        write_atomically(folder / FILE, to_json({"format": 1, **plain}))


@dataclass
class Entry:
    """What this call knows of a job.

    Attributes:
        job: Which.
        state: How far it is.
        before: Whether it was done before this call.
        measured: What it takes.
        said: Why it is not run, or what became of it, in a sentence.
        brought: Whether what it came to is in the archive.
        left_behind: Files that there was no room for.
    """

    job: Job
    state: State
    before: bool = False
    measured: Measured = field(default_factory=Measured)
    said: str = ""
    brought: bool = False
    left_behind: list[str] = field(default_factory=list)

    @property
    def open(self) -> bool:
        """Whether it may still be run in this call."""
        return self.state.state in {NEW, UNFINISHED} and not self.said


def read(folder: Path) -> State:
    """Read how far a job is; of a folder that is not there, that it is not begun.

    Raises:
        UserError: It can't be read.
    """
    path = folder / FILE
    try:
        return _parsed(path.read_bytes())
    except FileNotFoundError:
        return State()
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} can't be read ({error}): remove {folder} to begin that job again.") from None


def _parsed(data: bytes) -> State:
    content = json.loads(data)
    if not isinstance(content, dict) or content.pop("format", None) != 1:
        raise ValueError("it is no record of this version")
    return State(**{**content, "arguments": tuple(content["arguments"])})


def check(job: Job, state: State, folder: Path) -> State:
    """Refuse what was begun with other arguments.

    Raises:
        UserError: It was.
    """
    if state.state != NEW and tuple(state.arguments) != job.arguments:
        raise UserError(f"{folder} was begun with other arguments than job {job.name!r} has: give other `runs`.")
    return state


def restore(brought: Path, runs: Path) -> list[str]:
    """Unpack what an earlier call has brought back, but for jobs that are further here.

    Args:
        brought: Folder of the archives.
        runs: Folder of all jobs.

    Returns:
        Names of the jobs that were unpacked.

    Raises:
        UserError: There is no such archive, or it is damaged.
    """
    if not bring.pieces(brought, bring.RESULTS) and not bring.pieces(brought, bring.STATES):
        raise UserError(f"`brought` {brought} holds no results of a queue.")
    jobs: dict[str, dict[str, bytes]] = {}
    for name in (bring.STATES, bring.RESULTS):
        for path, content in bring.contents(brought, name):
            job, _, inside = path.partition("/")
            jobs.setdefault(job, {})[inside] = content
    taken = []
    for job, files in jobs.items():
        here, there = read(runs / job), _parsed(files[FILE]) if FILE in files else State()
        if here.state == DONE or (here.state != NEW and here.share >= there.share and there.state != DONE):
            continue
        # Of a run that has not ended, commands would refuse what it left beside its state.
        wanted = files.keys() - {FILE, STATE} if there.state == DONE else files.keys() & {STATE}
        for inside in sorted(wanted):
            write_atomically(runs / job / inside, files[inside])
        # Last: a job is said to be there once it is.
        there.write(runs / job)
        taken.append(job)
    return taken

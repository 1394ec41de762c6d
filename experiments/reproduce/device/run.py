"""A call of the queue: measure, pack, run job after job, and bring back what each came to as soon as it has ended."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from otfew.errors import UserError
from otfew.experiments.reproduce.config import Config
from otfew.experiments.reproduce.device import bring, measure, record, report
from otfew.experiments.reproduce.device.jobs import OUTPUT, Job, chain, load
from otfew.experiments.reproduce.device.options import DeviceOptions
from otfew.experiments.reproduce.device.plan import pack
from otfew.experiments.reproduce.device.record import DONE, FAILED, UNFINISHED, Entry, State
from otfew.experiments.reproduce.device.worker import Worker
from otfew.experiments.reproduce.process import TERMINATED
from otfew.reporting.tables import terminal
from otfew.runs.directory import to_json
from otfew.runs.files import locked, write_atomically

if TYPE_CHECKING:
    from rich.console import Console

RESERVE, MOST_RESERVE = 0.05, 20.0
"""Share of the time, and most seconds, that are kept for stopping, writing and transfer."""
MEASURING = 0.15
"""Share of the time that measuring may take."""
SLACK = 1.1
"""What a job is expected to take, beside what its measured steps add up to."""
TELL = 20.0
"""Seconds between lines about a job that runs."""
AGAIN = 2
"""Epochs from which a training is judged by what it takes, and no longer by what was measured before."""


def run(config: Config, console: Console) -> bool:
    """Do a call of the queue.

    Args:
        config: The command line.
        console: Where progress and the table go.

    Returns:
        Whether no job failed.

    Raises:
        UserError: An option is out of range, the list of jobs makes no sense, the folder is in use or holds jobs with
            other arguments, or what is to be gone on from is damaged.
        SystemExit: With ``TERMINATED``, after SIGTERM, once all is written.
    """
    began = time.monotonic()
    options = config.device
    seconds = _checked(options)
    jobs = load(options.jobs)
    runs = config.runs or Path("runs") / "reproduce-device"

    def in_use() -> None:
        raise UserError(f"`runs` {runs} is used by another queue: wait for its end, or give another folder.")

    runs.mkdir(parents=True, exist_ok=True)
    with locked(runs / "queue.lock", in_use), _terminations() as told:
        for brought in options.brought:
            record.restore(brought, runs)
        queue = Queue(config, jobs, runs, began, seconds, console, told)
        queue.measure()
        queue.show_plan()
        if options.dry_run:
            return True
        try:
            queue.work()
        finally:
            queue.end()
    if told:
        raise SystemExit(TERMINATED)
    return not any(entry.state.state == FAILED for entry in queue.entries.values())


class Queue:
    """One call.

    Args:
        config: The command line.
        jobs: The list.
        runs: Folder of all jobs.
        began: When the call began.
        seconds: That it may take.
        console: Where progress goes.
        told: Not empty once SIGTERM has come.

    Attributes:
        entries: Name -> what is known of a job, in the order of the list.
        found: What was measured.
        until: When the last process must have ended.
    """

    def __init__(
        self,
        config: Config,
        jobs: Sequence[Job],
        runs: Path,
        began: float,
        seconds: float,
        console: Console,
        told: list[int],
    ) -> None:
        self.config, self.options, self.jobs, self.runs, self.told = config, config.device, jobs, runs, told
        self.began, self.seconds, self._console = began, seconds, console
        self.reserve = min(MOST_RESERVE, RESERVE * seconds)
        self.until = began + seconds - self.reserve
        self.later = 60 * self.options.later_minutes
        self.entries: dict[str, Entry] = {}
        for job in jobs:
            state = record.check(job, record.read(runs / job.name), runs / job.name)
            # What failed in another call may do better in this one.
            state = replace(state, state=UNFINISHED, reason="") if state.state == FAILED else state
            self.entries[job.name] = Entry(job, state, before=state.state == DONE)
        self.found = measure.Found()
        self.output = self.options.output or runs / "back"
        most, piece = (round(mb * bring.MB) for mb in (self.options.max_mb, self.options.piece_mb))
        if not self.options.dry_run:
            self.output.mkdir(parents=True, exist_ok=True)
            self._take_stock()
        self.results = bring.Archive(self.output, bring.RESULTS, most, piece)
        self._piece = piece

    def _take_stock(self) -> None:
        """See what an earlier call has brought back into the same folder."""
        for path in bring.pieces(self.output, bring.STATES):
            path.unlink()  # what is still unfinished at the end is written anew
        try:
            records = dict(bring.contents(self.output, bring.RESULTS))
        except UserError:
            raise UserError(f"`output` {self.output} holds an archive that is damaged: give another folder.") from None
        for entry in self.entries.values():
            kept = records.get(f"{entry.job.name}/{record.FILE}")
            entry.brought = entry.before and kept == (self.runs / entry.job.name / record.FILE).read_bytes()

    def say(self, text: str) -> None:
        """Print a line."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def measure(self) -> None:
        """Measure what is not done."""
        wanted = {
            each.name
            for entry in self.entries.values()
            if entry.open
            for each in ([entry.job] if entry.job.trains or entry.job.step else chain(entry.job, self.jobs)[-2:])
        }
        asked = [job for job in self.jobs if job.name in wanted]
        began = time.monotonic()
        words = self._places()
        self.found = measure.measure(asked, self.runs, words, self.options.accelerator, MEASURING * self.seconds)
        if asked:
            self.say(f"measured in {time.monotonic() - began:.0f} s: {report.machine(self.found.machine)}")
        if not self.options.dry_run:
            measure.keep(self.found, self.runs, self.jobs, words, self.options.accelerator)
        for entry in self.entries.values():
            entry.measured = measure.rates_of(entry.job, self.jobs, self.found)
            if entry.open and entry.measured.reason:
                entry.said = f"left out: {entry.measured.reason}"

    def estimate(self, entry: Entry, running: bool = False) -> float:
        """Say how many seconds a job still takes, with some to spare.

        Args:
            entry: Of the job.
            running: It has started, and has read its images.
        """
        if entry.state.state == DONE or entry.measured.reason:
            return 0.0
        left, rates, start = entry.measured.work.left(entry.state.share), entry.measured.rates, self.found.start
        if running:
            left, rates, start = replace(left, images=0), replace(rates, warm=0.0), 0.0
        seconds = rates.seconds(left)
        if entry.state.epoch_seconds:
            # What its epochs took goes before what was measured on a few images.
            epochs = entry.state.epochs - entry.state.epochs_done
            seconds = rates.seconds(replace(left, steps=0, epochs=0)) + entry.state.epoch_seconds * epochs
        return SLACK * (start + seconds)

    def plan(self, without: str = "") -> list[Job]:
        """Pack what is open into the time that is left.

        Args:
            without: Name of a job that is not to be in it, nor those that need it.
        """
        open_ = [
            job
            for job in self.jobs
            if self.entries[job.name].open
            and all(self._can_be_had(each.name) and each.name != without for each in chain(job, self.jobs))
        ]
        estimates = {job.name: self.estimate(self.entries[job.name]) for job in open_}
        return pack(open_, estimates, self.until + self.later - time.monotonic())

    def _can_be_had(self, name: str) -> bool:
        entry = self.entries[name]
        return entry.open or entry.state.state == DONE

    def show_plan(self) -> None:
        """Print what will be done, and what not."""
        planned = {job.name for job in self.plan()}
        rows = []
        for entry in self.entries.values():
            seconds = self.estimate(entry)
            fate = "planned" if entry.job.name in planned else self._fate(entry)
            rows.append((entry.job.name, entry.job.value, seconds, fate))
        later = f" and {self.later / 60:g} of later calls" if self.later else ""
        title = f"plan for {self.seconds / 60:g} minutes{later}, {self.reserve:.0f} s of them kept for the end"
        self._console.print(terminal(report.plan(title, rows)))

    def _fate(self, entry: Entry) -> str:
        """Say why a job is not planned."""
        if entry.state.state == DONE:
            return "done before" if entry.before else DONE
        if entry.said:
            return entry.said
        missing = next((each for each in chain(entry.job, self.jobs)[:-1] if not self._can_be_had(each.name)), None)
        if missing is not None:
            why = "failed" if self.entries[missing.name].state.state == FAILED else "is left out"
            return f"left out: it needs {missing.name}, which {why}"
        whole = sum(self.estimate(self.entries[each.name]) for each in chain(entry.job, self.jobs))
        with_needs = " with what it needs" if entry.job.needs and whole > self.estimate(entry) else ""
        return f"dropped: it would take {report.minutes(whole)}{with_needs}"

    def work(self) -> None:
        """Run jobs until nothing more can end; the plan is made anew after each."""
        # With later calls to come there is a plan when the time of this one is over, too.
        while not self.told and time.monotonic() + self.found.start < self.until and (plan := self.plan()):
            self._do(self.entries[plan[0].name])

    def _do(self, entry: Entry) -> None:
        """Run a job, and bring back what it came to."""
        job, folder = entry.job, self.runs / entry.job.name
        began = time.monotonic()
        self.say(f"{job.name}: begins, about {report.minutes(self.estimate(entry))}")
        old = entry.state
        entry.state = replace(old, state=UNFINISHED, arguments=job.arguments)
        entry.state.write(folder)
        worker = Worker([job.command, *job.words(self.runs), *self._options(job)], folder)
        try:
            stopped = self._follow(entry, worker, began, old)
        except KeyboardInterrupt:
            worker.stop(0.6 * self.reserve)
            raise
        finally:
            worker.close()
            entry.state = replace(entry.state, seconds=old.seconds + time.monotonic() - began)
            entry.state.write(folder)
        if stopped:
            entry.said = stopped
        elif reason := worker.failure():
            entry.state = replace(entry.state, state=FAILED, reason=reason)
            entry.said = f"failed: {reason}"
        else:
            entry.state = replace(entry.state, state=DONE)
            entry.said = DONE
        entry.state.write(folder)
        self.say(f"{job.name}: {entry.said}, {report.minutes(entry.state.seconds - old.seconds)}")
        if not stopped:
            self._bring(entry)
        self.write()

    def _follow(self, entry: Entry, worker: Worker, began: float, old: State) -> str:
        """Wait for a job; returns why it was stopped, or ""."""
        told, judged = time.monotonic(), 0
        while self._goes_on(entry, worker, old):
            now = time.monotonic()
            if self.told or now > self.until:
                worker.stop(0.6 * self.reserve)
                return "stopped: this queue was told to end" if self.told else self._unfinished(entry)
            if len(worker.ends) > max(AGAIN, judged):
                judged = len(worker.ends)
                entry.state.write(self.runs / entry.job.name)
                late = self.estimate(entry, running=True) / SLACK > self.until + self.later - now
                if late and self.plan(without=entry.job.name):
                    worker.stop(0.6 * self.reserve)
                    return self._unfinished(entry)
            if now - told > TELL:
                told = now
                epochs = f"epoch {worker.epochs_done} of {worker.epochs}, " if worker.epochs else ""
                left = report.minutes(self.until - now)
                self.say(f"  {entry.job.name}: {epochs}{report.minutes(now - began)} so far, {left} of this call left")
        return ""

    def _goes_on(self, entry: Entry, worker: Worker, old: State) -> bool:
        """Wait a little, and take note of the epochs that a job has told of."""
        goes_on = worker.goes_on()
        if worker.epochs:
            entry.state = replace(
                entry.state,
                epochs_done=max(old.epochs_done, worker.epochs_done),
                epochs=worker.epochs,
                epoch_seconds=worker.epoch_seconds or old.epoch_seconds,
            )
        return goes_on

    def _unfinished(self, entry: Entry) -> str:
        left = report.minutes(self.estimate(entry))
        epochs = f" after {entry.state.epochs_done} of {entry.state.epochs} epochs" if entry.state.epochs else ""
        return f"stopped{epochs}: it would take {left} more, and goes on with the same --runs"

    def end(self) -> None:
        """Bring back what else there is room for, and show what became of everything."""
        for entry in self.entries.values():
            if entry.state.state == DONE and not entry.brought:
                self._bring(entry)
        states = bring.Archive(self.output, bring.STATES, self.results.room, self._piece)
        for entry in self.entries.values():
            folder = self.runs / entry.job.name
            state = folder / OUTPUT / bring.STATE
            if entry.state.state == UNFINISHED and state.is_file():
                entry.left_behind = bring.bring(folder, [state, folder / record.FILE], states)
                entry.brought = not entry.left_behind
        for entry in self.entries.values():
            entry.said = self._fate(entry) if entry.open or entry.before else entry.said
        self.write([*self.results.files, *states.files])
        self._console.print(terminal(report.outcome(list(self.entries.values()))))
        for line in report.left_behind(list(self.entries.values()), self.options.max_mb):
            self.say(line)
        self.say(f"brought back: {self.output} ({(self.results.bytes + states.bytes) / bring.MB:.2f} MB)")

    def _bring(self, entry: Entry) -> None:
        folder = self.runs / entry.job.name
        files = bring.records(folder)
        entry.left_behind = bring.bring(folder, files, self.results)
        entry.brought = True

    def write(self, files: Sequence[str] | None = None) -> None:
        """Write queue.json, here and where it is brought back."""
        shown = self.results.files if files is None else files
        left = {name: self.estimate(entry) for name, entry in self.entries.items()}
        call = {"reserve_seconds": round(self.reserve, 1), "files": list(shown)}
        content = report.content(self.options, call, self.found, list(self.entries.values()), left)
        for folder in (self.output, self.runs):
            write_atomically(folder / report.FILE, to_json(content))

    def _places(self) -> list[str]:
        """Say where data are, in words for every command."""
        words = [] if self.config.data_root is None else ["--data-root", str(self.config.data_root)]
        return [*words, "--no-download"] if self.config.download is not True else [*words, "--download"]

    def _options(self, job: Job) -> list[str]:
        """Say where data are and what a job runs on."""
        device = {"gpu": "cuda"}.get(self.options.accelerator, self.options.accelerator)
        return [*self._places(), "--device", device, "--threads", str(self.config.threads)]


def _checked(options: DeviceOptions) -> float:
    """Return the seconds of a call; raises ``UserError`` where an option is out of range."""
    if options.minutes is None:
        raise UserError("`suite` device wants `minutes`: how long the machine is there.")
    for name in ("minutes", "max_mb", "piece_mb"):
        if not 0 < (value := getattr(options, name)) < math.inf:
            raise UserError(f"`{name}` must be positive, not {value}.")
    if not 0 <= options.later_minutes < math.inf:
        raise UserError(f"`later_minutes` must be at least 0, not {options.later_minutes}.")
    return 60 * options.minutes


@contextlib.contextmanager
def _terminations() -> Iterator[list[int]]:
    """Take note of SIGTERM; yields a list that is not empty from then on."""
    told: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # Python lets no other thread listen
        yield told
        return
    before = signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
    try:
        yield told
    finally:
        signal.signal(signal.SIGTERM, before)

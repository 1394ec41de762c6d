"""What jobs take on this machine: measured by a process of its own, and kept for the next call."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from otfew.experiments.reproduce.device.jobs import Job, Measured, Rates, Work, chain, weights
from otfew.runs.directory import to_json
from otfew.runs.files import write_atomically

FILE = "rates.json"
PROBE = "otfew.experiments.reproduce.device.probe"
NOT_REACHED = "its steps were not measured: the time for that was over"


@dataclass
class Found:
    """What was found.

    Attributes:
        machine: What it is; nothing where nobody said.
        start: Seconds that a process takes to begin.
        jobs: Name -> of those that were measured.
        last_words: Of the process, where it did not come to its end.
    """

    machine: dict[str, Any] = field(default_factory=dict)
    start: float = 0.0
    jobs: dict[str, Measured] = field(default_factory=dict)
    last_words: str = ""


def measure(jobs: Sequence[Job], runs: Path, options: Sequence[str], accelerator: str, seconds: float) -> Found:
    """Measure jobs, the first first, as far as the time allows.

    Args:
        jobs: All of the list that are not done, and those that these need.
        runs: Folder of all jobs, where what was measured is kept.
        options: For every command: where the data are.
        accelerator: What networks run on.
        seconds: That it may take.
    """
    key = {"accelerator": accelerator, "options": list(options)}
    found = _kept(runs / FILE, key, jobs)
    requests = [_request(job, jobs, runs, options) for job in jobs if _measurable(job) and job.name not in found.jobs]
    if requests:
        for line in _answers({"accelerator": accelerator, "requests": requests}, seconds, found):
            found.jobs[line.pop("name")] = _measured(line)
    for request in requests:
        found.jobs.setdefault(str(request["name"]), Measured(reason=found.last_words or NOT_REACHED))
    return found


def keep(found: Found, runs: Path, jobs: Sequence[Job], options: Sequence[str], accelerator: str) -> None:
    """Keep what was measured for the next call on this machine."""
    content = {
        "accelerator": accelerator,
        "options": list(options),
        "machine": found.machine,
        "start": found.start,
        "jobs": {
            job.name: {"arguments": list(job.arguments), **asdict(found.jobs[job.name])}
            for job in jobs
            if job.name in found.jobs and not found.jobs[job.name].reason
        },
    }
    write_atomically(runs / FILE, to_json(content))


def rates_of(job: Job, jobs: Sequence[Job], found: Found) -> Measured:
    """Put together what is known of a job.

    One that trains nothing takes the rates of the network that it needs, and what the list says of its work.
    """
    if _measurable(job):
        own = found.jobs.get(job.name, Measured(reason=NOT_REACHED))
        if job.trains or own.reason:
            return own
        return Measured(own.rates, Work(steps=job.steps, images=job.images, seconds=job.seconds))
    if not job.needs:
        return Measured(work=Work(seconds=job.seconds))
    needed = found.jobs.get(chain(job, jobs)[-2].name, Measured(reason=NOT_REACHED))
    if needed.reason:
        return Measured(reason=needed.reason)
    rates = Rates(read=needed.rates.read, validate=needed.rates.validate)
    return Measured(rates, Work(images=job.images, epochs=1, validated=job.images, seconds=job.seconds))


def _measurable(job: Job) -> bool:
    return job.trains or job.step is not None


def _kept(path: Path, key: Mapping[str, Any], jobs: Sequence[Job]) -> Found:
    """Read what an earlier call has measured; nothing where it is not to be used."""
    found = Found()
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        content = json.loads(path.read_bytes())
        if all(content[name] == value for name, value in key.items()):
            kept = content["jobs"]
            for job in jobs:
                if job.name in kept and kept[job.name].pop("arguments") == list(job.arguments):
                    found.jobs[job.name] = _measured(kept[job.name])
            found.machine, found.start = content["machine"], content["start"]
    return found


def _request(job: Job, jobs: Sequence[Job], runs: Path, options: Sequence[str]) -> dict[str, Any]:
    """Say what the process is to measure."""
    if not job.trains:
        assert job.step is not None  # it could not be measured otherwise
        return {"name": job.name, "command": job.command, "arguments": [], "step": asdict(job.step)}
    arguments, start = list(job.arguments), []
    if job.needs:
        there = weights(runs, job.needs)
        if there.is_file():
            arguments = [word.replace("{needs}", str(there)) for word in arguments]
        else:
            start = [*chain(job, jobs)[0].arguments, *options]
    return {"name": job.name, "command": job.command, "arguments": [*arguments, *options], "start": start}


def _measured(line: Mapping[str, Any]) -> Measured:
    return Measured(Rates(**line["rates"]), Work(**line["work"]), line["reason"])


def _answers(task: Mapping[str, Any], seconds: float, found: Found) -> Iterator[dict[str, Any]]:
    """Start the process, and yield what it says of jobs until it ends or its time is over."""
    began = time.monotonic()
    words = [sys.executable, "-m", PROBE]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdin is not None  # they are pipes
        assert child.stdout is not None
        assert child.stderr is not None
        said: list[str] = []
        listening = threading.Thread(target=_remember, args=(child.stderr, said), daemon=True)
        listening.start()
        over = threading.Timer(seconds, child.kill)
        over.start()
        try:
            with contextlib.suppress(BrokenPipeError):
                child.stdin.write(json.dumps(task).encode())
                child.stdin.close()
            for text in child.stdout:
                with contextlib.suppress(ValueError):
                    line = json.loads(text)
                    if "machine" in line:
                        found.machine, found.start = line["machine"], time.monotonic() - began
                    else:
                        yield line
        finally:
            over.cancel()
            child.kill()
        code = child.wait()
        listening.join()
    if code > 0:
        why = said[-1] if said else "it said nothing"
        found.last_words = f"its steps were not measured: the measuring ended with exit code {code} ({why})"


def _remember(stream: IO[bytes], said: list[str]) -> None:
    for line in stream:
        if text := line.decode("utf-8", errors="replace").strip():
            said[:] = [text]

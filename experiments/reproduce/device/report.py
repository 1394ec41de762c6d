"""What a queue shows and writes: its plan, what became of every job, and queue.json."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otfew.reporting.tables import Table
from otfew.runs.directory import to_json
from otfew.runs.files import write_atomically

if TYPE_CHECKING:
    from otfew.experiments.reproduce.device.run import Entry, Queue

FILE = "queue.json"


def minutes(seconds: float) -> str:
    """Write a time.

    Example:
        >>> minutes(42.4), minutes(90), minutes(7200)
        ('42 s', '1.5 min', '120 min')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 60:.0f} min"


def machine(found: Mapping[str, Any]) -> str:
    """Name what was measured on."""
    if not found:
        return "nothing was said of this machine"
    return f"{found['card']['name']}, {found['host']['cores']} cores, torch {found['versions'].get('torch', '?')}"


def plan(title: str, rows: Iterable[tuple[str, float, float, str]]) -> Table:
    """Show a plan: name, value, seconds and fate of each job."""
    body = [[name, f"{value:g}", minutes(seconds) if seconds else "", fate] for name, value, seconds, fate in rows]
    return Table(title, ("job", "value", "takes", ""), body)


def outcome(entries: Sequence[Entry]) -> Table:
    """Show what became of every job."""
    rows = []
    for entry in entries:
        epochs = f"{entry.state.epochs_done} of {entry.state.epochs}" if entry.state.epochs else ""
        took = minutes(entry.state.seconds) if entry.state.seconds else ""
        brought = "" if not entry.brought else "in part" if entry.left_behind else "yes"
        rows.append([entry.job.name, f"{entry.job.value:g}", took, epochs, brought, entry.said])
    return Table("what became of the jobs", ("job", "value", "took", "epochs", "brought back", ""), rows)


def left_behind(entries: Sequence[Entry], max_mb: float) -> list[str]:
    """Say which files there was no room for."""
    return [
        f"- {entry.job.name}: left behind, beyond --max-mb {max_mb:g}: {', '.join(entry.left_behind)}"
        for entry in entries
        if entry.left_behind
    ]


def write(queue: Queue, folders: Sequence[Path], files: Sequence[str]) -> None:
    """Write queue.json."""
    content = {
        "command": "reproduce --suite device",
        "format": 1,
        "minutes": queue.options.minutes,
        "later_minutes": queue.options.later_minutes,
        "accelerator": queue.options.accelerator,
        "reserve_seconds": round(queue.reserve, 1),
        "machine": queue.found.machine,
        "start_seconds": round(queue.found.start, 2),
        "jobs": [_job(queue, entry) for entry in queue.entries.values()],
        "files": list(files),
    }
    for folder in folders:
        write_atomically(folder / FILE, to_json(content))


def _job(queue: Queue, entry: Entry) -> dict[str, Any]:
    job, state = entry.job, entry.state
    return {
        "name": job.name,
        "command": job.command,
        "arguments": list(job.arguments),
        "value": job.value,
        "needs": job.needs,
        "state": state.state,
        "before": entry.before,
        "said": entry.said,
        "reason": state.reason,
        "seconds": round(state.seconds, 1),
        "seconds_left": round(queue.estimate(entry), 1),
        "epochs": state.epochs,
        "epochs_done": state.epochs_done,
        "epoch_seconds": round(state.epoch_seconds, 3),
        "rates": asdict(entry.measured.rates),
        "work": asdict(entry.measured.work),
        "brought": entry.brought,
        "left_behind": entry.left_behind,
    }

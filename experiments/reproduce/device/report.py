"""What a queue shows and writes: its plan, what became of every job, and queue.json."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from otfew.experiments.reproduce.device.measure import Found
from otfew.experiments.reproduce.device.options import DeviceOptions
from otfew.experiments.reproduce.device.record import Entry
from otfew.reporting.tables import Table

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


def content(
    options: DeviceOptions,
    call: Mapping[str, Any],
    found: Found,
    entries: Iterable[Entry],
    left: Mapping[str, float],
) -> dict[str, Any]:
    """Put queue.json together.

    Args:
        options: Of the call.
        call: What else is to be said of it.
        found: What was measured.
        entries: What is known of the jobs.
        left: Name -> seconds that a job still takes.
    """
    return {
        "command": "reproduce --suite device",
        "format": 1,
        "minutes": options.minutes,
        "later_minutes": options.later_minutes,
        "accelerator": options.accelerator,
        "machine": found.machine,
        "start_seconds": round(found.start, 2),
        **call,
        "jobs": [_job(entry, left[entry.job.name]) for entry in entries],
    }


def _job(entry: Entry, left: float) -> dict[str, Any]:
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
        "seconds_left": round(left, 1),
        "epochs": state.epochs,
        "epochs_done": state.epochs_done,
        "epoch_seconds": round(state.epoch_seconds, 3),
        "rates": asdict(entry.measured.rates),
        "work": asdict(entry.measured.work),
        "brought": entry.brought,
        "left_behind": entry.left_behind,
    }

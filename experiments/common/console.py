"""The console of a command."""

from __future__ import annotations

from rich.console import Console

from otfew.reporting.console import PlainConsole
from otfew.runs import processes


def make_console() -> Console:
    """Write to stdout, the main process alone; lines for files and pipes are wide enough for the tables."""
    if not processes.world().is_main:
        return PlainConsole(quiet=True, force_terminal=False)
    console = PlainConsole()
    return console if console.is_terminal else PlainConsole(width=max(120, console.width))

"""``--list``: the names that commands take."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from otfew import catalogue
from otfew.backbones import available
from otfew.data import DATASETS
from otfew.nodes import EXTRACTORS
from otfew.transport import solvers


def print_names(console: Console) -> None:
    """Print data sets, backbones, nodes, methods and solvers, with a line about each."""
    _print(console, "data sets", ((d.name, f"{d.summary}, {d.resolution} px") for d in DATASETS.values()))
    _print(console, "backbones", available())
    _print(console, "nodes", ((name, _first_line(make)) for name, make in EXTRACTORS.items()))
    _print(console, "methods with transport", _methods(catalogue.ot_methods()))
    _print(console, "baselines and controls", _methods(catalogue.baselines()))
    _print(console, "solvers", _solvers())


def _methods(table: Mapping[str, type]) -> Iterable[tuple[str, str]]:
    """Describe methods by the first lines of their docstrings."""
    return ((name, _first_line(method)) for name, method in sorted(table.items()))


def _first_line(documented: object) -> str:
    """Return the first line of a docstring."""
    return (documented.__doc__ or "").strip().partition("\n")[0]


def _print(console: Console, title: str, rows: Iterable[tuple[str, str]]) -> None:
    """Print one titled list."""
    table = Table(title=title, title_justify="left", show_header=False, box=None, padding=(0, 2))
    for row in rows:
        # Brackets, as in "otfew[pretrained]", are text here.
        table.add_row(*map(escape, row))
    console.print(table, "")


def _solvers() -> Iterable[tuple[str, str]]:
    """Describe the solvers."""
    for solver in solvers():
        missing = "" if solver["installed"] else "; not installed"
        yield (
            solver["name"],
            f"{solver['kind']}; gradients: {solver['gradients']}; on {', '.join(solver['devices'])}{missing}",
        )

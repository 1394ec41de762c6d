"""The names that commands take, with a line about each: what ``otfew list`` and ``compare --list`` print.

Nothing here imports what it lists.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from rich.console import Console

from otfew.backbones import available
from otfew.baselines import BASELINES
from otfew.data import DATASETS
from otfew.experiments.common import source
from otfew.methods import METHODS
from otfew.nodes import EXTRACTORS
from otfew.registry import Registry
from otfew.reporting import tables
from otfew.transport import registry
from otfew.transport.registry import SOLVERS

if TYPE_CHECKING:
    from otfew.data import Dataset

Rows = Iterable[tuple[str, str]]


def print_names(console: Console) -> None:
    """Print data sets, backbones, nodes, methods and solvers, with a line about each."""
    for title, rows in names().items():
        _print(console, title, rows)


def names() -> dict[str, Rows]:
    """List what there is: title -> (name, one line about it)."""
    return {
        "data sets": [(name, _data_set(DATASETS.place(name))) for name in DATASETS],
        "backbones": available(),
        "nodes": _described(EXTRACTORS),
        "methods with transport": sorted(_described(METHODS)),
        "baselines and controls": sorted(_described(BASELINES)),
        "solvers": [(name, _solver(path)) for name, path in SOLVERS.items()],
    }


def _described(table: Registry[Any]) -> list[tuple[str, str]]:
    """Describe entries by the first lines of their docstrings."""
    return [(name, _first_line(table.place(name))) for name in table]


def _first_line(entry: object) -> str:
    """Read the line where the entry is a path, and take it from the object where somebody has put one in."""
    if isinstance(entry, str):
        return source.first_line(entry)
    return (entry.__doc__ or "").strip().partition("\n")[0]


def _data_set(entry: str | Dataset) -> str:
    """Describe a data set by what its record is made of, and by itself where somebody has put an object in."""
    if not isinstance(entry, str):
        return f"{entry.summary}, {entry.resolution} px"
    known = source.arguments(entry, ("name", "summary", "resolution"))
    return f"{known['summary']}, {known['resolution']} px"


def _solver(path: str) -> str:
    """Describe a solver by its class attributes; those that it inherits are in the solvers' registry."""
    (base,) = source.bases(path)
    known = {name: getattr(getattr(registry, base), name) for name in ("gradients", "devices")}
    known |= source.constants(path)
    missing = "" if importlib.util.find_spec(known["requires"]) else "; not installed"
    return f"{known['kind']}; gradients: {known['gradients']}; on {', '.join(known['devices'])}{missing}"


def _print(console: Console, title: str, rows: Rows) -> None:
    """Print one titled list."""
    console.print(tables.catalogue(title, rows), "")

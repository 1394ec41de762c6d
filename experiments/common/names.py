"""The names that commands take, with a line about each: what ``otfew list`` and ``compare --list`` print.

Nothing here imports what it lists.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from typing import Any

from rich.console import Console

from otfew.backbones import available
from otfew.baselines import BASELINES
from otfew.experiments.common import source
from otfew.methods import METHODS
from otfew.nodes import EXTRACTORS
from otfew.registry import Registry
from otfew.reporting import tables
from otfew.transport import registry
from otfew.transport.registry import SOLVERS

Rows = Iterable[tuple[str, str]]


def print_names(console: Console) -> None:
    """Print data sets, backbones, nodes, methods and solvers, with a line about each."""
    for title, rows in names().items():
        _print(console, title, rows)


def names() -> dict[str, Rows]:
    """List what there is: title -> (name, one line about it)."""
    from otfew.data import DATASETS

    return {
        "data sets": [(d.name, f"{d.summary}, {d.resolution} px") for d in DATASETS.values()],
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

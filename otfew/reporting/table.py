"""The comparison as a table on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.markup import escape
from rich.table import Table

from otfew.reporting.streams import spelled


def render(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Lay text out: the first column to the left, the others to the right; only sentences wrap."""
    head, rows = [spelled(name) for name in head], [[spelled(cell) for cell in row] for row in rows]
    table = Table(title=spelled(title), title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for i, name in enumerate(head):
        cells = [row[i] for row in rows]
        sentences = any(cell.count(" ") > 1 and cell[:1].isalpha() for cell in cells)
        table.add_column(name, justify="right" if i else "left", no_wrap=not sentences)
    for row in rows:
        # Brackets, as in "deepemd [fcn]", are text here.
        table.add_row(*map(escape, row))
    return table

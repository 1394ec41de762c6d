"""The comparison as a table on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table


def render(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Lay text out: the first column to the left, the others to the right."""
    table = Table(title=title, title_justify="left")
    for i, name in enumerate(head):
        table.add_column(name, justify="right" if i else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table

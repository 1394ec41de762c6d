"""Tables for the terminal, in Markdown, CSV, LaTeX and HTML; each escapes names in its own way, and all do it here.

Names of classes, data sets, methods and folders come from users. In no format can one of them break a row, give a
command, or be read as anything but a name; what is harmless in a format stands there as it is.
"""

from __future__ import annotations

import csv
import html
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from rich import box
from rich.table import Table as Grid
from rich.text import Text

from otfew.reporting.plain import plain
from otfew.reporting.streams import spelled

Cell = str | int | float | None


class Table(NamedTuple):
    """A table before it has a format.

    Attributes:
        title: Above it; "" for none.
        head: Of the columns; a line break may become a space.
        rows: As many cells each; None is an empty cell. The first column is a name, the others figures.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]


class Markdown(str):
    """A cell that is Markdown already, of our own writing: its links and its code stay."""

    __slots__ = ()


def terminal(table: Table) -> Grid:
    """Lay a table out: the first column to the left, the others to the right; only sentences wrap."""
    head = [spelled(plain(name, lines=True)) for name in table.head]
    rows = [[spelled(plain(_text(cell))) for cell in row] for row in table.rows]
    # Text, not str: brackets, as in "deepemd [fcn]", and words between colons are no markup here.
    title = Text(spelled(plain(table.title)), style="table.title") if table.title else None
    grid = Grid(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for i, name in enumerate(head):
        cells = [row[i] for row in rows]
        sentences = any(cell.count(" ") > 1 and cell[:1].isalpha() for cell in cells)
        grid.add_column(Text(name), justify="right" if i else "left", no_wrap=not sentences)
    for row in rows:
        grid.add_row(*map(Text, row))
    return grid


def catalogue(title: str, rows: Iterable[tuple[str, str]]) -> Grid:
    """Lay out names with a line about each, for the terminal."""
    grid = Grid(
        title=Text(spelled(plain(title)), style="table.title"),
        title_justify="left",
        show_header=False,
        box=None,
        padding=(0, 2),
    )
    for row in rows:
        grid.add_row(*(Text(spelled(plain(cell))) for cell in row))
    return grid


FIGURES = ("---", "---:")
"""Below the heads of a table of figures: the first column to the left, the others to the right."""


def markdown(table: Table, rule: tuple[str, str] = FIGURES) -> str:
    """Write a table's head and rows as Markdown; the title is the caller's, who knows where it goes.

    Args:
        table: What is written.
        rule: What stands below the first head, and below each other one.

    Returns:
        Lines, the last one ended.
    """
    first, other = rule
    lines = [_row(table.head), f"|{'|'.join([first, *[other] * (len(table.head) - 1)])}|", *map(_row, table.rows)]
    return "".join(f"{line}\n" for line in lines)


def heading(text: str) -> str:
    """Write a heading of the second level in Markdown, the line ended."""
    return f"## {_CLOSING.sub(lambda end: HASH * len(end.group()), in_markdown(text))}\n"


def bullets(lines: Iterable[str]) -> str:
    """Write sentences as a list in Markdown, each line ended."""
    return "".join(f"- {_NUMBER.sub(NUMBER, _BLOCK.sub(BACKSLASH, in_markdown(line).lstrip()))}\n" for line in lines)


def sections(
    tables: Iterable[Table], lines: Iterable[str], *, rule: tuple[str, str] = FIGURES, gap: str = "\n\n"
) -> str:
    """Write tables below headings of their own, and the sentences below them all, as Markdown.

    Args:
        tables: In their order.
        lines: Sentences.
        rule: As in ``markdown``.
        gap: After each table.
    """
    return gap.join([*(f"{heading(table.title)}\n{markdown(table, rule)}" for table in tables), bullets(lines)])


def to_csv(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    """Write rows as CSV in UTF-8.

    Text that a spreadsheet would take for a formula has an apostrophe before it, as spreadsheets themselves hide one;
    numbers stay numbers, as text too.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(in_csv, head))
    writer.writerows(map(in_csv, row) for row in rows)
    return text.getvalue().encode()


def latex(table: Table) -> str:
    """Write a table as LaTeX with the rules of the package booktabs; the title is for the caption of whoever uses it.

    Returns:
        A tabular environment, the last line ended.
    """
    columns = "l" + "r" * (len(table.head) - 1)
    rows = [" & ".join(in_latex(_text(cell)) for cell in row) + r" \\" for row in (table.head, *table.rows)]
    lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", rows[0], r"\midrule", *rows[1:], r"\bottomrule"]
    return "\n".join([*lines, r"\end{tabular}", ""])


NEEDS = r"\usepackage{booktabs}"
"""What a document must say to take such a table in."""


def plain_comment(text: str) -> str:
    """Write a comment of LaTeX, the line ended: nothing in a name can end it before."""
    return f"% {plain(text)}\n"


def to_html(table: Table, lines: Iterable[str]) -> str:
    """Write a table with its title, and the sentences below it, as HTML for notebooks."""
    rows = [_html_row("th", table.head), *(_html_row("td", row) for row in table.rows)]
    below = "".join(f"<li>{in_html(line)}</li>" for line in lines)
    return f"<table><caption>{in_html(table.title)}</caption>{''.join(rows)}</table><ul>{below}</ul>"


def _html_row(tag: str, cells: Sequence[Cell]) -> str:
    """Write a row of HTML."""
    return f"<tr>{''.join(f'<{tag}>{_html_cell(cell)}</{tag}>' for cell in cells)}</tr>"


def _html_cell(cell: Cell) -> str:
    """Escape a cell, unless it is of our own making, such as a picture."""
    from markupsafe import Markup

    return str(cell) if isinstance(cell, Markup) else in_html(_text(cell))


def in_html(text: str) -> str:
    """Escape what HTML would read as anything but text; escape sequences act in some notebooks, so they go too."""
    return html.escape(plain(text))


def _row(cells: Sequence[Cell]) -> str:
    """Write a row of Markdown."""
    return f"| {' | '.join(in_markdown(_text(cell)).replace('|', PIPE) for cell in cells)} |"


def _text(cell: Cell) -> str:
    """Return a cell as text; Markdown of our own remains what it is."""
    return cell if isinstance(cell, str) else "" if cell is None else str(cell)


PIPE, HASH, BACKSLASH, NUMBER = r"\|", r"\#", r"\\", r"\1\\"
_TAG = re.compile(r"<(?=[A-Za-z/!?])")
_ENTITY = re.compile(r"&(?=#?\w+;)")
_ESCAPED = re.compile(r"\\(?=[!-/:-@\[-`{-~])")
_LINK = re.compile(r"\](?=[(:\[])")
_PAIRS = (
    re.compile(r"\*"),
    re.compile(r"(?<![^\W_])_|_(?![^\W_])"),  # inside of a word they are letters
    re.compile(r"`"),
    re.compile(r"~"),
    re.compile(r"\$"),
)
_BLOCK = re.compile(r"^(?=#{1,6}(?:\s|$)|[+*-](?:\s|$)|>|=+\s*$|-[-\s]+$)")
_NUMBER = re.compile(r"^(\d{1,9})(?=[.)](?:\s|$))")
"""Where a sentence would begin a heading, a list, a quotation or a rule."""
_CLOSING = re.compile(r"#+\s*$")


def in_markdown(text: str) -> str:
    """Escape what Markdown, or HTML in it, would read as anything but text; pipes count in tables alone.

    Signs that act in pairs are left alone where there is but one: a star behind a figure is a star.
    """
    if isinstance(text, Markdown):
        return plain(text)
    text = plain(text)
    # An entity, and no second backslash: tables take backslashes away before pipes.
    text = _ESCAPED.sub("&#92;", _ENTITY.sub("&amp;", text))
    text = _LINK.sub(r"\\]", _TAG.sub("&lt;", text))
    for sign in _PAIRS:
        if len(sign.findall(text)) > 1:
            text = sign.sub(lambda found: f"\\{found.group()}", text)
    return text


_FORMULA = frozenset("=+-@\t\r＝＋－＠")


def in_csv(cell: Any) -> Any:
    """Guard a cell from being taken for a formula; what is no text stays what it is."""
    if not isinstance(cell, str):
        return cell
    text = plain(cell)
    return f"'{text}" if cell[:1] in _FORMULA and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "`": r"\textasciigrave{}", "±": r"$\pm$", "–": r"\textendash{}", "−": "$-$",
}  # fmt: skip
_MINUS = re.compile(r"(?<![\w.-])-(?=\d)")
_DASHES = re.compile(r"-(?=-)")
_OPTION = re.compile(r"^(?=\s*[\[*])")
"""Behind the end of a row, these would be its options."""


def in_latex(text: str) -> str:
    """Escape what LaTeX would read as anything but text; the sign before a figure is a minus, and no hyphen."""
    escaped = "".join(_LATEX.get(character, character) for character in _MINUS.sub("−", plain(text)))
    return _OPTION.sub("{}", _DASHES.sub("-{}", escaped))

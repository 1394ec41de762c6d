"""Tables that can be read: columns as wide as what is in them, words to the left, many rows in a box of their own.

Pages are written for two readers: as Markdown every column of a written table may be aligned to the right, and a cell
may hold a sentence. On the site such a column would be a narrow tower.
"""

from __future__ import annotations

import html
import re

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

TABLE = re.compile(r"<table>.*?</table>", re.DOTALL)
ROW = re.compile(r"<tr>.*?</tr>", re.DOTALL)
CELL = re.compile(r"<(t[hd])(?: style=\"text-align: (\w+);\")?>(.*?)</\1>", re.DOTALL)
MANY_ROWS = 14
"""From so many on a table scrolls in a box that is not higher than the window."""
LINES = 3
"""In so many lines the longest text of a column shall find room, while the column is not wider than `WIDEST`."""
WIDEST = 44
"""In characters."""
SHORT = 20
"""Columns whose texts are no longer keep each on one line: a figure with its interval is read at once."""
ONE_LINE = 24
"""Texts that are longer break into lines, which begin at the left."""
LETTERS = 0.4
"""Columns with at least this share of letters hold words, not figures."""


def shown(cell: str) -> str:
    """Give the text of a cell as it is read."""
    return html.unescape(re.sub(r"<[^>]*>", "", cell)).strip()


def width(texts: list[str]) -> int:
    """Give the least width of a column in characters."""
    longest = max(map(len, texts))
    if max(map(len, texts[1:]), default=0) <= SHORT:
        return max(map(len, texts[1:]), default=0) + 1
    word = max((len(word) for text in texts for word in text.split()), default=0)
    return min(max(-(-longest // LINES) + 2, min(longest, 12), word), WIDEST)


def holds_words(texts: list[str]) -> bool:
    """Tell whether a column (without its head) holds words rather than figures, or figures that fill several lines."""
    text = "".join(texts)
    if max(map(len, texts), default=0) > ONE_LINE:
        return True
    return sum(map(str.isalpha, text)) >= LETTERS * max(len(text), 1)


def readable(table: str) -> str:
    """Lay a table out."""
    rows = [CELL.findall(row) for row in ROW.findall(table)]
    columns = [[shown(cell[2]) for cell in column] for column in zip(*rows, strict=False)]
    widths = [width(column) for column in columns]
    words = [holds_words(column[1:]) for column in columns]

    def row(match: re.Match[str]) -> str:
        places = iter(range(len(columns)))

        def cell(found: re.Match[str]) -> str:
            place = next(places, None)
            if place is None:
                return found[0]
            align = "left" if words[place] else found[2]
            style = [f"text-align: {align}"] if align else []
            if found[1] == "th":
                style.append(f"min-width: min({widths[place]}ch, 45vw)")
            elif len(shown(found[3])) <= SHORT:
                style.append("white-space: nowrap")
            kept = f' style="{"; ".join(style)}"' if style else ""
            return f"<{found[1]}{kept}>{found[3]}</{found[1]}>"

        return CELL.sub(cell, match[0])

    kind = "long-table" if len(rows) > MANY_ROWS else "table"
    return f'<div class="{kind}">{ROW.sub(row, table)}</div>'


def on_page_content(content: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lay out the tables of a page."""
    return TABLE.sub(lambda match: readable(match[0]), content)

"""Names as text and nothing but text: what no terminal, file or picture can take for an instruction."""

from __future__ import annotations

import re
import unicodedata

_BREAKS = re.compile(r"[ ]*[\t\n\v\f\r\x1c-\x1e\x85\u2028\u2029]+[ ]*")
_DIRECTIONS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that turn the direction of what follows them, and so its meaning."""


def plain(text: str, *, lines: bool = False) -> str:
    r"""Return text that is shown as it is read: without breaks, and with control characters spelled out.

    Escape sequences of terminals, characters that turn the direction of writing, and bytes of a file's name that are no
    text become escapes such as \\x1b; tabs and line breaks become a space.

    Args:
        text: From anywhere.
        lines: Keep line feeds, where a line break is part of the layout.
    """
    parts = text.split("\n") if lines else [text]
    return "\n".join("".join(map(_spelled, _BREAKS.sub(" ", part))) for part in parts)


def _spelled(character: str) -> str:
    if unicodedata.category(character) in {"Cc", "Cs"} or character in _DIRECTIONS:
        return character.encode("unicode_escape", "surrogatepass").decode("ascii")
    return character

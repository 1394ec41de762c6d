"""A console that prints text as it is."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from otfew.reporting.plain import plain


class PlainConsole(Console):
    """A console for which text is text: brackets are no markup, ":key:" is no emoji, and no escape sequence acts.

    Names of classes, files and data sets stand in what is printed. What is to have a style is a ``rich.text.Text``.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Make text printable; line feeds stay."""
        return super().render_str(plain(text, lines=True), **options)

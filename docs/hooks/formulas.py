r"""Formulas as MathML, made when the site is built: browsers show it without a script.

Pages write ``$...$``, and ``$$...$$`` for a line of its own, as GitHub reads them, and so do docstrings.
"""

from __future__ import annotations

import html
import re

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
LINE = re.compile(r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>', re.DOTALL)


def on_page_content(content: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put MathML in the place of what the extension `arithmatex` has marked."""
    content = INLINE.sub(lambda match: convert(html.unescape(match[1]).strip()), content)
    return LINE.sub(lambda match: convert(html.unescape(match[1]).strip(), display="block"), content)

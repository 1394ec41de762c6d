r"""Formulas as MathML, made when the site is built: browsers show it without a script.

Pages write ``$...$``, and ``$$...$$`` for a line of its own, as GitHub reads them, and so do docstrings.
"""

from __future__ import annotations

import html
import re
from xml.etree import ElementTree

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
LINE = re.compile(r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>', re.DOTALL)
NAMESPACE = "http://www.w3.org/1998/Math/MathML"
ABOVE_AND_BELOW = {"msub": "munder", "msubsup": "munderover", "msup": "mover"}
WITH_LIMITS = {"min", "max", "inf", "sup", "argmin", "argmax", "lim", "\N{N-ARY SUMMATION}", "\N{N-ARY PRODUCT}"}
"""Operators whose limits stand above and below them where a formula has a line of its own."""


def line(formula: str) -> str:
    """Give the markup of a formula on a line of its own, in a box that scrolls where it is too long."""
    ElementTree.register_namespace("", NAMESPACE)
    tree = ElementTree.fromstring(convert(formula, display="block"))
    for element in tree.iter():
        kind = element.tag.removeprefix(f"{{{NAMESPACE}}}")
        if kind in ABOVE_AND_BELOW and (element[0].text or "").replace(" ", "") in WITH_LIMITS:
            element.tag = f"{{{NAMESPACE}}}{ABOVE_AND_BELOW[kind]}"
    return f'<div class="formula">{ElementTree.tostring(tree, encoding="unicode")}</div>'


def on_page_content(content: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put MathML in the place of what the extension `arithmatex` has marked."""
    content = INLINE.sub(lambda match: convert(html.unescape(match[1]).strip()), content)
    return LINE.sub(lambda match: line(html.unescape(match[1]).strip()), content)

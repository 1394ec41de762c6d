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
FUNCTIONS = {"log", "ln", "exp", "cos", "sin"}
THIN = "0.167em"
NORM = "\N{DOUBLE VERTICAL LINE}"


def markup(formula: str, display: str = "inline") -> str:
    """Convert a formula, and mend what the converter leaves unlike TeX."""
    ElementTree.register_namespace("", NAMESPACE)
    tree = ElementTree.fromstring(convert(formula, display=display))
    for element in [*tree.iter()]:
        kind = element.tag.removeprefix(f"{{{NAMESPACE}}}")
        if display == "block" and kind in ABOVE_AND_BELOW and _name(element[0]) in WITH_LIMITS:
            element.tag = f"{{{NAMESPACE}}}{ABOVE_AND_BELOW[kind]}"
        if element.text == NORM:
            # The right one, with its exponent, would stay small beside the left one.
            element.set("stretchy", "false")
        _set_apart(element)
    return ElementTree.tostring(tree, encoding="unicode")


def line(formula: str) -> str:
    """Give the markup of a formula on a line of its own, in a box that scrolls where it is too long."""
    return f'<div class="formula">{markup(formula, "block")}</div>'


def _name(element: ElementTree.Element) -> str:
    return (element.text or "").replace(" ", "")


def _set_apart(row: ElementTree.Element) -> None:
    """Put a thin space between the name of a function and what stands before and after it."""
    before = None
    for place, part in reversed([*enumerate(row)]):
        of_function = _name(part) in FUNCTIONS or (len(part) > 0 and _name(part[0]) in FUNCTIONS)
        if row.tag.endswith(("}mrow", "}mtd")) and of_function:
            if before is not None and not before.tag.endswith("}mo"):
                row.insert(place + 1, ElementTree.Element(f"{{{NAMESPACE}}}mspace", width=THIN))
            if place > 0 and not row[place - 1].tag.endswith(("}mo", "}mspace")):
                row.insert(place, ElementTree.Element(f"{{{NAMESPACE}}}mspace", width=THIN))
        before = part


def on_page_content(content: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put MathML in the place of what the extension `arithmatex` has marked."""
    content = INLINE.sub(lambda match: markup(html.unescape(match[1]).strip()), content)
    return LINE.sub(lambda match: line(html.unescape(match[1]).strip()), content)

"""Docstrings are plain text: `<plan, cost>` in them is a product and no tag, `(*batch, n)` a shape and no emphasis."""

from __future__ import annotations

import re
from typing import Any

import griffe

APART = re.compile(r"(``.*?``|`[^`\n]*`)", re.DOTALL)
"""Code, which stays as it is."""
EXAMPLES = re.compile(r"^[ ]*Examples:\n.*", re.DOTALL | re.MULTILINE)
"""The last section of a docstring that has one."""
ARGUMENT = re.compile(r"^([ ]*\*{1,2})(?=\w+:)", re.MULTILINE)
"""What stands before `*args:` and `**options:` in a list of arguments."""


def escaped(docstring: str) -> str:
    """Escape what Markdown would take for tags and emphasis, outside of code and of examples."""
    examples = EXAMPLES.search(docstring)
    text = docstring[: examples.start()] if examples else docstring
    parts = APART.split(text)
    parts[::2] = [_escaped(part) for part in parts[::2]]
    return "".join(parts) + docstring[len(text) :]


def _escaped(text: str) -> str:
    starts = {match.end() - 1 - i for match in ARGUMENT.finditer(text) for i in range(len(match[1].strip()))}
    return "".join(_one(char, i in starts) for i, char in enumerate(text))


def _one(char: str, kept: bool) -> str:
    return char if kept else {"<": "&lt;", "*": "\\*"}.get(char, char)


class PlainDocstrings(griffe.Extension):
    """Escapes every docstring as it is read."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Escape the docstring of a module, class, function or attribute."""
        if obj.docstring is not None:
            obj.docstring.value = escaped(obj.docstring.value)

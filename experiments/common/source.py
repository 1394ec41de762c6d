"""What a class or a function says of itself, read from its source: importing it would import torch."""

from __future__ import annotations

import ast
import functools
import importlib.util
from typing import Any


def first_line(path: str) -> str:
    """Read the first line of a docstring.

    Args:
        path: "package.module:name" of a class or a function.
    """
    return (ast.get_docstring(_find(path)) or "").partition("\n")[0]


def constants(path: str) -> dict[str, Any]:
    """Read the attributes that a class gives a literal value in its own body.

    Args:
        path: "package.module:name" of a class.
    """
    found = {}
    for statement in _find(path).body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value:
            try:
                found[statement.target.id] = ast.literal_eval(statement.value)
            except ValueError:  # computed when the class is made: only those who import it know
                continue
    return found


def bases(path: str) -> list[str]:
    """Name the classes that a class derives from, as they are spelled in its source."""
    node = _find(path)
    return [ast.unparse(base) for base in node.bases] if isinstance(node, ast.ClassDef) else []


def _find(path: str) -> ast.ClassDef | ast.FunctionDef:
    """Find a definition at the top of a module."""
    module, _, name = path.partition(":")
    for node in _tree(module).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return node
    raise LookupError(f"{module} defines no {name}")


@functools.cache
def _tree(module: str) -> ast.Module:
    """Parse a module's source, as its loader has it: installed, in a checkout, or in an archive."""
    spec = importlib.util.find_spec(module)
    loader: Any = spec and spec.loader
    tree: ast.Module = ast.parse(loader.get_source(module))
    return tree

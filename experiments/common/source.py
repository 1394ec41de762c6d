"""What a class or a function says of itself, read from its source: importing it would import torch."""

from __future__ import annotations

import ast
import functools
import importlib.util
from collections.abc import Sequence
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


def arguments(path: str, names: Sequence[str]) -> dict[str, Any]:
    """Read what a call is given, whose result a module keeps under a name.

    Args:
        path: "package.module:name" of a call's result, such as that of a dataclass.
        names: Of its first arguments, in their order; they are literals, or names of literals.
    """
    module, _, name = path.partition(":")
    call = _assigned(module, name)
    if not isinstance(call, ast.Call):
        raise LookupError(f"{module} keeps no call's result as {name}")
    given = dict(zip(names, call.args, strict=False))
    given |= {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}
    return {argument: _value(module, given[argument]) for argument in names}


def _value(module: str, node: ast.expr) -> Any:
    """Read a literal, or what a name stands for, in its own module or in that from which it is imported."""
    if not isinstance(node, ast.Name):
        return ast.literal_eval(node)
    for statement in _tree(module).body:
        if isinstance(statement, ast.ImportFrom) and node.id in {alias.name for alias in statement.names}:
            module = str(statement.module)
    return _value(module, _assigned(module, node.id))


def _assigned(module: str, name: str) -> ast.expr:
    """Find what a name is assigned at the top of a module."""
    for statement in _tree(module).body:
        if isinstance(statement, ast.Assign) and name in map(ast.unparse, statement.targets):
            return statement.value
    raise LookupError(f"{module} assigns no {name}")


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

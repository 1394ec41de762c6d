"""Other people's methods, data sets, backbones, solvers and nodes, by ``package.module:Name``: nowhere registered.

``load`` imports one, ``digest`` says which source it was. What an object must be is the affair of those who use it
(``otfew.catalogue``, ``otfew.data``, ``otfew.nodes``, ``otfew.backbones``, ``otfew.transport.registry``);
``otfew.conformance`` finds out whether it is that.
"""

from __future__ import annotations

import ast
import re
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from otfew.errors import UserError
from otfew.transport.importing import find, is_plugin, look_here, only_imported, told

__all__ = ["Kind", "called", "digest", "digests", "file_name", "is_plugin", "load", "only_imported", "plain", "told"]

Kind = Literal["method", "data set", "backbone", "solver", "nodes"]
"""What a name may stand for; the word of sentences."""

ELSEWHERE = frozenset({"timm"})
"""What stands before a colon and is no module of a plug-in, but where networks come from."""


def load(name: str, kind: Kind | Literal["plug-in"]) -> Any:
    """Import what a name says.

    Args:
        name: ``package.module:Name``; a module that is not installed may lie in the current folder.
        kind: What it is to be, for the sentence.

    Returns:
        The object, whatever it is.

    Raises:
        UserError: Another form, the module cannot be imported, or has nothing of the name.
    """
    try:
        return find(name, kind)
    except ValueError as error:
        raise UserError(str(error)) from error.__cause__


def called(thing: Any, name: str, kind: Kind | Literal["plug-in"], *arguments: Any, **options: Any) -> Any:
    """Call a factory or construct a class of a user's.

    Args:
        thing: What ``load`` returned.
        name: Its name, for the sentence.
        kind: What it is to give.
        *arguments: Of the call.
        **options: Of the call.

    Raises:
        UserError: The call fails or ends the program; its own ``UserError`` is passed on.
    """
    how = "calling it" if arguments or options else "calling it without arguments"
    try:
        return thing(*arguments, **options)
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        raise UserError(f"{kind} {name!r}: {how} fails with {told(error)}.") from error


def plain(name: str) -> str:
    """Return the ``package.module:Name`` that a name begins with, or "" where it names no plug-in.

    Examples:
        >>> plain("mine:Rings:3"), plain("mine:Net@own.safetensors"), plain("fcn:2,1"), plain("timm:resnet18")
        ('mine:Rings', 'mine:Net', '', '')
    """
    head = ":".join(name.partition("@")[0].split(":", 2)[:2])
    return head if is_plugin(head) and head.partition(":")[0] not in ELSEWHERE else ""


def digest(name: str) -> str:
    """Hash the source that a plug-in is made of, without importing it.

    That is its module, or its package where it lies in one, and whatever of these files import that lies outside the
    installed libraries, such as a file beside it. Comments, docstrings and layout change nothing, see
    ``otfew.runs.identity.code_digest``. What is imported by a computed name is not found.

    Args:
        name: ``package.module:Name``.

    Returns:
        64 hexadecimal digits.
    """
    from otfew.runs.identity import code_digest

    module = name.partition(":")[0]
    look_here(module)
    return code_digest(*_reached(module))


def digests(names: Iterable[object]) -> dict[str, str]:
    """Return what a run's protocol says of the plug-ins among names: name -> digest, in alphabetical order.

    Args:
        names: Of methods, data sets, backbones, solvers and nodes, with what stands behind them; whatever is no text,
            or names no plug-in, is passed over.
    """
    found = {plain(name) for name in names if isinstance(name, str)} - {""}
    return {name: digest(name) for name in sorted(found)}


def file_name(name: str) -> str:
    """Write a name so that it can be part of a file's name.

    Examples:
        >>> file_name("my.methods:Mean shot_head=nn"), file_name("deepemd-fcn")
        ('my.methods-Mean-shot_head=nn', 'deepemd-fcn')
    """
    return re.sub(r"[^\w.=,+-]+", "-", name)


def _reached(module: str) -> set[str]:
    """List packages and modules that a module's source depends on: its own, and those that are not installed."""
    from otfew.runs.identity import origin, sources

    package = module.rpartition(".")[0]
    reached: set[str] = set()
    waiting = [package if package and origin(package) else module]
    while waiting:
        name = waiting.pop()
        if name in reached:
            continue
        reached.add(name)
        for inner, path in sources(name):
            if path is not None and path.suffix == ".py" and not _installed(path):
                waiting += [found for found in _imported(inner, path) if _own(found)]
    return reached


def _own(module: str) -> bool:
    """Tell whether a module is a file of the user's."""
    from otfew.runs.identity import origin

    if module.partition(".")[0] == "otfew":
        return False
    path = origin(module)
    return path is not None and not _installed(path)


def _imported(module: str, path: Path) -> Iterator[str]:
    """Yield what a file may import, by dotted names; ``from x import y`` counts as x and x.y."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            if base:
                yield base
                yield from (f"{base}.{alias.name}" for alias in node.names)


def _installed(path: Path) -> bool:
    """Tell whether a file belongs to an installed library, whose version is its identity."""
    if {"site-packages", "dist-packages"} & {*path.parts}:
        return True
    return any(path.is_relative_to(folder) for folder in map(sysconfig.get_path, ("stdlib", "platstdlib")) if folder)

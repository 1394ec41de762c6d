"""Objects by ``package.module:Name``: imported when they are asked for, and every failure said in one sentence.

Whoever names a module runs its code, so names are taken from users alone: what comes out of a file is read under
``only_imported``.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import importlib.util
import os
import re
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

_DOTTED = r"[^\W\d]\w*(?:\.[^\W\d]\w*)*"
_PLUGIN = re.compile(f"{_DOTTED}:{_DOTTED}")
_HOME = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
"""The folder of otfew: frames in it are those that every such error comes through."""

_from_a_file: ContextVar[str] = ContextVar("from_a_file", default="")


def is_plugin(name: str) -> bool:
    """Tell whether a name has the form ``package.module:Name``.

    Examples:
        >>> is_plugin("my.methods:Mine"), is_plugin("deepemd"), is_plugin("fcn:2,1"), is_plugin("a.b:C.d")
        (True, False, False, True)
    """
    return _PLUGIN.fullmatch(name) is not None


def find(name: str, what: str) -> Any:
    """Import what ``package.module:Name`` names.

    A module that is not installed is looked for in the current folder too, as ``python -m`` would.

    Args:
        name: The name.
        what: What it is to be, for the sentence: "method", "data set", ...

    Raises:
        ValueError: Another form, the import fails or ends the program, there is nothing of the name, or a file names a
            module that was not imported before.
    """
    if not is_plugin(name):
        raise ValueError(f"{what} {name!r} is no package.module:Name: write the module, a colon and the name in it.")
    where, _, attribute = name.partition(":")
    if (file := _from_a_file.get()) and where not in sys.modules:
        raise ValueError(f"{file} names the {what} {name!r}, code of others: import {where} first to allow it.")
    try:
        look_here(where)
        found: Any = importlib.import_module(where)
    except (Exception, SystemExit) as error:  # the user's module may raise anything, and sys.exit is no success
        how = f"{told(error)}{_hint(error, where)}"
        raise ValueError(f"{what} {name!r}: importing {where!r} fails with {how}.") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            near = difflib.get_close_matches(part, [n for n in dir(found) if not n.startswith("_")], n=1)
            meant = f": did you mean {near[0]}?" if near else "."
            raise ValueError(f"{what} {name!r}: {where!r} has no {attribute!r}{meant}")
        found = getattr(found, part)
    return found


@contextlib.contextmanager
def only_imported(file: str) -> Iterator[None]:
    """Refuse modules that nobody has imported yet: for names that stand in a file, which must run no code by itself.

    Args:
        file: What names them, for the sentence: "classifier birds.otfew".
    """
    token = _from_a_file.set(file)
    try:
        yield
    finally:
        _from_a_file.reset(token)


def look_here(module: str) -> None:
    """Let a module be found in the current folder where it is nowhere else; what is installed is never hidden.

    Args:
        module: Dotted name; it is not imported.
    """
    top = module.partition(".")[0]
    here = os.getcwd()
    if top not in sys.modules and here not in sys.path and importlib.util.find_spec(top) is None:
        place = os.path.join(here, top)
        if os.path.isfile(f"{place}.py") or os.path.isdir(place):
            sys.path.append(here)
            importlib.invalidate_caches()


def told(error: BaseException) -> str:
    """Describe an exception of a user's code on one line, with the place that raised it."""
    text = " ".join(str(error).split()).rstrip(".")[:200]
    if isinstance(error, SystemExit):
        text = "" if error.code is None else f"code {text}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _passed_through(frame.filename)]
    libraries = ("site-packages", sysconfig.get_path("stdlib"))
    own = [frame for frame in frames if not any(part in frame.filename for part in libraries)] or frames
    where = f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
    return (f"{type(error).__name__}: {text}" if text else type(error).__name__) + where


def _hint(error: BaseException, where: str) -> str:
    """Say how a module is named, or where modules are looked for, if the named one itself was not found."""
    if isinstance(error, ModuleNotFoundError) and where.endswith(".py"):
        return f"; write the module {where.removesuffix('.py')!r}, without .py"
    if isinstance(error, ModuleNotFoundError) and error.name and f"{where}.".startswith(f"{error.name}."):
        return f"; run where {where.partition('.')[0]} lies, or put its folder into $PYTHONPATH"
    return ""


def _passed_through(file: str) -> bool:
    """Tell the import system and otfew itself from where an error began."""
    return file.startswith((_HOME, "<frozen")) or file == importlib.__file__

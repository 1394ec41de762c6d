"""Whether a plug-in is what it must be: the laws of its kind, tried on anybody's code."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from otfew import catalogue, plugins
from otfew.conformance.findings import Finding, Findings
from otfew.errors import UserError
from otfew.plugins import Kind

__all__ = ["Finding", "Findings", "check", "kind_of"]


def check(spec: str, kind: Kind | None = None, *, data_root: Path | None = None) -> Findings:
    """Try the laws of its kind on what a name means.

    Args:
        spec: ``package.module:Name``, or a name of otfew's; for methods with options behind a colon, for nodes with
            arguments.
        kind: What it is; None finds out.
        data_root: Where a data set's images are; None for the default.

    Returns:
        What was found out; no law is left out.

    Raises:
        UserError: There is nothing of the name, it is of no kind, or not of that one.
    """
    chosen = kind or kind_of(spec)
    found: tuple[Finding, ...]
    if chosen == "method":
        from otfew.conformance import methods

        name, options = catalogue.parse(spec)
        # What is wrong with options is the user's mistake, and no finding about the method.
        catalogue.find(name)
        if unknown := [option for option in options if not catalogue.accepts(catalogue.find(name), option)]:
            catalogue.build(name, **{unknown[0]: None})
        found = methods.check(name, options)
    elif chosen == "solver":
        from otfew.conformance import solvers

        try:
            found = solvers.check(spec)
        except ValueError as error:
            raise UserError(f"{str(error).rstrip('.')}.") from error.__cause__
    elif chosen == "nodes":
        from otfew.conformance import extractors

        found = extractors.check(spec)
    elif chosen == "data set":
        from otfew.conformance import datasets

        found = datasets.check(spec, data_root)
    else:
        from otfew.conformance import backbones

        found = backbones.check(spec)
    return Findings(spec, chosen, found)


def kind_of(spec: str) -> Kind:
    """Find out what a name means.

    Args:
        spec: As in ``check``.

    Returns:
        "method", "data set", "backbone", "solver" or "nodes".

    Raises:
        UserError: The import fails, or what is found is of no kind that otfew takes.
    """
    name, _ = catalogue.parse(spec) if "=" in spec else (spec, {})
    if ours := _ours(name):
        return ours
    plain = plugins.plain(name)
    if not plain:
        raise UserError(
            f"{spec!r} is neither package.module:Name nor a method, data set, kind of nodes or solver of otfew's: "
            "otfew list prints those."
        )
    thing = plugins.load(plain, "plug-in")
    found = _kind(thing)
    if found is None and callable(thing) and not inspect.isclass(thing):
        # Of functions, only those that make nodes have arguments.
        of_arguments = name != plain or _required(thing)
        found = "nodes" if of_arguments else _kind(plugins.called(thing, plain, "plug-in"))
    if found is None:
        what = thing.__name__ if inspect.isclass(thing) else f"of type {type(thing).__name__}"
        raise UserError(
            f"{plain!r} is {what}, which is none of these: a method (a class derived from otfew.method.MethodBase), a "
            "data set (otfew.data.Dataset), a backbone (torch.nn.Module or what makes one), a solver (a class derived "
            "from those of otfew.transport.registry), nodes (otfew.nodes.base.Extractor)."
        )
    return found


def _ours(name: str) -> Kind | None:
    """Look a name up in otfew's own tables."""
    from otfew.data import DATASETS
    from otfew.nodes import EXTRACTORS
    from otfew.transport.registry import SOLVERS

    tables: Mapping[Kind, Mapping[str, Any]] = {
        "method": catalogue.methods(),
        "data set": DATASETS,
        "nodes": EXTRACTORS,
        "solver": SOLVERS,
    }
    for kind, table in tables.items():
        if name in table or (kind == "nodes" and name.partition(":")[0] in table):
            return kind
    return None


def _kind(thing: Any) -> Kind | None:
    """Tell what an object, or an object of a class, is; by its type first, else by what it has."""
    torch_nn = importlib.import_module("torch.nn")
    from otfew.backbones import Backbone
    from otfew.data import Dataset
    from otfew.method import MethodBase
    from otfew.transport import Solver

    kind = thing if inspect.isclass(thing) else type(thing)
    types: tuple[tuple[Kind, tuple[type, ...]], ...] = (
        ("method", (MethodBase,)),
        ("solver", (Solver,)),
        ("data set", (Dataset,)),
        ("backbone", (torch_nn.Module, Backbone)),
    )
    for name, classes in types:
        if issubclass(kind, classes):
            return name
    if hasattr(thing, "views") and hasattr(thing, "nodes"):
        return "nodes"
    calls = [thing, *(vars(base)["__call__"] for base in kind.__mro__ if "__call__" in vars(base))]
    return "method" if any({"support", "query"} <= set(_names(call)) for call in calls) else None


def _names(function: Any) -> list[str]:
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return []


def _required(function: Any) -> bool:
    """Tell whether a function cannot be called without arguments."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    ordinary = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return any(p.default is inspect.Parameter.empty and p.kind in ordinary for p in parameters)

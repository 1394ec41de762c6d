"""Few-shot methods by name.

The one exception to the direction of imports: names are looked up when asked for, so that the library's own
conveniences (``otfew.FewShotClassifier``) reach ``otfew.methods`` and ``otfew.baselines``, which import the library.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections import ChainMap
from collections.abc import Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, cast

from otfew.errors import UserError

if TYPE_CHECKING:
    from otfew.method import FewShotMethod


def ot_methods() -> MutableMapping[str, type[FewShotMethod]]:
    """Return the methods built on optimal transport, by name; a class is imported when it is asked for."""
    return cast("MutableMapping[str, type[FewShotMethod]]", importlib.import_module("otfew.methods").METHODS)


def baselines() -> MutableMapping[str, type[FewShotMethod]]:
    """Return the baselines and the controls without transport, by name; as ``ot_methods``."""
    return cast("MutableMapping[str, type[FewShotMethod]]", importlib.import_module("otfew.baselines").BASELINES)


def methods() -> Mapping[str, type[FewShotMethod]]:
    """Return all of them, those built on transport first."""
    # A chain iterates over its last mapping first.
    return ChainMap(baselines(), ot_methods())


def find(name: str) -> type[FewShotMethod]:
    """Look a method up; raises ``UserError`` with the nearest names where there is none."""
    table = methods()
    if name not in table:
        near = difflib.get_close_matches(name, table, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(sorted(table))}."
        raise UserError(f"unknown method {name!r}: {hint}")
    return table[name]


def accepts(method: Callable[..., Any], option: str) -> bool:
    """Tell whether a constructor takes an option."""
    parameters = inspect.signature(method).parameters
    return option in parameters or any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())


def build(name: str, /, **options: Any) -> FewShotMethod:
    """Construct a method.

    Args:
        name: Key of ``METHODS`` or ``BASELINES``.
        **options: Of its constructor, as objects, or as run folders have them.

    Raises:
        UserError: Unknown name or option, an option of a wrong type or out of range, or ``base_mean`` missing where the
            method needs it.
    """
    method = find(name)
    unknown = [option for option in options if not accepts(method, option)]
    if unknown:
        known = [p for p in inspect.signature(method).parameters if p not in {"args", "kwargs"}]
        raise UserError(f"method {name!r} has no option {unknown[0]!r}; it takes {', '.join(known) or 'none'}.")
    if method.needs_base_mean and options.get("base_mean") is None:
        raise UserError(
            f"method {name!r} needs base_mean, the mean global vector of the base classes: "
            "give a data set with a train split, or a features file with base_mean."
        )
    # Not every option can be written as a number or a name; what stands for it in a run folder is the class's affair.
    recorded = getattr(method, "recorded_options", dict)
    return method(**recorded(options))

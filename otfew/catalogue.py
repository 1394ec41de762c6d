"""Few-shot methods by name, or by ``package.module:Name`` where they are somebody's own; with options behind a colon.

The one exception to the direction of imports: names are looked up when asked for, so that the library's own
conveniences (``otfew.FewShotClassifier``) reach ``otfew.methods`` and ``otfew.baselines``, which import the library.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import inspect
import re
from collections import ChainMap
from collections.abc import Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, cast

from otfew import plugins
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


def parse(spec: str) -> tuple[str, dict[str, Any]]:
    """Read a method as command lines name it: a name, then options of its constructor behind a colon.

    Args:
        spec: Such as "deepemd", "deepemd:shot_head=sfc,solver=sinkhorn" or "my.methods:Mine:temperature=3". Values are
            numbers, true, false, none, text, or text in quotes where it would be read as one of these.

    Returns:
        Name and options; the name is not looked up.

    Raises:
        UserError: Something else stands behind the colon, or an option stands there twice.

    Examples:
        >>> parse("deepemd:shot_head=sfc,temperature=3")
        ('deepemd', {'shot_head': 'sfc', 'temperature': 3})
        >>> parse("my.methods:Mine")
        ('my.methods:Mine', {})
    """
    if ":" not in spec:
        return spec, {}
    found = _SPEC.fullmatch(spec)
    name, written = (found["name"], found["options"]) if found else (spec.partition(":")[0], spec.partition(":")[2])
    if written is None:
        if name.partition(":")[0] not in methods():
            return name, {}
        name, _, written = name.partition(":")  # of ours: what stands behind the colon was meant for an option
    options: dict[str, Any] = {}
    for part in _BETWEEN.split(written):
        option, equals, value = part.partition("=")
        option = option.strip().replace("-", "_")
        if not equals or not option.isidentifier():
            raise UserError(
                f"method {spec!r}: options are written NAME=VALUE, with commas between them, as in "
                f"{name}:temperature=10, not {part!r}."
            )
        if option in options:
            raise UserError(f"method {spec!r} gives the option {option!r} twice: give it once.")
        options[option] = _value(value.strip())
    return name, options


_SPEC = re.compile(r"(?P<name>[^:=]+(?::[^:=]+)?)(?::(?P<options>[^:,=]+=.*))?", re.DOTALL)
_BETWEEN = re.compile(r",(?=[^,=]*=)")
"""A comma before the next option; others belong to a value."""
_WORDS = {"true": True, "false": False, "none": None}


def _value(text: str) -> Any:
    """Read an option's value."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return text
    return value if isinstance(value, bool | int | float | str) else text


def find(name: str) -> type[FewShotMethod]:
    """Look a method up.

    Args:
        name: Key of ``METHODS`` or ``BASELINES``, or ``package.module:Name`` of a class of one's own; options behind it
            are passed over.

    Returns:
        The class.

    Raises:
        UserError: There is none of the name, with the nearest names; or what a plug-in names is no method's class.
    """
    table = methods()
    if name in table:
        return table[name]
    bare, _ = parse(name)
    if bare in table:
        return table[bare]
    if ":" in bare:
        return _of_a_user(bare)
    near = difflib.get_close_matches(name, table, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(sorted(table))}."
    raise UserError(f"unknown method {name!r}: {hint}")


def known(name: str) -> type[FewShotMethod] | None:
    """Look a method up as ``find`` does; None where there is none of the name."""
    try:
        return find(name)
    except UserError:
        return None


def _of_a_user(name: str) -> type[FewShotMethod]:
    """Import a method that is in no table, and check that it is one."""
    found = plugins.load(name, "method")
    derive = "derive it from otfew.method.MethodBase"
    if not inspect.isclass(found):
        raise UserError(f"method {name!r} is {_called(found)} and no class: name the class of a method; {derive}.")
    lacking = [attribute for attribute in _contract() if not hasattr(found, attribute)]
    if not any("__call__" in vars(base) for base in found.__mro__):
        lacking.insert(0, "__call__")
    if lacking:
        raise UserError(f"the class {name!r} is no method, since it lacks {lacking[0]!r}: {derive}.")
    unwritten: frozenset[str] = getattr(found, "__abstractmethods__", frozenset())
    if unwritten:
        raise UserError(f"method {name!r} lacks its method {min(unwritten)!r}: write it.")
    return cast("type[FewShotMethod]", found)


def _contract() -> Mapping[str, Any]:
    """Return the attributes that every method has."""
    from otfew.method import FewShotMethod

    return FewShotMethod.__annotations__


def _called(thing: object) -> str:
    """Say what something is."""
    return "a function" if inspect.isroutine(thing) else f"of type {type(thing).__name__}"


def accepts(method: Callable[..., Any], option: str) -> bool:
    """Tell whether a constructor takes an option."""
    taken = parameters(method)
    return option in taken or any(p.kind is inspect.Parameter.VAR_KEYWORD for p in taken.values())


def parameters(method: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """Return what a constructor takes, by name; nothing where it is written in another language and does not say."""
    try:
        return inspect.signature(method).parameters
    except ValueError:
        return {}


def build(name: str, /, **options: Any) -> FewShotMethod:
    """Construct a method.

    Args:
        name: As in ``find``.
        **options: Of its constructor, as objects, or as run folders have them; they go before those behind the name.

    Returns:
        The method.

    Raises:
        UserError: Unknown name or option, an option of a wrong type or out of range, or ``base_mean`` missing where the
            method needs it.
    """
    name, own = parse(name)
    options = {**own, **options}
    method = find(name)
    unknown = [option for option in options if not accepts(method, option)]
    if unknown:
        known = [p for p in parameters(method) if p not in {"args", "kwargs"}]
        raise UserError(f"method {name!r} has no option {unknown[0]!r}; it takes {', '.join(known) or 'none'}.")
    if method.needs_base_mean and options.get("base_mean") is None:
        raise UserError(
            f"method {name!r} needs base_mean, the mean global vector of the base classes: "
            "give a data set with a train split, or a features file with base_mean."
        )
    # Not every option can be written as a number or a name; what stands for it in a run folder is the class's affair.
    recorded = getattr(method, "recorded_options", dict)
    if name in methods():
        return method(**recorded(options))
    made: FewShotMethod = plugins.called(method, name, "method", **recorded(options))
    return made

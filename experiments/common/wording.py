"""Sentences about the command line: which option a mistake is about, and what was probably meant.

The library names arguments, in backticks; a command's user knows options. What the parser has against the command line
arrives as an event of tyro's, before tyro draws it as a box.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_MARKED = re.compile(r"(?<![\w`])`([^`\n]+)`(?![\w`])")
"""A name in backticks; a file's name may hold one, so letters on the outside count as a part of something else."""
_KINDS = {"INT": ("a whole number", "whole numbers"), "FLOAT": ("a number", "numbers")}
"""What tyro writes for a type -> one and several of it in words."""


def options_of(config: type) -> dict[str, str]:
    """List the options of a command.

    Args:
        config: A dataclass; its fields may be dataclasses.

    Returns:
        Field, with dots before those of nested dataclasses -> option, such as ``head.batch_size`` -> --head.batch-size.
        Fields that stand on the command line without an option are left out.
    """
    return dict(_options(config, "", ""))


def _options(config: type, path: str, prefix: str) -> Iterable[tuple[str, str]]:
    """Walk the fields of a dataclass: ``path`` and ``prefix`` are what stands before their names and options."""
    hints = typing.get_type_hints(config, include_extras=True)
    for field in dataclasses.fields(config):
        annotation = hints[field.name]
        extras: tuple[Any, ...] = getattr(annotation, "__metadata__", ())
        if extras:
            annotation = typing.get_args(annotation)[0]
        named = [extra.name for extra in extras if isinstance(getattr(extra, "name", None), str)]
        name = named[0] if named else field.name.replace("_", "-")
        if dataclasses.is_dataclass(annotation) and isinstance(annotation, type):
            yield from _options(annotation, f"{path}{field.name}.", f"{prefix}{name}." if name else prefix)
        elif not any("Positional" in repr(extra) for extra in extras):
            yield f"{path}{field.name}", f"--{prefix}{name}"


def translate(text: str, options: Mapping[str, str], inside: str = "") -> str:
    """Write options where a sentence names arguments in backticks.

    Args:
        text: A sentence of the library's, such as "`shot` must be at least 1, not 0."
        options: Of the command that runs, from ``options_of``.
        inside: Field whose dataclass the sentence comes from, where that is known: its options go first.

    Returns:
        The sentence with --shot. Other names lose their marks; what is more than a name is put into quotes.
    """

    def say(found: re.Match[str]) -> str:
        name = found[1]
        return _option(name, options, inside) or (name if re.fullmatch(r"\S+", name) else f"'{name}'")

    return _MARKED.sub(say, text)


def _option(name: str, options: Mapping[str, str], inside: str) -> str | None:
    """Find the option of an argument: in the part that complains, by its path, by its spelling, or the only one."""
    for path in (f"{inside}.{name}", name):
        if path in options:
            return options[path]
    spelled = f"--{name.replace('_', '-')}"
    if spelled in options.values():
        return spelled
    within = [option for path, option in options.items() if path.endswith(f".{name}")]
    return within[0] if len(within) == 1 else None


def nearest(word: str, known: Iterable[str]) -> str:
    """Say what was probably meant by an unknown name: " (did you mean --shot?)", or "" where nothing is near.

    Args:
        word: What was written.
        known: What there is.
    """
    names = list(dict.fromkeys(known))
    asked = word.replace("_", "-")
    bare = asked.lstrip("-")
    near = [name for name in names if bare and (name.rpartition(".")[2] == bare or name.startswith(f"{asked}-"))]
    near += difflib.get_close_matches(asked, names, n=3, cutoff=0.7)
    near = list(dict.fromkeys(near))[:3]
    return f" (did you mean {_either(near)}?)" if near else ""


def refusal(event: Any, options: Mapping[str, str], arguments: Sequence[str]) -> str | None:
    """Say what the parser has against the command line, without a full stop.

    Args:
        event: A ``ParseErrorEvent`` of tyro's, known by the name of its class: the module that has it is private.
        options: Of the command, from ``options_of``.
        arguments: The command line.

    Returns:
        Half a sentence, or None for a kind of event that this function does not know.
    """
    kind = type(event).__name__
    if kind == "UnrecognizedArgs":
        return _unknown(event.tokens, options)
    if kind == "MissingArgs":
        return f"{', '.join(missing.arg.display_name() for missing in event.missing_arguments)} must be given"
    if kind == "InvalidChoice":
        return f"{event.argument.display_name()} must be {_either(_choices(event))}, not {event.value!r}"
    if kind == "BadValue":
        wanted = event.argument.lowered.nargs
        return f"{event.argument.display_name()} needs {f'{wanted} values' if wanted not in {1, '+'} else 'a value'}"
    if kind == "InstantiationFailure":
        return _not_of_its_type(event, arguments)
    return None


def _unknown(tokens: Sequence[str], options: Mapping[str, str]) -> str:
    """Name what nobody asked for; what stands behind an unknown option is its value, and no mistake of its own."""
    unknown = list(dict.fromkeys(token.partition("=")[0] for token in tokens if re.match("--?[A-Za-z]", token)))
    if not unknown:
        return f"nothing takes the argument {tokens[0]!r}"
    known = [*options.values(), "--help"]
    negated = [option.replace("--", "--no-", 1) for option in known]
    said = [f"{_shown(token)}{nearest(token, negated if token.startswith('--no-') else known)}" for token in unknown]
    return f"unknown option{'s' if len(said) > 1 else ''} {', '.join(said)}"


def _choices(event: Any) -> list[str]:
    """List what a value may be, in the order of the help: the parser may keep them as a set."""
    shown = re.split(r"[{}|,\[\]\s]+", str(event.argument.lowered.metavar))
    # "None" is the parser's word for leaving the option out.
    return sorted(
        {*event.choices} - {"None"}, key=lambda choice: (shown.index(choice) if choice in shown else 0, choice)
    )


def _not_of_its_type(event: Any, arguments: Sequence[str]) -> str:
    """Say which type a value must have."""
    if event.argument is None:
        return str(event.message)
    names = event.argument.lowered.name_or_flags
    name = event.argument.display_name()
    types = set(re.findall("[A-Z]+", re.sub(r"\{.*?\}", "", str(event.argument.lowered.metavar))))
    if len(types) != 1 or not types <= _KINDS.keys():
        return f"{name}: {str(event.message).strip().partition(chr(10))[0].rstrip('.')}"
    values = _values(names, arguments)
    one, several = _KINDS[types.pop()]
    given = f", not {' '.join(map(repr, values))}" if values else ""
    return f"{name} must be {one if event.argument.lowered.nargs == 1 else several}{given}"


def _values(names: Sequence[str], arguments: Sequence[str]) -> list[str]:
    """Find what stands behind an option, where it stands last."""
    found: list[str] = []
    inside = False
    for word in arguments:
        option, equals, value = word.partition("=")
        if option.startswith("--"):
            inside = option.replace("_", "-") in names
            if inside:
                found = [value] if equals else []
        elif inside:
            found.append(word)
    return found


def _shown(token: str) -> str:
    """Write a word of the user's so that no control character reaches the terminal."""
    return token if token.isprintable() else repr(token)


def _either(names: Sequence[str]) -> str:
    """Write "a", "a or b", "a, b or c"."""
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last

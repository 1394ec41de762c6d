"""What a method by transport is compared with: controls that its class names, and that are fixed before any figure.

A control stands for the same thing without transport only if all else is the same: it runs on the same nodes, and every
option that both take, the weights of the nodes first, has the same value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from otfew import catalogue
from otfew.evaluation.lineup import Entry
from otfew.method import FewShotMethod
from otfew.scores.node_weights import CrossReference

SCALES = frozenset({"temperature"})
"""Options that multiply logits, and so change no answer."""
USUAL = repr(CrossReference())
"""The weights of a control of nodes that takes none."""


@dataclass(frozen=True)
class Contrasts:
    """With what an entry is compared.

    Attributes:
        found: Control, as the method's class names it -> name of the entry that is it.
        missing: Why others, or all, are not there; "" where none is missing.
    """

    found: dict[str, str]
    missing: str


def contrasts(entries: Sequence[Entry], shot: int) -> dict[str, Contrasts]:
    """Find the controls of the entries that transport something.

    Args:
        entries: All of a run, in order: of several that are a control, the first is taken.
        shot: Labelled images of each class.

    Returns:
        By name of entry, in order.
    """
    run = [_Known(entry) for entry in entries]
    found = {known.entry.name: _of(known, run, shot) for known in run}
    return {name: own for name, own in found.items() if own is not None}


@dataclass(frozen=True)
class _Known:
    """An entry with the options that its method was constructed with."""

    entry: Entry

    @cached_property
    def method(self) -> FewShotMethod | None:
        """The method, where constructing it needs nothing that is not known here."""
        own = self.entry
        return None if isinstance(own.method, str) and own.kind.needs_base_mean else own.build()

    @cached_property
    def options(self) -> dict[str, str]:
        """Name -> value as ``repr`` writes it; defaults count as given."""
        own = self.entry
        written = catalogue.parse(own.method)[1] if isinstance(own.method, str) else {}
        given = {**written, **own.options}
        return {
            name: repr(getattr(self.method, name, given.get(name, parameter.default)))
            for name, parameter in catalogue.parameters(own.kind).items()
        }

    def controls(self, shot: int) -> tuple[str, ...] | None:
        """Ask the method for its controls; one that was not derived from ``MethodBase`` answers by its class."""
        ask = getattr(self.method, "controls", None)
        named: tuple[str, ...] | None = self.entry.contrasts if ask is None else ask(shot)
        return named


def _of(own: _Known, run: Sequence[_Known], shot: int) -> Contrasts | None:
    """Find the controls of one entry."""
    named = own.controls(shot) if own.entry.transport else None
    if named is None:
        return None
    if not named:
        where = f" with {shot} shots" if own.entry.contrasts else ""
        return Contrasts({}, f"no method without transport does the same{where}")
    found: dict[str, str] = {}
    missing: dict[str, list[str]] = {}
    for name in named:
        method, asked = catalogue.parse(name)
        alike = [
            other
            for other in run
            if other is not own and other.entry.nodes == own.entry.nodes and other.entry.kind is catalogue.known(method)
        ]
        differing = {other.entry.name: _differing(own, other, method, asked) for other in alike}
        near = {entry: options for entry, options in differing.items() if not asked.keys() & set(options)}
        fitting = next((entry for entry, options in near.items() if not options), None)
        if fitting is not None:
            found[name] = fitting
            continue
        other_options = next(iter(near.values()), [])
        why = f"ran with other {' and '.join(other_options)}" if near else f"did not run on nodes {own.entry.nodes}"
        missing.setdefault(why, []).append(name)
    return Contrasts(found, "; ".join(f"{' and '.join(names)} {why}" for why, names in missing.items()))


def _differing(own: _Known, other: _Known, method: str, asked: dict[str, object]) -> list[str]:
    """Name the options in which another entry is not what a control of this one is."""
    wanted = {name: own.options[name] for name in other.options.keys() & own.options.keys() - SCALES}
    if "weights" not in other.options and own.options.get("weights", USUAL) != USUAL:
        return ["weights"]
    if asked:
        named = _Known(Entry(method, method, other.entry.nodes, asked)).options
        wanted |= {name: named[name] for name in asked}
    found = sorted(name for name, value in wanted.items() if other.options[name] != value)
    return [*found, *(["class prior"] if other.entry.class_prior != own.entry.class_prior else [])]

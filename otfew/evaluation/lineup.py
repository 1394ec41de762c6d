"""Which methods run, on which nodes, and why others do not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from otfew import catalogue, plugins
from otfew.choices import ClassPrior
from otfew.errors import UserError
from otfew.features.material import Material
from otfew.method import FewShotMethod, check_method
from otfew.transport import Solver

Given = str | tuple[str, Mapping[str, Any] | FewShotMethod] | FewShotMethod
"""How a method is given: by name (of ours, or package.module:Name), by name with options of its constructor, behind a
colon as ``catalogue.parse`` reads them or as a dictionary, or as an object, bare or with a name."""

PLAIN = (str, int, float, bool, type(None))
"""Types of options that JSON has."""


@dataclass(frozen=True)
class Entry:
    """A method in a run: which, with what options, on which nodes, under a name of its own.

    Attributes:
        name: In reports; unique in a run.
        method: Key of the catalogue, or an object that follows ``otfew.method.FewShotMethod``.
        nodes: Canonical kind of nodes.
        options: Of the constructor; objects among them are told apart by ``repr``. The base mean is added when it is
            known.
        class_prior: What it is told of the classes' shares in the queries, if not what the run says.
    """

    name: str
    method: str | FewShotMethod
    nodes: str
    options: Mapping[str, Any] = field(default_factory=dict)
    class_prior: ClassPrior | None = None

    @property
    def kind(self) -> type[FewShotMethod]:
        """Return the method's class."""
        return catalogue.find(self.method) if isinstance(self.method, str) else type(self.method)

    @property
    def transport(self) -> bool:
        """True where the method is built on optimal transport: the catalogue says so, or its class names contrasts."""
        return self.kind in catalogue.ot_methods().values() or bool(self.contrasts)

    @property
    def contrasts(self) -> tuple[str, ...]:
        """Methods that do the same without transport, as the class names them; see ``otfew.method.MethodBase``."""
        return tuple(getattr(self.kind, "contrasts", ()))

    def build(self, **known: Any) -> FewShotMethod:
        """Construct the method; an object is there already.

        Args:
            **known: Further options, which go before its own.

        Raises:
            UserError: An option that is unknown, of a wrong type or out of range, or that an object cannot be given.
        """
        if isinstance(self.method, str):
            return catalogue.build(self.method, **{**self.options, **known})
        if known:
            raise UserError(f"method {self.name!r} is an object already: give its constructor {', '.join(known)}.")
        return self.method

    def describe(self) -> dict[str, Any]:
        """Return what tells it from other entries, JSON-ready."""
        options = {key: value if isinstance(value, PLAIN) else repr(value) for key, value in self.options.items()}
        told = {"class_prior": self.class_prior} if self.class_prior else {}
        method = self.method if isinstance(self.method, str) else repr(self.method)
        return {"method": method, "nodes": self.nodes, "options": options, **told}


def choose(
    given: Sequence[Given], material: Material, solver: str | Solver, device: str
) -> tuple[list[Entry], dict[str, str]]:
    """Settle who runs.

    Args:
        given: Methods; "all" stands for every method that applies, alone or beside others.
        material: What they run on.
        solver: Transport solver, given to the methods that take one, unless their own options name another.
        device: Where features are extracted, if it takes their values to tell whether a method applies.

    Returns:
        Entries, in the order given, and name -> reason for the methods that "all" leaves out.

    Raises:
        UserError: No method, an unknown one, one that does not apply, or two under one name.
    """
    if not given:
        raise UserError("`methods` names no method: give some, or all; otfew list prints them.")
    entries: dict[str, Entry] = {}
    not_run: dict[str, str] = {}
    kept: dict[str, bool] = {}
    applies = _Applies(material, solver, device)
    for one, named in _asked(given):
        try:
            entry = applies.entry(one)
        except UserError as error:
            if named:
                raise
            not_run[str(one)] = str(error).rstrip(".")
            continue
        if entries.get(entry.name, entry) != entry:
            raise UserError(f"two methods of this run are called {entry.name!r}: give one of them as (NAME, METHOD).")
        entries[entry.name] = entry
        kept[entry.name] = named or kept.get(entry.name, False)
    _leave_presets_out(entries, not_run, kept)
    return list(entries.values()), not_run


def _asked(given: Sequence[Given]) -> Iterator[tuple[Given, bool]]:
    """Write "all" out; True beside those that were named."""
    for one in given:
        if isinstance(one, str) and one == "all":
            yield from ((name, False) for name in catalogue.methods())
        else:
            yield one, True


class _Applies:
    """Makes entries of methods that can run on a material; whether there are base classes is asked once."""

    def __init__(self, material: Material, solver: str | Solver, device: str) -> None:
        self._material, self._solver, self._device = material, solver, device
        self._base_missing: str | None = None

    def entry(self, given: Given) -> Entry:
        """Make an entry, or raise ``UserError`` where the method is unknown or does not apply."""
        if isinstance(given, str):
            method, options = catalogue.parse(given)
            return self._named(_entitled(method, options), method, options)
        if not isinstance(given, tuple):
            return self._object(getattr(given, "name", "") or type(given).__name__, given)
        if len(given) != 2 or not isinstance(given[0], str):
            raise UserError(f"`methods` has {given!r}: a tuple is a name, then options or an object.")
        name, own = given
        if not isinstance(own, Mapping):
            return self._object(name, own)
        return self._named(_entitled(name, own), name, own)

    def _object(self, name: str, method: FewShotMethod) -> Entry:
        """Make an entry of a method that somebody has constructed."""
        check_method(method)
        nodes = self._material.nodes_spec(method.nodes)
        check_sign(name, type(method), self._material, nodes, self._device)
        return Entry(name, method, nodes)

    def _named(self, name: str, method: str, own: Mapping[str, Any]) -> Entry:
        """Make an entry of a method of the catalogue."""
        kind = catalogue.find(method)
        nodes = self._material.nodes_spec(kind.nodes)
        if kind.needs_base_mean:
            if self._base_missing is None:
                self._base_missing = self._material.base_mean_missing()
            if self._base_missing:
                raise UserError(f"method {method!r} needs the mean of the base classes, but {self._base_missing}.")
        options: dict[str, Any] = {"solver": self._solver} if catalogue.accepts(kind, "solver") else {}
        entry = Entry(name, method, nodes, {**options, **self._material.learned(method), **own})
        if not kind.needs_base_mean:
            entry.build()
        check_sign(method, kind, self._material, nodes, self._device)
        return entry


def _entitled(method: str, options: Mapping[str, Any]) -> str:
    """Name an entry after its method and options."""
    return " ".join([method, *(f"{key}={value}" for key, value in options.items())])


def plugged_in(protocol: Mapping[str, Any], entries: Sequence[Entry]) -> dict[str, Any]:
    """Say which source the plug-ins of a run are made of: nothing where it has none.

    Args:
        protocol: With what ``Material.describe`` says.
        entries: Who runs.

    Returns:
        "plugins": ``package.module:Name`` -> digest, for methods, their nodes and solvers, data set and backbone.
    """
    backbone = protocol["backbone"] or {}
    names: list[object] = [protocol["data"]["dataset"], backbone.get("architecture")]
    for entry in entries:
        names += [entry.method, entry.nodes, entry.options.get("solver")]
    found = plugins.digests(names)
    return {"plugins": found} if found else {}


def _leave_presets_out(entries: dict[str, Entry], not_run: dict[str, str], named: Mapping[str, bool]) -> None:
    """Move presets of methods that run from one to the other, with the reason, unless they were named."""
    ran = {entry.name: entry.nodes for entry in entries.values()}
    for entry in [e for e in entries.values() if e.kind.preset_of in ran and not named[e.name]]:
        del entries[entry.name]
        why = (
            "which ran on the same nodes"
            if entry.nodes == ran[entry.kind.preset_of]
            # Beside methods that see each image once, more crops would pass for a better method. The words are part of
            # results.json, and of its bytes.
            else f"on nodes of its own: name it, or give --nodes {entry.nodes} to all methods"
        )
        not_run[entry.name] = f"a preset of {entry.kind.preset_of}, {why}"


def check_sign(name: str, kind: type[FewShotMethod], material: Material, nodes: str, device: str) -> None:
    """Raise ``UserError`` where a method needs features of at least 0 and the material's are not.

    Args:
        name: Of the method.
        kind: Its class.
        material: What it would run on.
        nodes: On which nodes.
        device: Where they are extracted.
    """
    if not kind.needs_nonnegative:
        return
    found = material.features(nodes, device)
    features = found.pooled if kind.pools else found
    least = min(float(part.nodes.min()) for part in (features, features.queries) if part is not None)
    if least < 0:
        raise UserError(
            f"method {name!r} needs features of at least 0, since it takes a power of them, but these reach "
            f"{least:.3g}: take a backbone whose features end in ReLU."
        )


def pick_reference(given: str, entries: Sequence[Entry]) -> str:
    """Return the method that the others are compared with: the given one, cosine-centroid if it runs, or the first.

    Transductive methods have a reference of their own, see ``otfew.evaluation.figures``; the first is one only where
    all are.

    Raises:
        UserError: The given one does not run.
    """
    names = [entry.name for entry in entries]
    if not names:
        raise UserError("no method applies here: otfew list prints the methods, `methods` chooses them.")
    if given and given not in names:
        raise UserError(f"`reference` {given!r} is not among the methods of this run: {', '.join(names)}.")
    inductive = [entry.name for entry in entries if not entry.kind.transductive]
    return given or ("cosine-centroid" if "cosine-centroid" in names else next(iter(inductive or names)))

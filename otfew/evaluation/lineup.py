"""Which methods run, on which nodes, and why others do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from otfew import catalogue
from otfew.errors import UserError
from otfew.features.material import Material
from otfew.method import FewShotMethod


@dataclass(frozen=True)
class Place:
    """One method's place in a run.

    Attributes:
        name: Key of the catalogue.
        nodes: Canonical kind of nodes.
        options: JSON-ready constructor options; the base mean is added when it is known.
    """

    name: str
    nodes: str
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def method(self) -> str:
        """Return the key of the catalogue."""
        return self.name

    @property
    def kind(self) -> type[FewShotMethod]:
        """Return the method's class."""
        return catalogue.find(self.name)


def choose(names: Sequence[str], material: Material, solver: str, device: str) -> tuple[list[Place], dict[str, str]]:
    """Settle who runs.

    Args:
        names: Of methods; "all" alone takes every method that applies.
        material: What they run on.
        solver: Name of the transport solver, given to the methods that take one.
        device: Where features are extracted, if it takes their values to tell whether a method applies.

    Returns:
        Places, in the order of the names, and name -> reason for the methods that "all" leaves out.

    Raises:
        UserError: No name, an unknown one, or one that does not apply.
    """
    if not names:
        raise UserError("--methods names no method: give some, or all; --list prints them.")
    everything = list(names) == ["all"]
    chosen = list(catalogue.methods()) if everything else list(dict.fromkeys(names))
    places: list[Place] = []
    not_run: dict[str, str] = {}
    base_missing: str | None = None
    for name in chosen:
        kind = catalogue.find(name)
        try:
            nodes = material.nodes_spec(kind.nodes)
            if kind.needs_base_mean:
                base_missing = material.base_mean_missing() if base_missing is None else base_missing
                if base_missing:
                    raise UserError(f"method {name!r} needs the mean of the base classes, but {base_missing}.")
            options: dict[str, Any] = {"solver": solver} if catalogue.accepts(kind, "solver") else {}
            options |= material.learned(name)
            if not kind.needs_base_mean:
                catalogue.build(name, **options)
            check_sign(name, kind, material, nodes, device)
        except UserError as error:
            if not everything:
                raise
            not_run[name] = str(error).rstrip(".")
            continue
        places.append(Place(name, nodes, options))
    if everything:
        ran = {place.name: place.nodes for place in places}
        for place in [p for p in places if p.kind.preset_of in ran]:
            places.remove(place)
            why = (
                "which ran on the same nodes"
                if place.nodes == ran[place.kind.preset_of]
                # Beside methods that see each image once, more crops would pass for a better method.
                else f"on nodes of its own: name it, or give --nodes {place.nodes} to all methods"
            )
            not_run[place.name] = f"a preset of {place.kind.preset_of}, {why}"
    return places, not_run


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
    features = material.features(nodes, device)
    least = float((features.pooled if kind.pools else features).nodes.min())
    if least < 0:
        raise UserError(
            f"method {name!r} needs features of at least 0, since it takes a power of them, but these reach "
            f"{least:.3g}: take a backbone whose features end in ReLU."
        )


def pick_reference(given: str, places: Sequence[Place]) -> str:
    """Return the method that the others are compared with: the given one, cosine-centroid if it runs, or the first.

    Transductive methods have a reference of their own, see ``report.compare``; the first is one only where all are.

    Raises:
        UserError: The given one does not run.
    """
    names = [place.name for place in places]
    if not names:
        raise UserError("no method applies here: --list prints the methods, --methods chooses them.")
    if given and given not in names:
        raise UserError(f"--reference {given!r} is not among the methods of this run: {', '.join(names)}.")
    inductive = [place.name for place in places if not place.kind.transductive]
    return given or ("cosine-centroid" if "cosine-centroid" in names else next(iter(inductive or names)))

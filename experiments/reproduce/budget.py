"""Whether a verdict found here bears on a paper's claim: what was spent here, beside what the paper spent.

One rule for all rows, in claims.lock. A row bears on the claim where every network behind it is of the paper's kind,
width, epochs, episodes of meta-training, training images and resolution are at least half the paper's, its validation
curve is flat over the last tenth of its epochs, it was trained on the kind of nodes that the arm is tested on, and
the data set, whole, is one of the paper's. An arm without meta-training beside one with it is what the claim compares
that with, and need have none. Ratios of times rest on none of this.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from otfew.backbones.cards import Card
from otfew.experiments.reproduce.claims import Arm, Claim, Ledger, Spent

ENOUGH = 0.5
"""Share of the paper's budget from which a verdict bears on its claim."""
FLAT = 0.5
"""Points by which the mean of a validation curve's last tenth may be above that of the tenth before."""
YES, NO = "yes", "not at this budget"
CALLED = {"omniglot-rotated": "omniglot with rotated classes"}
"""Data sets that a paper's budget calls by another name than their loader."""
STAGE_1 = "stage-1"
"""Name of the curve of a long tail's first stage, which bears on all arms."""
Curves = tuple[tuple[float, ...], ...]
WIDTHS = {"quarter": 0.25, "half": 0.5}
COUNTED = {
    "width": "width {} of {}",
    "epochs": "{} of {} epochs",
    "meta_episodes": "{} of {} episodes of meta-training",
    "images": "{} of {} training images",
    "resolution": "{} of {} px",
}
"""Amounts that a budget may name -> how they are written beside the paper's."""


@dataclass(frozen=True)
class Own(Spent):
    """What stands behind one arm of a run here.

    Attributes:
        base: Name of the pre-trained network; those that only meta-training tells apart are no independent networks.
            Empty where the run trains its own.
        partial: Which part of the data set there was, or "".
        curves: Validation accuracies by epoch, in per cent, of each method that validated; none where they were not
            kept.
        nodes: Kind of nodes that it is tested on, behind "fcn", "grid" or "sampling"; "" where there are none.
        trained_nodes: Kind that the network was trained on.
    """

    base: str = ""
    partial: str = ""
    curves: Curves = ()
    nodes: str = ""
    trained_nodes: str = ""


@dataclass(frozen=True)
class Bearing:
    """Whether a row bears on the paper's claim.

    Attributes:
        applies: False for questions of ours, and for claims that nothing was measured for.
        budget: Here and in the paper, a phrase for each amount.
        missing: Those of the phrases, and of others, that keep it from bearing.
        bases: Names of the pre-trained networks behind it.
    """

    applies: bool = False
    budget: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    bases: frozenset[str] = field(default_factory=frozenset)

    @property
    def bears(self) -> bool:
        """Whether the rule lets it."""
        return self.applies and not self.missing

    @property
    def text(self) -> str:
        """In words."""
        if not self.applies:
            return ""
        return YES if self.bears else f"{NO}: {', '.join(self.missing)}"


def bearings(
    ledger: Ledger, protocols: Mapping[str, Mapping[str, Any]], cards: Mapping[str, Card]
) -> dict[str, Bearing]:
    """Apply the rule to all claims.

    Args:
        ledger: The claims, and the budgets of their papers.
        protocols: Run -> on what it rests, from its record.
        cards: Of the zoo.
    """
    return {
        claim.id: bearing(claim, ledger.budgets.get(claim.budget), owns(claim, protocols, cards))
        for claim in ledger.claims.values()
    }


def bearing(claim: Claim, paper: Spent | None, found: Sequence[Own]) -> Bearing:
    """Apply the rule to one claim.

    Args:
        claim: Which.
        paper: What its paper spent; None where that is of no matter, as in a ratio of times.
        found: What stands behind its arms here.
    """
    bases = frozenset(own.base for own in found if own.base)
    if not found:
        return Bearing()
    if claim.ours or paper is None:
        return Bearing(not claim.ours, _phrases(found, None), (), bases)
    # An arm without meta-training beside one with it is what that is compared with.
    trained = any(own.meta_episodes for own in found)
    asked = [replace(paper, meta_episodes=None) if trained and own.meta_episodes == 0 else paper for own in found]
    missing = dict.fromkeys(phrase for own, each in zip(found, asked, strict=True) for phrase in _missing(own, each))
    return Bearing(True, _phrases(found, paper), tuple(missing), bases)


def owns(claim: Claim, protocols: Mapping[str, Mapping[str, Any]], cards: Mapping[str, Card]) -> list[Own]:
    """Say what stands behind each arm of a claim, as far as its runs have records."""
    arms = dict.fromkeys((*claim.left, *claim.right))
    return [own for arm in arms if arm.run in protocols for own in _of_arm(arm, protocols[arm.run], cards)]


def rising(curve: Sequence[float]) -> float:
    """Say by how many points the last tenth of a validation curve is above the tenth before it, on average.

    A tenth is of two epochs at least; a curve of fewer than four is said to rise without end.
    """
    tenth = max(2, round(len(curve) / 10))
    if len(curve) < 2 * tenth:
        return float("inf")
    last, before = curve[-tenth:], curve[-2 * tenth : -tenth]
    return sum(last) / tenth - sum(before) / tenth


def _missing(own: Own, paper: Spent) -> Iterator[str]:
    if paper.network and own.network != paper.network:
        yield f"{own.network or 'no network'} for {paper.network}"
    else:
        for name in COUNTED:
            asked, had = getattr(paper, name), getattr(own, name) or 0
            if asked is not None and had < ENOUGH * asked:
                yield _counted(name, had, asked)
        if paper.epochs is not None:
            yield from _curve(own)
    if paper.data and not set(own.data) & set(paper.data):
        yield f"{' and '.join(own.data)} for {' or '.join(paper.data)}"
    elif paper.learned and not set(own.learned) & set(paper.learned):
        yield f"trained on {' and '.join(own.learned) or 'nothing'} for {' or '.join(paper.learned)}"
    if own.partial:
        yield own.partial
    if own.nodes and own.trained_nodes and own.nodes != own.trained_nodes:
        yield f"tested on {own.nodes}, trained on {own.trained_nodes} nodes"


def _curve(own: Own) -> Iterator[str]:
    by = max((rising(curve) for curve in own.curves), default=None)
    if by is None:
        yield "validation curve not kept"
    elif by > FLAT:
        yield f"validation still rising ({by:+.1f} points)" if by < float("inf") else "too few epochs for a curve"


def _phrases(found: Sequence[Own], paper: Spent | None) -> tuple[str, ...]:
    """Write what was spent here, beside what the paper spent."""
    phrases: dict[str, None] = {}
    for own in found:
        network = (
            own.network if paper is None or paper.network in {"", own.network} else f"{own.network} ({paper.network})"
        )
        phrases[network] = None
        for name in COUNTED:
            had, asked = getattr(own, name), None if paper is None else getattr(paper, name)
            if had is not None and (had or asked):
                phrases[_counted(name, had, asked)] = None
    return tuple(phrase for phrase in phrases if phrase)


def _counted(name: str, had: float, asked: float | None) -> str:
    """Write an amount beside the paper's, or alone where the paper names none."""
    if asked is None:
        return COUNTED[name].replace(" of {}", "").format(f"{had:,g}")
    return COUNTED[name].format(f"{had:,g}", f"{asked:,g}")


def _of_arm(arm: Arm, protocol: Mapping[str, Any], cards: Mapping[str, Card]) -> Iterator[Own]:
    """Read a record's protocol, of whichever command it is."""
    panel, _, method = arm.key.rpartition(" / ")
    part = protocol.get(panel, protocol) if panel else protocol
    if "backbone" not in part and "setting" not in part and not panel:
        # Of a run of one panel, whose arms are not named after it.
        part = next((value for value in part.values() if isinstance(value, Mapping) and "backbone" in value), part)
    if "setting" in part:
        setting = part["setting"]
        curves = _curves_of(part, STAGE_1, method or arm.key)
        yield _trained_here(setting["backbone"], setting["recipe"]["epochs"], setting, curves)
    elif isinstance(part.get("backbone"), str):
        yield _trained_here(part["backbone"], part["epochs"], part, _curves_of(part, method or arm.key))
    elif "data" in part:
        yield _of_checkpoint(part, method or arm.key, cards)
    else:
        # Times, on which no network and no data bear.
        yield Own()


def _trained_here(network: str, epochs: int, setting: Mapping[str, Any], curves: Curves) -> Own:
    images = setting.get("images", {}).get("train", [None])[0]
    return Own(
        *named(network),
        epochs=epochs,
        resolution=setting["resolution"],
        images=images,
        data=(_called(setting["dataset"]),),
        curves=curves,
    )


def _curves_of(protocol: Mapping[str, Any], *names: str) -> Curves:
    """Read the curves that a run kept of trainings of its own, one of each seed."""
    kept = protocol.get("val_curves", {})
    return tuple(tuple(curve) for name in names for curve in kept.get(name, {}).values())


def _of_checkpoint(part: Mapping[str, Any], method: str, cards: Mapping[str, Card]) -> Own:
    backbone, data = part["backbone"], part["data"]
    nodes = str(part.get("methods", {}).get(method, {}).get("nodes", "")) or _bracketed(method)
    kind = re.split(r"[:,]", nodes)[0]
    partial = next((note for note in data.get("notes", ()) if note.startswith("partial: ")), "")
    partial = re.split("[,;]", partial.removeprefix("partial: "))[0]
    common = {"resolution": part["resolution"], "data": (_called(data["dataset"]),), "partial": partial}
    if backbone is None:
        # Features of a file.
        return Own(nodes=kind, **common)
    network, width = named(backbone["architecture"])
    card = cards.get(backbone["name"])
    if card is None:
        learned = (str(backbone["training_data"]).partition(" (")[0],)
        return Own(network, base=backbone["name"], nodes=kind, learned=learned, **common)
    last = card.protocol
    first = last.get("started_from", {"protocol": last, "name": card.name})
    meta = last["epochs"] * last["episodes_per_epoch"] if "episodes_per_epoch" in last else 0
    trained = str(last.get("method", {}).get("nodes", "fcn"))
    return Own(
        network,
        width,
        epochs=first["protocol"]["epochs"],
        meta_episodes=meta,
        learned=(_called(card.dataset),),
        base=first["name"],
        curves=tuple(tuple(curve) for curve in last.get("val_curves", {}).values()),
        nodes=kind,
        trained_nodes=re.split(r"[:,]", trained)[0],
        **common,
    )


def _called(dataset: str) -> str:
    """Name a data set as budgets of papers do."""
    return CALLED.get(dataset, dataset)


def _bracketed(method: str) -> str:
    """Find the nodes in "deepemd [grid:2,3]"."""
    found = re.search(r"\[(.*)\]$", method)
    return found.group(1) if found else ""


def named(architecture: str) -> tuple[str, float]:
    """Split "resnet12-quarter" into the network and its share of the full width."""
    network, _, width = architecture.rpartition("-")
    return (network, WIDTHS[width]) if width in WIDTHS else (architecture, 1.0)

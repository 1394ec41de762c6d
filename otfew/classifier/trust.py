"""What a fitted classifier knows of its own answers: temperature, evidence, refusals, sets of labels."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from otfew.classifier import automatic, calibration, conformal, evidence, prior, rejection
from otfew.classifier.calibration import Calibration, HeldOut
from otfew.classifier.candidates import Candidate, View, candidates
from otfew.classifier.door import Door
from otfew.classifier.embedder import Embedder, make_embedder
from otfew.classifier.evidence import Evidence
from otfew.classifier.fitting import assemble
from otfew.classifier.holdouts import Photos, rounds
from otfew.classifier.labelled import Labelled
from otfew.classifier.resemblance import Resemblance, resemble
from otfew.classifier.selection import Choice
from otfew.classifier.several import extract_several
from otfew.errors import UserError
from otfew.method import FewShotMethod
from otfew.statistics.temperature import Expected

Floats = npt.NDArray[np.float64]

AUTO = "auto"
"""Name that stands for the choice among candidates."""
NO_CALIBRATION = "a method that sees all new photos at once, of which none can be held out"


@dataclass(frozen=True)
class Chosen:
    """What ``method="auto"`` settled.

    Attributes:
        method: Built.
        embedder: From images to its nodes.
        labelled: Photos with these nodes.
        examined: How it was chosen and judged.
    """

    method: FewShotMethod
    embedder: Embedder
    labelled: Labelled
    examined: automatic.Examined


@dataclass(frozen=True)
class Trust:
    """What held-out photos say of a method.

    Attributes:
        calibration: Temperature and threshold.
        held: Held-out photos of the method.
        evidence: All that is known of the labelled photos.
    """

    calibration: Calibration
    held: HeldOut
    evidence: Evidence

    def calibrated(self, kept: Calibration) -> Trust:
        """Return the same with another temperature and threshold."""
        return replace(self, calibration=kept, evidence=replace(self.evidence, calibration=kept))


def choose(
    images: Any,
    names: npt.NDArray[Any],
    door: Door,
    *,
    given: tuple[Any, Any, Any, Any, Any, Any],
    size: int,
    folder: Path | None,
) -> Chosen:
    """Extract every candidate's view of labelled images, and choose.

    Args:
        images: As in ``FewShotClassifier``.
        names: Their labels.
        door: Through which they come.
        given: ``backbone``, ``nodes``, ``resolution``, ``crop``, ``device`` and ``options`` of ``FewShotClassifier``;
            without a backbone, all networks of the prior's table that are installed are tried.
        size: Images that are embedded at once.
        folder: Where nodes are kept, or None.

    Raises:
        UserError: As ``FewShotClassifier.fit``.
    """
    backbone, nodes, resolution, crop, device, options = given
    if options:
        raise UserError(f"options go with the name of a method, and method {AUTO!r} chooses one: name it.")
    table = prior.load()
    networks = _networks(backbone, table, "fcn" if nodes is None else nodes, resolution, crop, device)
    sides = {name: network.backbone.card.resolution for name, network in networks.items()}
    tried = candidates(
        list(sides.items()),
        nodes=next(iter(networks.values())).extractor.spec if nodes else None,
        resolution=resolution,
        photos=len(names),
    )
    views = list(dict.fromkeys(candidate.view for candidate in tried))
    embedders = {
        view: make_embedder(networks[view.backbone].backbone, view.nodes, view.resolution, crop, device)
        for view in views
    }
    photos, found, kept = extract_several(images, names, embedders, door, size, folder)
    # What is a near-duplicate must be so for all candidates, or their held-out photos would not be the same.
    base = assemble(photos, found[views[0]], kept, embedders[views[0]])
    seen = {view: _photos(replace(base, nodes=found[view])) for view in views}
    order = automatic.ranked(tried, sides, table, len(base.classes), automatic.shots(base.labels, base.groups))
    examined = automatic.examine(order, seen, table)
    view = examined.choice.candidate.view
    labelled = replace(
        base,
        nodes=found[view],
        photos=tuple(replace(p, drift=p.drift if view == views[0] else None) for p in base.photos),
    )
    return Chosen(examined.method, embedders[view], labelled, examined)


def _networks(
    backbone: Any, table: prior.Prior, nodes: str, resolution: int | None, crop: str, device: Any
) -> dict[str, Embedder]:
    """Load the networks that are tried, by name; those that are not installed are left out."""
    if backbone is not None:
        only = make_embedder(backbone, nodes, resolution, crop, device)
        return {only.backbone.name: only}
    found: dict[str, Embedder] = {}
    for name in table.backbones():
        with contextlib.suppress(UserError):
            found[name] = make_embedder(name, nodes, resolution, crop, device)
    if not found:
        # What is wrong with all of them is wrong with the default one, which says so.
        found["default"] = make_embedder(None, nodes, resolution, crop, device)
    return found


def assess(
    method: FewShotMethod,
    embedder: Embedder,
    labelled: Labelled,
    rate: float | None,
    *,
    examined: automatic.Examined | None = None,
    choice: Choice | None = None,
    plain: bool = True,
) -> Trust:
    """Calibrate a method on its labelled photos and gather what is known of them.

    Args:
        method: Follows the contract.
        embedder: From images to its nodes.
        labelled: Photos.
        rate: Share of known photos that may be refused, or None.
        examined: How the method was chosen, where it was just now; its held-out photos are taken.
        choice: How it was chosen, where that was on other photos.
        plain: Whether the method has its default options, which the prior's temperatures are of.

    Raises:
        UserError: Too few photos for the rate, or a method that cannot refuse.
    """
    photos = _photos(labelled)
    if method.transductive:
        _check_kind(method, rate)
        none = HeldOut(np.zeros(0, np.int64), *(np.zeros((0, photos.way)),) * 2, *(np.zeros(0, np.int64),) * 2)
        settled = Calibration(1.0, 1.0, NO_CALIBRATION, 0)
        told = _gather(labelled, photos, none, none, 0, settled, None, choice, f"the method is {NO_CALIBRATION}")
        return Trust(settled, none, told)
    own = photos.pooled() if method.pools else photos
    if examined is None:
        settled, held = calibration.calibrate(method, own, _expected(method, embedder, photos, plain), rate)
        judged, count = held, len(rounds(photos.labels, photos.units))
    else:
        held, judged, count = examined.held, examined.judged, examined.rounds
        settled = calibration.settle(held, examined.temperature, examined.expected, rate)
        choice = examined.choice
    detection = calibration.detection(method, own, held, settled) if rate is not None else None
    reason = "" if len(held.labels) else "each class has one photo, or copies of one"
    told = _gather(labelled, photos, judged, held, count, settled, detection, choice, reason, examined is not None)
    return Trust(settled, held, told)


def at_rate(known: Trust, method: FewShotMethod, labelled: Labelled, rate: float) -> Trust:
    """Refuse at another rate, by the held-out photos that are there.

    Args:
        known: What they say.
        method: Of the classifier.
        labelled: Its photos.
        rate: Share of known photos that may be refused.

    Raises:
        UserError: Too few photos for the rate, or a method that cannot refuse.
    """
    _check_kind(method, rate)
    photos, held = _photos(labelled), known.held
    limit = rejection.threshold(held.sureness() if len(held.labels) else np.zeros(0), rate)
    settled = replace(known.calibration, threshold=limit, rate=rate)
    own = photos.pooled() if method.pools else photos
    told = replace(known.evidence, detection=calibration.detection(method, own, held, settled))
    return Trust(known.calibration, held, told).calibrated(settled)


def check_rate_of(method: FewShotMethod, labelled: Labelled, rate: float | None) -> None:
    """Refuse, without holding any photo out, a rate that ``assess`` would refuse.

    Args:
        method: Of the classifier.
        labelled: Its photos.
        rate: Share of known photos that may be refused, or None.

    Raises:
        UserError: Too few photos for the rate, or a method that cannot refuse.
    """
    if rate is not None:
        _check_kind(method, rate)
        held = sorted({i for out in rounds(labelled.labels.astype(np.int64), labelled.groups) for i in out})
        rejection.check_count(len(np.unique(labelled.groups[held])), rate)


def _check_kind(method: FewShotMethod, rate: float | None) -> None:
    """Raise ``UserError`` where a method that sees all new photos at once is to refuse some."""
    if method.transductive and rate is not None:
        raise UserError(f"`reject` {rate:g} needs held-out photos, but {method.name!r} is {NO_CALIBRATION}.")


def _gather(
    labelled: Labelled,
    photos: Photos,
    judged: HeldOut,
    held: HeldOut,
    count: int,
    settled: Calibration,
    detection: Any,
    choice: Choice | None,
    reason: str,
    nested: bool = False,
) -> Evidence:
    return evidence.gather(
        photos,
        labelled.classes,
        np.arange(len(labelled)),
        judged=judged,
        held=held,
        rounds=count,
        nested=nested,
        calibration=settled,
        detection=detection,
        choice=choice,
        reason=reason,
    )


def _expected(method: FewShotMethod, embedder: Embedder, photos: Photos, plain: bool) -> Expected | None:
    """Look up the temperature of a method of the catalogue with default options; None for others."""
    if not plain:
        return None
    name = method.preset_of or method.name
    view = View(embedder.backbone.name, embedder.preparation.resolution, embedder.extractor.spec)
    shot = max(1.0, automatic.shots(photos.labels, photos.units) - 1)
    return prior.load().expected(Candidate(name, view), photos.way, shot)


def _photos(labelled: Labelled) -> Photos:
    return Photos(labelled.nodes, labelled.labels.astype(np.int64), len(labelled.classes), labelled.groups)


def label_sets(
    method: FewShotMethod, labelled: Labelled, new: Tensor, alpha: Any
) -> tuple[npt.NDArray[np.bool_], Floats]:
    """Find the sets of labels that hold the right one at a rate of 1 - alpha.

    Args:
        method: Of the classifier.
        labelled: Photos.
        new: (images, nodes, channels).
        alpha: Rate of errors that is allowed.

    Returns:
        (images, classes) whether a label is in the set, and (images, classes) conformal p.

    Raises:
        UserError: Too few photos, or a method for which every label takes a fit of its own.
    """
    whole = _photos(labelled)
    # One photo of each group: copies of one another make every new photo look strange.
    first = np.sort(np.unique(whole.units, return_index=True)[1])
    kept = labelled.keep(first)
    alpha = conformal.check_alpha(alpha, len(first))
    if len(kept.classes) < whole.way:
        raise UserError("a class holds nothing but copies of photos of another: mend the labels first.")
    photos = _photos(kept)
    if method.pools:
        photos, new = photos.pooled(), new.mean(1, keepdim=True)
    if not conformal.separable(method, photos):
        name = getattr(method, "name", "") or type(method).__name__
        raise UserError(
            f"sets of labels need a method whose score of a class depends on that class's photos alone, such as "
            f"cosine-centroid, knn or deepemd, and {name!r} is none: give `method`."
        )
    p = conformal.p_values(method, photos, new)
    return p > alpha, p


def resemblance(held: HeldOut, labelled: Labelled, new: Tensor, taken: npt.NDArray[np.int64]) -> Resemblance:
    """Test whether new photos resemble labelled ones.

    Args:
        held: Held-out photos, which say what each labelled one is taken for.
        labelled: Photos.
        new: (images, nodes, channels).
        taken: (images,) the class that each is taken for.
    """
    return resemble_vectors(held, labelled, new.mean(1).double().cpu().numpy(), taken)


def resemble_vectors(held: HeldOut, labelled: Labelled, new: Floats, taken: npt.NDArray[np.int64]) -> Resemblance:
    """Do the same of the mean nodes (images, channels) of new photos."""
    if not len(held.labels):
        return Resemblance(None, len(new))
    which, shares = held.by_photo()
    # One photo of each group, as in all else.
    first = np.unique(labelled.groups[which], return_index=True)[1]
    vectors = labelled.nodes.mean(1).double().cpu().numpy()
    return resemble(vectors[which[first]], shares[first].argmax(1), new, taken)

"""What ``method="auto"`` does on one folder of ``folder_plan``, beside each of its candidates fixed beforehand.

The steps are those of ``FewShotClassifier``, on features that are there already; a test compares the two.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from otfew import catalogue
from otfew.classifier import automatic, rejection, trust
from otfew.classifier.answering import Judge
from otfew.classifier.calibration import Calibration, settle
from otfew.classifier.candidates import Candidate
from otfew.classifier.folder_plan import Folder
from otfew.classifier.folder_pool import Pool
from otfew.classifier.holdouts import Photos
from otfew.classifier.labelled import Labelled
from otfew.classifier.prior import Prior
from otfew.errors import UserError
from otfew.method import FewShotMethod
from otfew.statistics.detection import auroc, sureness
from otfew.statistics.temperature import log_losses, softmax

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

RATES = (0.05, 0.1, 0.2)
"""Shares of known photos that may be refused."""
ALPHAS = (0.1, 0.2)
"""Shares of sets that may lack the right label."""
MOST_SETS = 24
"""Most photos of a folder that sets are made for."""
PROBLEMS = 20_000
"""Most comparisons of a photo and a class that sets of a folder may take, where each is a transport problem."""
CENTROID, DEEPEMD = "cosine-centroid", "deepemd"
"""The two that are always there, on the whole photo at the first resolution."""


def judge(pool: Pool, folder: Folder, prior: Prior) -> dict[str, Any]:
    """Choose on the labelled photos of a folder and ask about its new ones.

    Args:
        pool: That the folder is drawn from.
        folder: Which photos.
        prior: What to expect of each candidate.

    Returns:
        JSON-ready: the choice with its reasons, answers of every candidate, confidence, refusals and sets of labels.
    """
    views = list(pool.features)
    base = pool.labelled(views[0], folder.labelled)
    seen = {view: _photos(base, pool, view, folder.labelled) for view in views}
    sides = {view.backbone: pool.embedders[view].backbone.card.resolution for view in views}
    order = automatic.ranked(pool.tried, sides, prior, len(base.classes), automatic.shots(base.labels, base.groups))
    examined = automatic.examine(order, seen, prior)
    chosen = examined.choice.candidate

    logits = {candidate: _logits(candidate, pool, base, folder) for candidate in pool.tried}
    truth = _truth(pool, base, folder.new)
    known = len(folder.new)
    own = logits[chosen]
    assert own is not None  # it answered when it was chosen
    accuracy = _held_out(examined, pool, base)
    return {
        "number": folder.number,
        "source": pool.source.dataset,
        "classes": list(base.classes),
        "labelled": np.bincount(base.labels).tolist(),
        "groups": len(np.unique(base.groups)),
        "truth": packed(truth),
        "choice": examined.choice.describe(),
        "held_out": accuracy,
        "right": {
            str(candidate): None if found is None else _bits(found[:known].argmax(1) == truth)
            for candidate, found in logits.items()
        },
        "confidence": _confidence(own[:known], truth, examined.temperature),
        "temperature": examined.temperature,
        "refusal": _refusal(own, known, examined),
        "sets": {
            "auto": _sets(examined.method, chosen, pool, base, folder),
            CENTROID: _sets(catalogue.build(CENTROID), Candidate(CENTROID, views[0]), pool, base, folder),
        },
    }


def _photos(base: Labelled, pool: Pool, view: Any, places: tuple[int, ...]) -> Photos:
    return Photos(pool.kept(view, places), base.labels.astype(np.int64), len(base.classes), base.groups)


def _truth(pool: Pool, base: Labelled, places: tuple[int, ...]) -> Indices:
    """Number the classes of photos as the labelled ones' are: (photos,)."""
    names = np.array([pool.classes[c] for c in pool.labels[list(places)]])
    return np.searchsorted(base.classes, names).astype(np.int64)


def _logits(candidate: Candidate, pool: Pool, base: Labelled, folder: Folder) -> Floats | None:
    """Ask a candidate about new photos of known and unknown kinds; None where it cannot answer."""
    method = catalogue.build(candidate.method)
    nodes = pool.kept(candidate.view, folder.labelled)
    try:
        asked = Judge.of(method, *Labelled(nodes, base.labels, base.classes, base.photos, base.groups).episode())
        found: Floats = asked(pool.nodes(candidate.view, folder.new + folder.unknown)).cpu().double().numpy()
    except UserError:
        return None
    return found


def _held_out(examined: automatic.Examined, pool: Pool, base: Labelled) -> dict[str, Any] | None:
    """Return the accuracy that the user is told, with its interval."""
    told = trust.assess(
        examined.method, pool.embedders[examined.choice.candidate.view], base, None, examined=examined
    ).evidence.accuracy
    return None if told is None else asdict(told)


def _confidence(logits: Floats, truth: Indices, temperature: float) -> dict[str, Any]:
    """Return the largest probability and the log-loss of each photo, before and after calibration."""
    found: dict[str, Any] = {}
    for name, t in (("before", 1.0), ("after", temperature)):
        shares = softmax(logits, t)
        found[name] = {
            "largest": packed(shares.max(1)),
            "log_loss": packed(log_losses(logits, truth, np.array([t]))[:, 0]),
        }
    return found


def _refusal(logits: Floats, known: int, examined: automatic.Examined) -> dict[str, Any]:
    """Refuse at each rate for which there are held-out photos enough."""
    sure = sureness(logits)
    found: dict[str, Any] = {"auroc": auroc(sure[:known], sure[known:]) if len(sure) > known else None}
    for rate in RATES:
        try:
            settled: Calibration = settle(examined.held, examined.temperature, examined.expected, rate)
        except UserError:  # too few photos stand behind it, as the user would be told
            found[f"{rate:g}"] = None
            continue
        refused = sure < settled.threshold  # type: ignore[operator]  # there is one where there is a rate
        found[f"{rate:g}"] = {"known": _bits(refused[:known]), "unknown": _bits(refused[known:])}
    return found


def _sets(
    method: FewShotMethod, candidate: Candidate, pool: Pool, base: Labelled, folder: Folder
) -> dict[str, Any] | None:
    """Make sets of labels for some new photos, spread over the classes; None where there can be none."""
    nodes = pool.kept(candidate.view, folder.labelled)
    labelled = Labelled(nodes, base.labels, base.classes, base.photos, base.groups)
    alphas = [alpha for alpha in ALPHAS if rejection.needed(alpha) <= len(np.unique(base.groups))]
    if not alphas:
        return None
    count = MOST_SETS if method.pools else min(MOST_SETS, PROBLEMS // (len(base.classes) * len(base)))
    which = np.unique(np.linspace(0, len(folder.new) - 1, max(1, count)).astype(int)).tolist()
    try:
        _, p = trust.label_sets(
            method, labelled, pool.nodes(candidate.view, tuple(folder.new[i] for i in which)), min(alphas)
        )
    except UserError:  # a method without such sets
        return None
    truth = _truth(pool, base, folder.new)[which]
    return {
        "photos": packed(which),
        "p": packed(p[np.arange(len(p)), truth]),
        "sizes": {f"{alpha:g}": packed((p > alpha).sum(1)) for alpha in alphas},
        "hits": {f"{alpha:g}": _bits(p[np.arange(len(p)), truth] > alpha) for alpha in alphas},
    }


def _bits(values: npt.NDArray[np.bool_]) -> str:
    """Write truths as text of 0 and 1."""
    return "".join("01"[int(value)] for value in values)


def packed(values: npt.ArrayLike) -> str:
    """Write numbers as text, a word each, so that a record of them is short."""
    return " ".join(f"{value:.5g}" for value in np.asarray(values).tolist())


def unpacked(text: str) -> Floats:
    """Undo ``packed``, but for digits beyond the fifth: (numbers,)."""
    return np.array([float(word) for word in text.split()])

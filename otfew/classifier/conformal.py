"""Sets of labels that hold the right one at a promised rate: full conformal prediction (Vovk et al. 2005).

A new photo is put among the labelled ones under each label in turn. Then every photo, the new one like the others, is
scored by how much better another class fits it than its own, without itself among its class's photos. The label stays
in the set where more than a share alpha of the photos, the new one included, are as strange as the new one under it.
Since the score treats all photos alike, the right label is left out at a rate of at most alpha where the new photo is
exchangeable with the labelled ones: over all classes together, not in each.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from otfew.classifier.holdouts import Indices, Photos, checked, padded
from otfew.errors import UserError
from otfew.method import FewShotMethod

Floats = npt.NDArray[np.float64]

SEPARABLE_TOLERANCE = 1e-4
"""Of logits, relative to their size, that are to be the same with and without other classes."""


def needed(alpha: float) -> int:
    """Count the labelled photos without which every set holds every label: the least n with 1 / (n + 1) <= alpha."""
    return max(1, math.ceil(1 / alpha - 1 - 1e-9))


def check_alpha(alpha: object, photos: int) -> float:
    """Return alpha.

    Raises:
        UserError: No number between 0 and 1, or too few photos for it.
    """
    if isinstance(alpha, bool) or not isinstance(alpha, int | float | np.floating) or not 0 < alpha < 1:
        raise UserError(f"`alpha` is {alpha!r}: give the rate of errors that is allowed, such as 0.1.")
    if photos < needed(float(alpha)):
        raise UserError(
            f"`alpha` {alpha:g} needs {needed(float(alpha))} labelled photos that are no near-duplicates, and there "
            f"are {photos}: every set would hold every label; give more photos or a larger `alpha`."
        )
    return float(alpha)


def separable(method: FewShotMethod, photos: Photos) -> bool:
    """Tell whether a class's logit depends on that class's photos alone, by asking with and without the others."""
    if method.transductive:
        return False
    count = len(photos.labels)
    query = photos.nodes[: min(4, count)]
    try:
        whole = checked(method, *_episode(photos, range(count), query))
        for c in range(min(2, photos.way)):
            own = np.flatnonzero(photos.labels == c)
            alone = checked(method, *_episode(_of_class(photos, own), range(len(own)), query))
            if not np.allclose(whole[:, c], alone[:, 0], atol=SEPARABLE_TOLERANCE * max(1.0, np.abs(whole).max())):
                return False
    except UserError:  # methods that refuse a single class
        return False
    return True


def p_values(method: FewShotMethod, photos: Photos, new: Tensor) -> Floats:
    """Compute the conformal p of every label for new photos.

    Args:
        method: Whose logit of a class depends on that class's photos alone, see ``separable``.
        photos: Labelled ones, one of each group of near-duplicates.
        new: (images, nodes, channels).

    Returns:
        (images, way): the share of photos, the new one included, that are at least as strange as the new one would be
        under that label.
    """
    count, way = len(photos.labels), photos.way
    members = [np.flatnonzero(photos.labels == c) for c in range(way)]
    base = _without_itself(method, photos)
    fresh = checked(method, *_episode(photos, range(count), new)) if len(new) else np.zeros((0, way))
    found = np.empty((len(new), way))
    for k in range(len(new)):
        joined = Photos(
            torch.cat([photos.nodes, new[k : k + 1]]),
            np.append(photos.labels, 0),
            way,
            np.arange(count + 1),
        )
        for c in range(way):
            logits = base.copy()
            labels = np.append(photos.labels, c)
            own, others = members[c], np.flatnonzero(photos.labels != c)
            grown = np.append(own, count)
            # Only class c has changed: for the others' photos it has one more, for its own the new one as well.
            logits[others, c] = checked(
                method, *_episode(_of_class(joined, grown), range(len(grown)), photos.nodes[others])
            )[:, 0]
            logits[own, c] = _leave_one_out(method, _of_class(joined, grown))[: len(own)]
            strange = strangeness(np.concatenate([logits, fresh[k : k + 1]]), labels)
            found[k, c] = (strange >= strange[-1] - 1e-9).mean()
    return found


def strangeness(logits: Floats, labels: Indices) -> Floats:
    """Compute how far the best other class is ahead of a photo's own: (images,); needs no temperature."""
    rows = np.arange(len(labels))
    others = logits.copy()
    others[rows, labels] = -np.inf
    ahead: Floats = others.max(1) - logits[rows, labels]
    return ahead


def _without_itself(method: FewShotMethod, photos: Photos) -> Floats:
    """Ask about every photo without itself among its class: (images, way).

    The column of a class of one photo is never read for that photo: it is replaced when a new one joins it.
    """
    count = len(photos.labels)
    logits = checked(method, *_episode(photos, range(count), photos.nodes))
    for c in range(photos.way):
        own = np.flatnonzero(photos.labels == c)
        if len(own) > 1:
            logits[own, c] = _leave_one_out(method, _of_class(photos, own))
        else:
            # Nothing else of its class is known: no photo is stranger.
            logits[own, c] = -np.inf
    return logits


def _leave_one_out(method: FewShotMethod, own: Photos) -> Floats:
    """Ask about each photo of one class given its others: (images,)."""
    count = len(own.labels)
    index = torch.tensor([[j for j in range(count) if j != i] for i in range(count)], device=own.nodes.device)
    support = own.nodes[index][:, None]
    logits = method(support, own.nodes[:, None])
    array: Floats = logits[:, 0, 0].detach().cpu().double().numpy()
    return array


def _of_class(photos: Photos, own: Indices) -> Photos:
    """Take the photos of one class alone."""
    rows = torch.from_numpy(own).to(photos.nodes.device)
    return Photos(photos.nodes[rows], np.zeros(len(own), np.int64), 1, photos.units[own])


def _episode(photos: Photos, known: range, query: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Lay an episode out as ``checked`` takes it."""
    support, mask = padded(photos.nodes, photos.labels, photos.way, known)
    return support, query, mask

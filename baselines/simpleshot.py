"""SimpleShot: nearest centroid of centred and normalised vectors."""

from __future__ import annotations

from torch import Tensor

from otfew import checks
from otfew.baselines._base import Baseline
from otfew.baselines._shots import shot_vectors, shot_weights
from otfew.baselines.protonet import negative_squared_distances
from otfew.errors import UserError
from otfew.method import global_vectors
from otfew.scores.cosine import unit
from otfew.transport.sending import send


def centred_unit(vectors: Tensor, base_mean: Tensor) -> Tensor:
    """Subtract the base classes' mean (channels,) from vectors (..., channels), then L2-normalise (CL2N)."""
    return unit(vectors - base_mean)


class SimpleShot(Baseline):
    """Nearest centroid after centring and normalising: SimpleShot's CL2N (Wang et al. 2019).

    logit_c = -temperature * |z(q) - mean_k z(x_ck)|^2, with z(x) = (x - m) / |x - m|, q and x_ck the means of the
    nodes of the query and of shot k of class c, m the mean of the base classes' global vectors: never a statistic of
    the evaluated split. Shots are centred and normalised one by one, their centroid is not normalised again. Uneven
    shots: each class is the mean of the shots that it has.

    Args:
        base_mean: (channels,) mean of the base (training) classes' global vectors.
        temperature: Scale of the logits. Without effect on accuracy.

    Raises:
        UserError: An option out of range; called with nodes of other channels than ``base_mean``.
    """

    name = "simpleshot"
    pools = True
    needs_base_mean = True

    def __init__(self, base_mean: Tensor, temperature: float = 1.0) -> None:
        self.base_mean = checks.base_mean(self.name, base_mean)
        self.temperature = checks.number(self.name, "temperature", temperature, above=0)

    def logits(self, support: Tensor, query: Tensor, support_mask: Tensor | None) -> Tensor:
        """Compute scaled negative squared distances to the centroids."""
        if len(self.base_mean) != query.shape[-1]:
            raise UserError(
                f"simpleshot: `base_mean` has {len(self.base_mean)} channels but the nodes have {query.shape[-1]}; "
                "take the mean of the base classes' vectors of the same backbone."
            )
        mean = send(self.base_mean, query.device, query.dtype)
        shots = centred_unit(shot_vectors(support, support_mask), mean)
        centroids = (shots * shot_weights(support, support_mask)[..., None]).sum(2)
        return self.temperature * negative_squared_distances(centroids, centred_unit(global_vectors(query), mean))

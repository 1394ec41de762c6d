"""Shrunk covariances of few points in many dimensions, and their roots, in the span of the points.

S = (1 - rho) X' X + rho mu I, with X the centred points times the roots of their masses and mu the mean variance of a
channel: a number s = rho mu on the diagonal plus a matrix of the points' rank. With the products X X' = W L W' of the
points among each other,

    f(s I + B' B) v = f(s) v + B' W (f(s + L) - f(s)) / L W' B v,        B = sqrt(1 - rho) X,

so that a root of a d x d matrix costs a decomposition of n x n. The quotients of the two roots below need no division
by L, which may be zero.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

NO_SPREAD = 1e-20
"""Variance below which points count as one point, relative to their mean square: what rounding leaves of equal ones."""


@dataclass(frozen=True)
class LowRank:
    """Matrices floor I + factor' factor of a batch of episodes, positive definite, float64.

    Attributes:
        floor: (episodes,) above 0.
        factor: (episodes, n, channels).
    """

    floor: Tensor
    factor: Tensor

    def root(self, vectors: Tensor) -> Tensor:
        """Multiply vectors (episodes, k, channels) by the symmetric root."""

        def quotient(s: Tensor, values: Tensor) -> Tensor:
            return 1 / ((s + values).sqrt() + s.sqrt())

        return self._times(vectors, self.floor.sqrt(), quotient)

    def inverse_root(self, vectors: Tensor) -> Tensor:
        """Multiply vectors (episodes, k, channels) by the inverse of the symmetric root."""

        def quotient(s: Tensor, values: Tensor) -> Tensor:
            small, large = s.sqrt(), (s + values).sqrt()
            return -1 / (small * large * (small + large))

        return self._times(vectors, self.floor.rsqrt(), quotient)

    def _times(self, vectors: Tensor, far: Tensor, quotient: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        values, basis = torch.linalg.eigh(self.factor @ self.factor.mT)
        weights = quotient(self.floor[:, None], values.clamp_min(0))
        seen = vectors @ self.factor.mT @ basis
        moved: Tensor = far[:, None, None] * vectors + (seen * weights[:, None]) @ basis.mT @ self.factor
        return moved


@torch.no_grad()
def shrunk_covariance(points: Tensor, masses: Tensor) -> tuple[LowRank, Tensor]:
    """Estimate a covariance by oracle approximating shrinkage (Chen, Wiesel, Eldar and Hero 2010, equation 23).

    rho = (tr S^2 + (tr S)^2) / ((n + 1) (tr S^2 - (tr S)^2 / d)), at most 1; as in scikit-learn without terms of 2 / d.
    For unequal masses n is 1 / sum a_i^2, the number of equal ones of the same variance.

    Args:
        points: (episodes, n, channels) float64.
        masses: (episodes, n) of sum 1.

    Returns:
        The covariances, and whether an episode's points have any spread, bool (episodes,); the identity where not.
    """
    d = points.shape[-1]
    mean = masses[:, None] @ points
    factor = masses.sqrt()[..., None] * (points - mean)
    if factor.shape[1] > d:
        # As many rows as channels have the same products.
        factor = torch.linalg.qr(factor, mode="r")[1]
    products = factor @ factor.mT
    trace, squares = products.diagonal(dim1=1, dim2=2).sum(-1), products.square().sum((1, 2))
    size = (masses * points.square().sum(-1)).sum(-1)
    spread = trace > NO_SPREAD * size
    n = 1 / masses.square().sum(-1)
    most = (n + 1) * (squares - trace.square() / d)
    rho = torch.where(most > 0, (squares + trace.square()) / most, 1.0).clamp_max(1.0)
    floor = torch.where(spread, rho * trace / d, 1.0)
    kept = torch.where(spread, 1 - rho, 0.0).sqrt()
    return LowRank(floor, kept[:, None, None] * factor), spread


def together(first: tuple[LowRank, Tensor], second: tuple[LowRank, Tensor]) -> tuple[LowRank, LowRank]:
    """Make both covariances the identity in episodes where one of the two domains has no spread."""
    both = first[1] & second[1]
    found = [
        LowRank(torch.where(both, one.floor, 1.0), torch.where(both[:, None, None], one.factor, 0.0))
        for one, _ in (first, second)
    ]
    return found[0], found[1]


def of_both(shots: Tensor, masses: Tensor, queries: Tensor) -> tuple[LowRank, LowRank]:
    """Estimate the covariances of shots and queries, see ``shrunk_covariance``, in float64 and without gradient."""
    equal = queries.new_full(queries.shape[:2], 1 / queries.shape[1], dtype=torch.float64)
    of_shots = shrunk_covariance(shots.detach().double(), masses.detach().double())
    return together(of_shots, shrunk_covariance(queries.detach().double(), equal))

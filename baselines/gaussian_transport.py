"""Control: the closed-form transport map between Gaussians with the two domains' moments."""

from __future__ import annotations

import torch
from torch import Tensor

from otfew.baselines._alignment import Alignment
from otfew.baselines._shrunk_covariance import LowRank, of_both


class GaussianTransport(Alignment):
    """The optimal map between two Gaussians, with shrunk covariances (Dowson and Landau 1982; Flamary et al. 2020).

    x -> A (x - m_s) + m_q, A = S_s^(-1/2) (S_s^(1/2) S_q S_s^(1/2))^(1/2) S_s^(-1/2), with m and S the means and shrunk
    covariances (see ``coral``) of support and queries: of all linear maps between these moments the one that moves
    points least. With head "mean", logit_c = -temperature |y - p_c|^2, with p_c the mean of class c's moved shots. It
    is transport between two ellipsoids, without any coupling of images; hence a control of what couplings add.

    It is transductive. The map is a constant for autograd. Uneven shots: each class has its share (``class_prior``);
    more shots are shrunk less.

    Its options and errors are those of ``MeanAlignment``.
    """

    name = "gaussian-transport"
    counts_shots = True

    def align(self, shots: Tensor, masses: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Map the shots."""
        of_shots, of_queries = of_both(shots, masses, queries)
        centred = shots.double() - masses.double()[:, None] @ shots.double()
        inner = between(of_shots, of_queries)
        moved = of_shots.inverse_root(inner.root(of_shots.inverse_root(centred))).to(shots.dtype)
        return moved + queries.mean(1, keepdim=True), queries


@torch.no_grad()
def between(first: LowRank, second: LowRank) -> LowRank:
    """Multiply S_1^(1/2) S_2 S_1^(1/2), again a number on the diagonal plus a matrix of low rank.

    With S_1 = s_1 I + X' X and S_2 = s_2 I + Y' Y it is s_1 s_2 I + s_2 X' X + (Y S_1^(1/2))' (Y S_1^(1/2)).
    """
    factor = torch.cat([second.floor.sqrt()[:, None, None] * first.factor, first.root(second.factor)], 1)
    return LowRank(first.floor * second.floor, factor)

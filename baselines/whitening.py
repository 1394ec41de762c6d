"""Control: both domains whitened."""

from __future__ import annotations

import torch
from torch import Tensor

from otfew.baselines._alignment import Alignment
from otfew.baselines._shrunk_covariance import LowRank, of_both


class Whitening(Alignment):
    """Both domains centred and whitened, each by its own shrunk covariance, then classified.

    x -> c S_s^(-1/2) (x - m_s) and y -> c S_q^(-1/2) (y - m_q), with m and S the means and shrunk covariances (see
    ``coral``) of support and queries, and c^2 the queries' mean variance of a channel, which keeps lengths as they
    were. With head "mean", logit_c = -temperature |y - p_c|^2 between whitened vectors, with p_c the mean of class c's
    shots.

    It is transductive. The maps are constants for autograd. Uneven shots: each class has its share (``class_prior``);
    more shots are shrunk less.

    Its options and errors are those of ``MeanAlignment``.
    """

    name = "whitening"
    counts_shots = True

    def align(self, shots: Tensor, masses: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Whiten both."""
        of_shots, of_queries = of_both(shots, masses, queries)
        scale = mean_variance(of_queries).sqrt()[:, None, None]
        wide, others = shots.double(), queries.double()
        centred = wide - masses.double()[:, None] @ wide, others - others.mean(1, keepdim=True)
        return (
            (scale * of_shots.inverse_root(centred[0])).to(shots.dtype),
            (scale * of_queries.inverse_root(centred[1])).to(queries.dtype),
        )


def mean_variance(covariance: LowRank) -> Tensor:
    """Mean of the diagonal (episodes,)."""
    d: int = covariance.factor.shape[-1]
    squares: Tensor = torch.linalg.vector_norm(covariance.factor, dim=(1, 2)).square()
    return covariance.floor + squares / d

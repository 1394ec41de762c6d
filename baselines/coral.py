"""Control: correlation alignment, the labelled images recoloured with the queries' covariance."""

from __future__ import annotations

from torch import Tensor

from otfew.baselines._alignment import Alignment
from otfew.baselines._shrunk_covariance import of_both


class CORAL(Alignment):
    """Correlation alignment with shrunk covariances (Sun, Feng and Saenko 2016, algorithm 1).

    x -> S_q^(1/2) S_s^(-1/2) (x - m_s) + m_q, with m and S the means and covariances of support and queries. With head
    "mean", logit_c = -temperature |y - p_c|^2, with p_c the mean of class c's moved shots. The paper adds the identity
    to both covariances, which is no estimate of them for normalised features; here they are shrunk by a closed form
    (oracle approximating shrinkage), without which five images could not be whitened in hundreds of channels. The paper
    leaves means alone; here they are aligned as well, so that ``mean-alignment`` is what covariances add to.

    It is transductive. The map is a constant for autograd. Uneven shots: each class has its share (``class_prior``);
    more shots are shrunk less.

    Its options and errors are those of ``MeanAlignment``.
    """

    name = "coral"
    counts_shots = True

    def align(self, shots: Tensor, masses: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Recolour the shots."""
        of_shots, of_queries = of_both(shots, masses, queries)
        centred = shots.double() - masses.double()[:, None] @ shots.double()
        moved = of_queries.root(of_shots.inverse_root(centred)).to(shots.dtype)
        return moved + queries.mean(1, keepdim=True), queries

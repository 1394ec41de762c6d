"""Control: the labelled images shifted by the difference of the two domains' means."""

from __future__ import annotations

from torch import Tensor

from otfew.baselines._alignment import Alignment


def mean_shift(shots: Tensor, masses: Tensor, queries: Tensor) -> Tensor:
    """Difference (episodes, 1, channels) of the queries' mean and of that of shots with masses of sum 1."""
    return queries.mean(1, keepdim=True) - masses[:, None] @ shots


class MeanAlignment(Alignment):
    """Shift the labelled images so that their mean is that of the queries, then classify.

    x -> x - sum_i a_i x_i + mean of the queries; a_i is the share of the shot's class (``class_prior``) dealt out to
    its shots. With head "mean", logit_c = -temperature |y - p_c|^2, with p_c the mean of class c's shifted shots. Any
    shift between the domains that is the same for all images is undone exactly, where the classes have their shares.

    It is transductive. Uneven shots: each class has its share, however many shots it has.

    Args:
        head: "mean" or "logistic", see ``otfew.scores.domains.Head``.
        normalise: Divide vectors by their norms first.
        temperature: Scale of the logits of "mean".
        C: Inverse strength of the penalty of "logistic".
        class_prior: Where the call gives none: "uniform", or "estimated", the mean of the queries' softmax over the
            classes' means, with each domain about its own mean. It weighs the classes of the support.

    Raises:
        UserError: An option out of range; called with NaN, a single query, or a ``class_prior`` that is none.
    """

    name = "mean-alignment"

    def align(self, shots: Tensor, masses: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Shift the shots."""
        return shots + mean_shift(shots, masses, queries), queries

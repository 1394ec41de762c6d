"""Logistic regression on normalised vectors."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from otfew import checks
from otfew.baselines._base import Baseline
from otfew.baselines._shots import labelled_items, shot_vectors
from otfew.errors import UserError
from otfew.method import global_vectors
from otfew.scores.cosine import unit
from otfew.scores.logistic import fit_logistic


class Logistic(Baseline):
    """Logistic regression on L2-normalised global vectors (Tian et al. 2020, section 3).

    logit_c = <w_c, q / |q|> + b_c, with q the mean of the query's nodes; w and b minimise C * sum of cross-entropies
    + |w|^2 / 2 over the support's vectors, one item a shot, by scikit-learn's ``LogisticRegression`` (multinomial;
    binary for two classes), on the CPU wherever the nodes are. Uneven shots: a class counts as often as it has shots.
    No gradient flows into the support.

    Args:
        C: Inverse strength of the penalty; 1 as in the paper's code.
        max_iter: Of L-BFGS.

    Raises:
        UserError: An option out of range; called with a single class.
    """

    name = "logistic"
    frozen = True
    counts_shots = True
    pools = True

    def __init__(self, C: float = 1.0, max_iter: int = 1000) -> None:
        self.C = checks.number(self.name, "C", C, above=0)
        self.max_iter = checks.whole(self.name, "max_iter", max_iter)

    def logits(self, support: Tensor, query: Tensor, support_mask: Tensor | None) -> Tensor:
        """Fit, then score the query."""
        return self.settled(support, support_mask)(query)

    def settled(self, support: Tensor, support_mask: Tensor | None) -> Callable[[Tensor], Tensor]:
        """Fit."""
        way = support.shape[1]
        if way < 2:
            raise UserError("logistic: it needs at least two classes: raise `way`.")
        groups = [
            (group, *fit_logistic(items, labels, self.C, self.max_iter))
            for group, items, labels in labelled_items(unit(shot_vectors(support, support_mask)), support_mask)
        ]

        def answer(query: Tensor) -> Tensor:
            vectors = unit(global_vectors(query))
            logits = vectors.new_zeros(*vectors.shape[:2], way)
            for group, rows, intercepts in groups:
                logits = logits.index_copy(0, group, vectors[group] @ rows.mT + intercepts[:, None])
            return logits

        return answer

"""DeepEMD's score: mean similarity of nodes under the cheapest transport between two images."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from otfew import checks
from otfew.errors import UserError
from otfew.scores.node_weights import NodeWeights, resolve_weights
from otfew.scores.pairwise import similarities
from otfew.transport import Exact, Solver, solve
from otfew.transport.precision import in_full_precision
from otfew.transport.registry import resolve


def emd_similarity(
    support_map: Tensor,
    query: Tensor,
    solver: str | Solver = "exact",
    weight_gradient: bool = False,
    weights: str | NodeWeights = "cross_reference",
) -> Tensor:
    """Mean similarity of nodes under the cheapest transport between them, all queries against all classes.

    The cost is 1 - sim, with sim the cosine of channel-centred nodes; weights have total one on both sides; the result
    is sum_ij sim_ij P_ij = 1 - <P, cost> at the optimal plan P.

    Args:
        support_map: (episodes, way, n, channels).
        query: (episodes, n_query, m, channels).
        solver: As in ``otfew.solve``.
        weight_gradient: Differentiate in the weights too; the released OpenCV path keeps them constant.
        weights: Name in ``otfew.scores.node_weights.NODE_WEIGHTS``, or weights with options.

    Returns:
        (episodes, n_query, way), in the dtype of the query, float32 for half precision.

    Examples:
        >>> import torch
        >>> image = torch.rand(1, 1, 9, 64)
        >>> emd_similarity(image, image).round(decimals=4)
        tensor([[[1.]]])
    """
    owner = "emd_similarity"
    return EMDScore(checks.dense_solver(owner, solver), resolve_weights(weights, owner), weight_gradient)(
        support_map, query
    )


def mean_similarity(
    similarity: Tensor,
    s: Tensor | None = None,
    d: Tensor | None = None,
    solver: str | Solver = "exact",
    mass: float = 1.0,
) -> Tensor:
    """Mean similarity of nodes under the cheapest transport, for the cost 1 - similarity.

    With ``mass`` below 1 only that fraction of the weight has to match: max sum_ij sim_ij P_ij / mass over P with row
    sums at most s, column sums at most d and total ``mass``, exactly. Being a mean of similarities it lies where the
    whole's does, and it only grows where less has to match.

    Args:
        similarity: (..., m, n) of the nodes of two images.
        s: (..., m) weights of the first image's nodes, total 1; None weighs them alike.
        d: (..., n) of the second's.
        solver: As in ``otfew.solve``; with ``mass`` below 1 an ``Exact``.
        mass: Fraction of the weight that has to match, above 0 and at most 1.

    Returns:
        (...) float64.
    """
    if mass == 1:
        whole: Tensor = solve(1 - similarity, s, d, solver=solver).value_linear
        return 1 - whole
    value: Tensor = solve(1 - similarity, *_of_total_one(s, d), solver=matching(solver, mass)).value_linear
    return 1 - value / mass


def matching(solver: str | Solver, mass: float) -> Solver:
    """Return a solver that matches a fraction of weights of total 1.

    Raises:
        UserError: The fraction is below 1, and the solver cannot leave anything out.
    """
    chosen = resolve(solver)
    if mass == 1:
        return chosen
    if not isinstance(chosen, Exact) or chosen.mass is not None:
        given = chosen.name if not isinstance(chosen, Exact) else chosen
        raise UserError(f"`mass` below 1 needs `solver` 'exact', not {given!r}.")
    return replace(chosen, mass=mass)


def _of_total_one(*weights: Tensor | None) -> list[Tensor | None]:
    """Bring the rounded totals of weights to 1: a fraction just below it may not be more than there is."""
    wide = [None if w is None else w.double() for w in weights]
    return [None if w is None else w / w.sum(-1, keepdim=True) for w in wide]


@dataclass(frozen=True)
class EMDScore:
    """``emd_similarity`` with its options.

    Args:
        solver: Of dense costs.
        weights: How much each node counts.
        weight_gradient: Differentiate in the weights too.
        mass: Fraction of the weight that has to match, see ``mean_similarity``.

    Raises:
        UserError: A fraction below 1 with a solver other than ``exact``.
    """

    solver: Solver
    weights: NodeWeights
    weight_gradient: bool = False
    mass: float = 1.0

    def __post_init__(self) -> None:
        matching(self.solver, self.mass)

    @in_full_precision
    def __call__(self, support_map: Tensor, query: Tensor) -> Tensor:
        """Score (episodes, n_query, m, channels) against (episodes, way, n, channels): (episodes, n_query, way)."""
        return mean_similarity(*self._problem(support_map, query), self.solver, self.mass).to(query.dtype)

    @in_full_precision
    def of_constant_plan(self, support_map: Tensor, query: Tensor) -> Tensor:
        """Score, with plan and weights as constants of the gradient, as in the released code with OpenCV.

        For exact solvers that is the gradient of the call without ``weight_gradient`` (envelope theorem); entropic
        plans have a gradient of their own.
        """
        similarity, s, d = self._problem(support_map, query)
        s, d = s.detach(), d.detach()
        if self.mass < 1:
            s, d = _of_total_one(s, d)  # type: ignore[assignment]
        plan = solve((1 - similarity).detach(), s, d, solver=matching(self.solver, self.mass)).plan
        score: Tensor = (plan * similarity).sum((-2, -1))
        return score if self.mass == 1 else score / self.mass

    @in_full_precision
    def partial(self, support_map: Tensor, query: Tensor) -> Tensor:
        """Score where each node of the query is worth as much as each of the class: totals m and n.

        The smaller total is transported, at least cost, and sum_ij sim_ij P_ij / m is the score: what ``cv2.EMD`` and
        the released code's normalisation make of node sets of different sizes.

        Raises:
            UserError: The solver is not ``exact``.
        """
        if not isinstance(self.solver, Exact):
            raise UserError(f"partial transport needs `solver` 'exact', not {self.solver.name!r}.")
        similarity, s, d = self._problem(support_map, query)
        m, n = similarity.shape[-2:]
        result = solve(1 - similarity, s, d * (n / m), solver=replace(self.solver, mass="min"))
        score: Tensor = min(1.0, n / m) - result.value_linear
        return score.to(query.dtype)

    def _problem(self, support_map: Tensor, query: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Similarities (episodes, n_query, way, m, n) with weights of the query's and the class's nodes."""
        support_map, query, s, d = self.weights.weigh(support_map, query)
        if not self.weight_gradient:
            s, d = s.detach(), d.detach()
        return similarities(support_map, query), s, d

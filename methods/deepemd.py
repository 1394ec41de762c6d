"""DeepEMD: images compared by the earth mover's distance between their local embeddings."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from otfew.method import MethodBase, check_episode, shot_mean
from otfew.node_weights import NodeWeights, resolve_weights
from otfew.pairwise import similarities
from otfew.transport import Solver, solve
from otfew.transport.registry import resolve

SHOT_HEADS = ("mean",)


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
        weights: Name in ``otfew.node_weights.NODE_WEIGHTS``, or weights with options.

    Returns:
        (episodes, n_query, way), in the dtype of the query.
    """
    support_map, query, s, d = resolve_weights(weights).weigh(support_map, query)
    if not weight_gradient:
        s, d = s.detach(), d.detach()
    result = solve(1 - similarities(support_map, query), s, d, solver=solver)
    similarity: Tensor = (1 - result.value_linear).to(query.dtype)
    return similarity


class DeepEMD(MethodBase):
    """DeepEMD (Zhang et al. 2020, 2022) on any nodes, at inference and as a differentiable score.

    logit_c = T * sum_ij sim_ij P_ij, with P the optimal plan between the query's nodes and class c's, cost 1 - cosine
    of the nodes centred over channels (the centring and the 1e-3 in the weights are the released code's),
    cross-reference weights of the raw nodes, T = 12.5.

    Several shots: ``shot_head="mean"`` averages the support's node sets location by location, which is where the
    structured fully connected layer starts.

    Args:
        solver: Name or options of the OT solver.
        temperature: T.
        shot_head: How several shots become one node set.
        weight_gradient: Let gradients flow through the weights as well.
        weights: How much each node counts: a name in ``otfew.node_weights.NODE_WEIGHTS`` or weights with options, such
            as ``otfew.node_weights.KMeans(n_clusters=2)``.

    Raises:
        ValueError: Unknown solver, shot head or weights.
    """

    name: ClassVar[str] = "deepemd"

    def __init__(
        self,
        solver: str | Solver = "exact",
        temperature: float = 12.5,
        shot_head: str = "mean",
        weight_gradient: bool = False,
        weights: str | NodeWeights = "cross_reference",
    ) -> None:
        if shot_head not in SHOT_HEADS:
            raise ValueError(f"unknown shot_head {shot_head!r}; there is: {', '.join(SHOT_HEADS)}")
        self.solver = resolve(solver)
        self.temperature = temperature
        self.shot_head = shot_head
        self.weight_gradient = weight_gradient
        self.weights = resolve_weights(weights)

    def __call__(
        self,
        support: Tensor,
        query: Tensor,
        *,
        support_mask: Tensor | None = None,
        class_prior: Tensor | None = None,
    ) -> Tensor:
        """Score queries against classes, see ``otfew.method.FewShotMethod``; ``class_prior`` is ignored."""
        check_episode(support, query, support_mask)
        support_map = shot_mean(support, support_mask)
        return self.temperature * emd_similarity(support_map, query, self.solver, self.weight_gradient, self.weights)


class DeepEMDFCN(DeepEMD):
    """DeepEMD on the cells of the feature map: the preset of the paper's FCN variant."""

    name: ClassVar[str] = "deepemd-fcn"
    nodes: ClassVar[str] = "fcn"
    preset_of: ClassVar[str] = "deepemd"


class DeepEMDGrid(DeepEMD):
    """DeepEMD on an image pyramid of grids: the preset of the paper's Grid variant."""

    name: ClassVar[str] = "deepemd-grid"
    nodes: ClassVar[str] = "grid:2,3"
    preset_of: ClassVar[str] = "deepemd"


class DeepEMDSampling(DeepEMD):
    """DeepEMD on random crops: the preset of the paper's Sampling variant."""

    name: ClassVar[str] = "deepemd-sampling"
    nodes: ClassVar[str] = "sampling:9"
    preset_of: ClassVar[str] = "deepemd"

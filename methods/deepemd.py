"""DeepEMD: images compared by the earth mover's distance between their local embeddings."""

from __future__ import annotations

import functools
from typing import ClassVar

from torch import Tensor

from otfew.method import MethodBase, check_episode, global_vectors, shot_mean
from otfew.methods.shot_heads import Head, fused, merged, nearest, with_uneven_shots
from otfew.methods.structured_fc import StructuredFC
from otfew.scores.emd import EMDScore
from otfew.scores.node_weights import NodeWeights, resolve_weights
from otfew.transport import Exact, Solver
from otfew.transport.precision import in_full_precision
from otfew.transport.registry import resolve

SHOT_HEADS = ("mean", "sfc", "nn", "fusion", "merge", "prototype")


class DeepEMD(MethodBase):
    """DeepEMD (Zhang et al. 2020, 2022) on any nodes, at inference and as a differentiable score.

    logit_c = T * sum_ij sim_ij P_ij, with P the optimal plan between the query's nodes and class c's, cost 1 - cosine
    of the nodes centred over channels (the centring and the 1e-3 in the weights are the released code's),
    cross-reference weights of the raw nodes, T = 12.5.

    Several shots, by ``shot_head``; with one shot the first five are the same:

    - "mean": location-wise mean of the class's node sets. This is the structured FC before its first step, and one
      reading of the paper's "prototype learning".
    - "sfc": the structured fully connected layer, see ``otfew.methods.structured_fc.StructuredFC``: SGD from the
      mean, the paper's own answer. The options ``sfc_...`` and ``seed`` are its.
    - "nn": score of the nearest support image.
    - "fusion": mean or sum of the scores of the support images.
    - "merge": one set of all nodes of the class's support images, with equal totals on both sides, or with partial
      transport as the released code's normalisation implies.
    - "prototype": the other reading: one node for the query and one for the class, the means over nodes and shots;
      the score is their cosine after centring.

    Args:
        solver: Name or options of the OT solver.
        temperature: T.
        shot_head: How several shots are scored, one of the above.
        weight_gradient: Let gradients flow through the weights as well, in the logits and in the fit of "sfc".
        weights: How much each node counts: a name in ``otfew.scores.node_weights.NODE_WEIGHTS`` or weights with
            options, such as ``otfew.scores.node_weights.KMeans(n_clusters=2)``.
        sfc_lr: Step size of "sfc".
        sfc_epochs: Its passes over the support set.
        sfc_batch_size: Its support images a step.
        sfc_iterations: Its steps, in place of ``sfc_epochs``: the paper's form is 100 with batches of 5.
        seed: Of its random order.
        fusion: "mean" or "sum".
        merge_mass: "equal" or "partial"; the latter needs the solver ``exact``.

    Raises:
        ValueError: Unknown solver, shot head or weights, or an option out of range; called with "sfc", a support of
            one class.
    """

    name: ClassVar[str] = "deepemd"

    def __init__(
        self,
        solver: str | Solver = "exact",
        temperature: float = 12.5,
        shot_head: str = "mean",
        weight_gradient: bool = False,
        weights: str | NodeWeights = "cross_reference",
        sfc_lr: float = 100.0,
        sfc_epochs: int = 100,
        sfc_batch_size: int = 4,
        sfc_iterations: int | None = None,
        seed: int = 0,
        fusion: str = "mean",
        merge_mass: str = "equal",
    ) -> None:
        for option, value, choices in (
            ("shot_head", shot_head, SHOT_HEADS),
            ("fusion", fusion, ("mean", "sum")),
            ("merge_mass", merge_mass, ("equal", "partial")),
        ):
            if value not in choices:
                raise ValueError(f"unknown {option} {value!r}; there are: {', '.join(choices)}")
        self.solver = resolve(solver)
        if merge_mass == "partial" and not isinstance(self.solver, Exact):
            raise ValueError(f"merge_mass='partial' needs solver='exact', got {self.solver.name!r}")
        self.temperature = temperature
        self.shot_head = shot_head
        self.score = EMDScore(self.solver, resolve_weights(weights), weight_gradient)
        self.structured_fc = StructuredFC(sfc_lr, sfc_epochs, sfc_batch_size, sfc_iterations, seed)
        heads: dict[str, Head] = {
            "nn": functools.partial(nearest, self.score),
            "fusion": functools.partial(fused, self.score, total=fusion == "sum"),
            "merge": functools.partial(merged, self.score, partial=merge_mass == "partial"),
        }
        self._head = heads.get(shot_head)

    @in_full_precision
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
        logits: Tensor = self.temperature * self._scores(support, support_mask, query)
        return logits

    def _scores(self, support: Tensor, support_mask: Tensor | None, query: Tensor) -> Tensor:
        if self._head is not None:
            return with_uneven_shots(self._head, support, support_mask, query)
        if self.shot_head == "sfc":
            support_map = self.structured_fc.fit(support, support_mask, self.score, self.temperature)
        else:
            support_map = shot_mean(support, support_mask)
        if self.shot_head == "prototype":
            support_map, query = (global_vectors(nodes)[..., None, :] for nodes in (support_map, query))
        return self.score(support_map, query)


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

"""DeepEMD: images compared by the earth mover's distance between their local embeddings."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, ClassVar

from torch import Tensor

from otfew import checks
from otfew.errors import UserError
from otfew.method import CONTRASTS, MethodBase, check_episode
from otfew.methods.barycenter_head import BarycenterHead
from otfew.methods.kmeans_head import KMeansHead
from otfew.methods.shot_heads import FusionHead, MeanHead, MergeHead, NearestHead, PrototypeHead, ShotHead
from otfew.methods.structured_fc import StructuredFC
from otfew.scores.emd import EMDScore
from otfew.scores.node_weights import NodeWeights, resolve_weights
from otfew.transport import Solver
from otfew.transport.complaints import warn
from otfew.transport.precision import in_full_precision

_HEADS = (MeanHead, StructuredFC, NearestHead, FusionHead, MergeHead, PrototypeHead, BarycenterHead, KMeansHead)

HEADS: dict[str, type[ShotHead]] = {head.name: head for head in _HEADS}
"""Name -> head for several shots; a name means its default options."""

_OLD = {
    "sfc_lr": ("sfc", "lr"),
    "sfc_epochs": ("sfc", "epochs"),
    "sfc_batch_size": ("sfc", "batch_size"),
    "sfc_iterations": ("sfc", "iterations"),
    "seed": ("sfc", "seed"),
    "fusion": ("fusion", "combine"),
    "merge_mass": ("merge", "mass"),
}
"""Options of earlier releases, which are their head's now -> the head, and what it calls them."""


class DeepEMD(MethodBase):
    """DeepEMD (Zhang et al. 2020, 2022) on any nodes, at inference and as a differentiable score.

    logit_c = T * sum_ij sim_ij P_ij, with P the optimal plan between the query's nodes and class c's, cost 1 - cosine
    of the nodes centred over channels (the centring and the 1e-3 in the weights are the released code's),
    cross-reference weights of the raw nodes, T = 12.5. With ``mass`` below 1, P is the plan of least cost that moves
    that fraction of the weight, and the sum is divided by it: the mean similarity of what is matched.

    Several shots, by ``shot_head``, a name or an object with options; with one shot all but "prototype" are the same:

    - "mean", ``MeanHead()``: location-wise mean of the class's node sets.
    - "sfc", ``StructuredFC(lr, epochs, batch_size, iterations, seed)``: the structured fully connected layer, SGD from
      the mean, the paper's own answer.
    - "nn", ``NearestHead()``: score of the nearest support image.
    - "fusion", ``FusionHead(combine)``: mean or sum of the scores of the support images.
    - "merge", ``MergeHead(mass)``: one set of all nodes of the class's support images, with equal totals on both
      sides, or with partial transport as the released code's normalisation implies.
    - "prototype", ``PrototypeHead()``: one node for the query and one for the class, the means over nodes and shots.
    - "barycenter", ``BarycenterHead(masses, start, n_iter)``: the free-support Wasserstein barycentre of the class's
      node sets in the same cost.
    - "kmeans", ``KMeansHead(seed, n_iter)``: centres of the class's nodes, as many, without transport: its control.

    Options of the last two may also stand behind the name, as on a command line: "barycenter+start=mean+n_iter=5".

    Args:
        solver: Name or options of the OT solver.
        temperature: T.
        shot_head: How several shots are scored, one of the above.
        weight_gradient: Let gradients flow through the weights as well, in the logits and in the fit of "sfc".
        weights: How much each node counts: a name in ``otfew.node_weights.NODE_WEIGHTS`` or weights with
            options, such as ``otfew.node_weights.KMeans(n_clusters=2)``.
        mass: Fraction of the weight that has to match, above 0 and at most 1, where something on either side is clutter
            or hidden. Logits stay comparable over classes and masses. Needs the solver ``exact`` below 1; not for
            "prototype" and for ``MergeHead("partial")``, which leaves out what it need not match as it is. Its control
            without transport is ``trimmed-chamfer``.
        sfc_lr: Deprecated, as are all that follow: give ``shot_head=StructuredFC(lr=...)``.
        sfc_epochs: ``StructuredFC(epochs=...)``.
        sfc_batch_size: ``StructuredFC(batch_size=...)``.
        sfc_iterations: ``StructuredFC(iterations=...)``.
        seed: ``StructuredFC(seed=...)``.
        fusion: ``FusionHead(combine=...)``.
        merge_mass: ``MergeHead(mass=...)``.

    Raises:
        UserError: An unknown solver, head or weights, an option out of range or without effect; called with "sfc", a
            support of one class.

    Examples:
        >>> import torch
        >>> support = torch.rand(2, 5, 1, 9, 64)  # episodes, way, shot, nodes, channels
        >>> query = torch.rand(2, 15, 9, 64)
        >>> DeepEMD(solver="exact")(support, query).shape
        torch.Size([2, 15, 5])
    """

    name: ClassVar[str] = "deepemd"
    contrasts: ClassVar[tuple[str, ...]] = CONTRASTS
    partial_gradient: ClassVar[bool] = True
    """Unless ``weight_gradient`` is True, the nodes' weights are constants."""

    def __init__(
        self,
        solver: str | Solver = "exact",
        temperature: float = 12.5,
        shot_head: str | ShotHead = "mean",
        weight_gradient: bool = False,
        weights: str | NodeWeights = "cross_reference",
        sfc_lr: float | None = None,
        sfc_epochs: int | None = None,
        sfc_batch_size: int | None = None,
        sfc_iterations: int | None = None,
        seed: int | None = None,
        fusion: str | None = None,
        merge_mass: str | None = None,
        mass: float = 1.0,
    ) -> None:
        values = (sfc_lr, sfc_epochs, sfc_batch_size, sfc_iterations, seed, fusion, merge_mass)
        old = {option: value for option, value in zip(_OLD, values, strict=True) if value is not None}
        self.shot_head = _resolve_head(self.name, shot_head, old)
        if old:
            options = ", ".join(f"{_OLD[option][1]}={value!r}" for option, value in old.items())
            instead = f"shot_head={type(self.shot_head).__name__}({options})"
            warn(f"{self.name}: {', '.join(old)} will go with the next release: give {instead}", DeprecationWarning)
        self.solver = checks.dense_solver(self.name, solver)
        self.temperature = checks.number(self.name, "temperature", temperature, above=0)
        weight_gradient = checks.flag(self.name, "weight_gradient", weight_gradient)
        self.weights = resolve_weights(weights, self.name)
        self.mass = checks.number(self.name, "mass", mass, above=0, most=1)
        try:
            self.score = EMDScore(self.solver, self.weights, weight_gradient, self.mass)
        except UserError as error:
            # That of the weights has its owner, that of the mass has none.
            raise error if str(error).startswith(self.name) else UserError(f"{self.name}: {error}") from None
        self.shot_head.check_score(self.name, self.score)

    def controls(self, shot: int) -> tuple[str, ...] | None:
        """Ask the head: at several shots the controls take the mean. A part of the mass has a control of its own."""
        if self.mass < 1:
            return ("trimmed-chamfer",) if shot == 1 or isinstance(self.shot_head, MeanHead) else ()
        return self.shot_head.controls(shot, self.contrasts)

    @classmethod
    def recorded_options(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """Turn options as run folders and command lines have them, numbers and names, into the constructor's.

        A head's options stand beside its name there, under the names of the earlier releases.

        Args:
            options: Numbers and words by name.

        Returns:
            Options as the constructor takes them, a head among them as an object.

        Raises:
            UserError: An unknown head, or an option that it does not have.
        """
        old = {option: value for option, value in options.items() if option in _OLD and value is not None}
        others = {option: value for option, value in options.items() if option not in _OLD}
        if not old:
            return others
        return {**others, "shot_head": _resolve_head(cls.name, options.get("shot_head", "mean"), old)}

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
        scores = self.shot_head.scores(self.score, support, support_mask, query, self.temperature)
        logits: Tensor = self.temperature * scores
        return logits


def _resolve_head(owner: str, head: object, old: Mapping[str, Any]) -> ShotHead:
    """Turn a name, or an object, into a head; ``old`` holds options under their names of earlier releases."""
    if isinstance(head, ShotHead):
        if old:
            raise UserError(f"{owner}: `{next(iter(old))}` goes into the object that `shot_head` is, not beside it.")
        return head
    name, *behind = head.split("+") if isinstance(head, str) else [""]
    if name not in HEADS:
        names = f"there are: {', '.join(HEADS)}, and objects such as StructuredFC(lr=10)"
        raise UserError(f"{owner}: unknown `shot_head` {head!r}; {names}.")
    kind = HEADS[name]
    if behind:
        return kind(**_options_of(owner, str(head), kind, behind))
    for option, value in old.items():
        of, field = _OLD[option]
        if of != name:
            raise UserError(f"{owner}: `{option}` has no effect with `shot_head` {head!r}: it is an option of {of!r}.")
        kind.check_option(owner, option, field, value)
    return kind(**{_OLD[option][1]: value for option, value in old.items()})


def _options_of(owner: str, head: str, kind: type[ShotHead], behind: list[str]) -> dict[str, Any]:
    """Read what stands behind a head's name: numbers where the option is one by default, else words."""
    known = {field.name: field.default for field in fields(kind)}  # type: ignore[arg-type]
    options: dict[str, Any] = {}
    for part in behind:
        option, equals, value = part.partition("=")
        if not equals or option not in known or option in options:
            raise UserError(
                f"{owner}: `shot_head` {head!r}: behind the name stand, once each, options of {kind.name!r}, "
                f"{', '.join(known) or 'which has none'}, as in NAME+OPTION=VALUE, not {part!r}."
            )
        try:
            options[option] = value if isinstance(known[option], str) else ast.literal_eval(value)
        except (ValueError, SyntaxError):
            raise UserError(f"{owner}: `shot_head` {head!r}: {option} must be a number, not {value!r}.") from None
        kind.check_option(owner, option, option, options[option])
    return options


class DeepEMDFCN(DeepEMD):
    """DeepEMD on the cells of the feature map: the preset of the paper's FCN variant (Zhang et al. 2022).

    Its options and errors are those of ``DeepEMD``.
    """

    name: ClassVar[str] = "deepemd-fcn"
    nodes: ClassVar[str] = "fcn"
    preset_of: ClassVar[str] = "deepemd"


class DeepEMDGrid(DeepEMD):
    """DeepEMD on an image pyramid of grids: the preset of the paper's Grid variant (Zhang et al. 2022).

    Its options and errors are those of ``DeepEMD``.
    """

    name: ClassVar[str] = "deepemd-grid"
    nodes: ClassVar[str] = "grid:2,3"
    preset_of: ClassVar[str] = "deepemd"


class DeepEMDSampling(DeepEMD):
    """DeepEMD on random crops: the preset of the paper's Sampling variant (Zhang et al. 2022).

    Its options and errors are those of ``DeepEMD``.
    """

    name: ClassVar[str] = "deepemd-sampling"
    nodes: ClassVar[str] = "sampling:9"
    preset_of: ClassVar[str] = "deepemd"

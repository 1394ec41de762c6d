"""Batch-wise optimal transport loss: all pairs of two batches, weighted by a transport plan (Xu, Sun and Liu 2019)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from otfew import checks
from otfew.costs import euclidean, sqeuclidean
from otfew.errors import UserError
from otfew.transport import Sinkhorn, solve
from otfew.transport.complaints import warn
from otfew.transport.precision import in_full_precision

Distance = Literal["sqeuclidean", "euclidean"]
Weighting = Literal["transport", "softmax", "balanced"]
PlanGradient = Literal["constant", "kernel", "implicit"]

EXCLUDED = 30.0
"""A pair that is left out costs so much more, over reg, than the others ever do: it gets exp(-30) of their mass."""

PUBLISHED: dict[str, dict[str, Any]] = {
    # As in the paper's figure, but without its 1/2, and with the square of the ground distance in the loss.
    "2d": {"reg_inverse": 0.01, "scale": 1.0, "loss_power": 2, "plan_gradient": "kernel"},
    "shrec": {"margin": 1.0, "reg_inverse": 5.0, "scale": 1.0, "plan_gradient": "kernel"},
    # ModelNet40's margins (ModelNet10: 6 and 8). Its regularisation is negative, so that easy pairs get more mass.
    "3d": {
        "margin": 12.0, "positive_margin": 8.0, "distance": "euclidean", "pair_power": 2, "reg_inverse": -0.01,
        "scale": 1.0, "exclude_self": False,
    },
}  # fmt: skip
"""What the three published codes compute: see ``BatchwiseOTLoss.published``."""


@dataclass(frozen=True)
class PairTransport:
    """One evaluation of ``BatchwiseOTLoss`` (Xu, Sun and Liu 2019), with what it was made of; N embeddings against M.

    Attributes:
        loss: Scalar, the mean of ``per_item``.
        per_item: (N,), N times what the pairs of each embedding contribute: the loss of its own share of the mass.
        ground: (N, M), M+ where labels agree and M- where they differ; zero is a pair that asks for nothing.
        plan: (N, M), the pairs' weights; rows and columns are uniform and the total is 1. Zero, as the loss is, where
            there is nothing to compare.
        same: (N, M) bool, labels agree.
        counted: (N, M) bool, pairs that count; the others are self-pairs, or not among ``indices_tuple``.
    """

    loss: Tensor
    per_item: Tensor
    ground: Tensor
    plan: Tensor
    same: Tensor
    counted: Tensor

    @property
    def entropy(self) -> float:
        """Entropy of the plan over that of equal weights on all pairs that count: 1 is uniform."""
        weights = self.plan.detach()[self.counted].double()
        pairs = len(weights)
        return float(-torch.special.xlogy(weights, weights).sum()) / math.log(pairs) if pairs > 1 else math.nan

    @property
    def violating_mass(self) -> float:
        """Share of the mass on violating pairs: different classes, and closer than the margin."""
        return float(self.plan.detach()[self._violating].sum())

    @property
    def violating_pairs(self) -> float:
        """Share of the pairs that violate: what equal weights would give them."""
        return float(self._violating.sum() / self.counted.sum().clamp_min(1))

    @property
    def positive_mass(self) -> float:
        """Share of the mass on pairs of one class."""
        return float(self.plan.detach()[self.counted & self.same].sum())

    def figures(self) -> dict[str, float | Tensor]:
        """Return the four shares by name; on an accelerator as scalars there, which nobody has to wait for."""
        if self.plan.is_cpu:
            return {
                "entropy": self.entropy,
                "violating_mass": self.violating_mass,
                "violating_pairs": self.violating_pairs,
                "positive_mass": self.positive_mass,
            }
        plan, pairs = self.plan.detach(), self.counted.sum()
        weights = plan.double() * self.counted
        entropy = -torch.special.xlogy(weights, weights).sum() / pairs.double().log()
        return {
            "entropy": entropy.masked_fill(pairs < 2, math.nan),
            "violating_mass": (plan * self._violating).sum(),
            "violating_pairs": self._violating.sum() / pairs.clamp_min(1),
            "positive_mass": (plan * (self.counted & self.same)).sum(),
        }

    @property
    def _violating(self) -> Tensor:
        return self.counted & ~self.same & (self.ground.detach() > 0)


class BatchwiseOTLoss(nn.Module):
    """Batch-wise optimal transport loss (Xu, Sun and Liu 2019, arXiv 1903.08923), called as pytorch-metric-learning's.

    loss = scale * sum_ij T_ij GM_ij over the pairs of two batches, or of one batch with itself. With d the squared
    Euclidean distance, GM = M+ = d for pairs of one class and GM = M- = max(0, margin - d) for the others. T is the
    plan between uniform marginals of total 1 that minimises <T, G> - H(T) / lambda, where G = exp(-gamma GM) is low for
    hard pairs: they receive more of the mass, but each embedding keeps its 1/n, so that none is forgotten.

    The plan is a constant for the gradient by default. The envelope theorem does not apply, since the plan minimises
    <T, G> and the loss uses <T, GM>.

    Embeddings in half precision are compared in float32, inside and outside autocast; the loss is float32 and the
    gradient has the embeddings' dtype. A batch without anything to compare (one class, a single item, a miner that
    chose no pair) has loss 0 and gradient 0, which is said once.

    Args:
        margin: epsilon, in the units of ``distance``.
        gamma: Sharpness of the hardness cost G.
        reg_inverse: lambda, the inverse of the entropic regularisation; 0 is the uniform plan, all pairs alike;
            a negative one prefers easy pairs.
        positive_margin: Pairs of one class closer than this ask for nothing: M+ = max(0, d - positive_margin).
        distance: "sqeuclidean" or "euclidean": what d is.
        pair_power: Power of M+ and M-.
        loss_power: Power of GM in the loss, not in G.
        scale: 1/2 in the paper, 1 in the codes.
        weighting: "transport", or as controls without it "softmax": T = softmax(-lambda G) over all pairs at once, and
            "balanced": half of the mass to the pairs of one class, alike, and half to the others.
        plan_gradient: "constant"; "kernel" differentiates exp(-lambda G) between constant scalings, as two of the
            published codes do; "implicit" differentiates the plan in full.
        exclude_self: Leave out the pairs of an embedding with itself where there is one batch.
        normalize: Divide embeddings by their norms first.

    Raises:
        UserError: An option out of range.

    Examples:
        >>> embeddings = torch.tensor([[0.0], [1.0], [0.5], [3.0]])
        >>> loss = BatchwiseOTLoss(margin=1.0).transport(embeddings, torch.tensor([0, 0, 1, 1]))
        >>> pairs = (loss.same & loss.counted).sum() / loss.counted.sum()
        >>> round(float(pairs), 2), round(loss.positive_mass, 2)  # hard here: more than their share
        (0.33, 0.99)
    """

    def __init__(
        self,
        margin: float = 5.0,
        gamma: float = 10.0,
        reg_inverse: float = 10.0,
        *,
        positive_margin: float = 0.0,
        distance: Distance = "sqeuclidean",
        pair_power: float = 1,
        loss_power: float = 1,
        scale: float = 0.5,
        weighting: Weighting = "transport",
        plan_gradient: PlanGradient = "constant",
        exclude_self: bool = True,
        normalize: bool = False,
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        self.margin = checks.number(owner, "margin", margin, least=0)
        self.gamma = checks.number(owner, "gamma", gamma, least=0)
        self.reg_inverse = checks.number(owner, "reg_inverse", reg_inverse)
        self.positive_margin = checks.number(owner, "positive_margin", positive_margin, least=0)
        self.distance = checks.choice(owner, "distance", distance, get_args(Distance))
        self.pair_power = checks.number(owner, "pair_power", pair_power, least=1)
        self.loss_power = checks.number(owner, "loss_power", loss_power, least=1)
        self.scale = checks.number(owner, "scale", scale, least=0)
        self.weighting = checks.choice(owner, "weighting", weighting, get_args(Weighting))
        self.plan_gradient = checks.choice(owner, "plan_gradient", plan_gradient, get_args(PlanGradient))
        self.exclude_self = checks.flag(owner, "exclude_self", exclude_self)
        self.normalize = checks.flag(owner, "normalize", normalize)
        self._told = False

    @classmethod
    def published(cls, code: str, **options: Any) -> BatchwiseOTLoss:
        """Make what one of the three published codes computes, which is not what the paper says.

        "2d" (digits and CIFAR-10): lambda = 0.01, so that the plan is uniform to 2 %, and GM squared in the loss.
        "shrec" (sketches and shapes): lambda = 5; the only one whose plan is not all but uniform. "3d" (ModelNet):
        hinges of Euclidean distances, squared, and lambda = -0.01; self-pairs count, as do easy pairs a little more.
        None has the paper's 1/2. Plans here are converged: the scalings that "2d" carries from batch to batch and the
        20 iterations of "shrec" are not imitated, nor the softmax loss that "3d" adds.

        Args:
            code: "2d", "shrec" or "3d".
            **options: Of the constructor, over the preset's.

        Returns:
            The loss.

        Raises:
            UserError: No such code, or an option out of range.
        """
        if code not in PUBLISHED:
            raise UserError(f"unknown code {code!r}; there are: {', '.join(PUBLISHED)}.")
        return cls(**{**PUBLISHED[code], **options})

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor | None = None,
        indices_tuple: tuple[Tensor, ...] | None = None,
        ref_emb: Tensor | None = None,
        ref_labels: Tensor | None = None,
    ) -> Tensor:
        """Compute the loss; arguments and errors as of ``transport``."""
        return self.transport(embeddings, labels, indices_tuple, ref_emb, ref_labels).loss

    def transport(
        self,
        embeddings: Tensor,
        labels: Tensor | None = None,
        indices_tuple: tuple[Tensor, ...] | None = None,
        ref_emb: Tensor | None = None,
        ref_labels: Tensor | None = None,
    ) -> PairTransport:
        """Compute the loss together with its plan and ground distances.

        Args:
            embeddings: (N, channels) float.
            labels: (N,) integers; None where ``indices_tuple`` says which pairs are of one class.
            indices_tuple: Pairs (anchors, positives, anchors, negatives) or triplets (anchors, positives, negatives)
                of a miner: only these pairs count, and the plan avoids the others where its marginals let it.
            ref_emb: (M, channels), a second batch or modality; None pairs the batch with itself.
            ref_labels: (M,), given with ``ref_emb`` where there are labels.

        Returns:
            The loss, the plan and the ground distances (N, M), and what they say.

        Raises:
            UserError: Shapes that do not fit, NaN or infinity, or neither labels nor pairs.
        """
        if ref_emb is None and ref_labels is not None:
            raise UserError("give ref_emb and ref_labels together, or neither")
        if ref_emb is embeddings:
            # Told apart before half precision is widened, which makes two tensors of one.
            ref_emb, ref_labels = None, None
        if ref_emb is not None and (labels is None) != (ref_labels is None):
            raise UserError("give labels and ref_labels together, or neither and indices_tuple")
        return self._compared(embeddings, labels, indices_tuple, ref_emb, ref_labels)

    @in_full_precision
    def _compared(
        self,
        x: Tensor,
        x_labels: Tensor | None,
        indices_tuple: tuple[Tensor, ...] | None,
        ref_emb: Tensor | None,
        ref_labels: Tensor | None,
    ) -> PairTransport:
        """Do what ``transport`` says; without ``ref_emb`` the batch is paired with itself."""
        same, counted = pairs_of(x, x_labels, indices_tuple, ref_emb, ref_labels, self.exclude_self)
        y = x if ref_emb is None else ref_emb
        if self.normalize:
            x, y = (functional.normalize(side, dim=1) for side in (x, y))
        return self.of_distances((sqeuclidean if self.distance == "sqeuclidean" else euclidean)(x, y), same, counted)

    def of_distances(self, distances: Tensor, same: Tensor, counted: Tensor) -> PairTransport:
        """Compute the loss from distances that are there already, whatever ``distance`` says.

        Args:
            distances: (N, M) float32 or float64, at least 0.
            same: (N, M) bool, pairs of one class.
            counted: (N, M) bool, pairs that count.

        Returns:
            As ``transport``.
        """
        ground = torch.where(same, (distances - self.positive_margin).relu(), (self.margin - distances).relu())
        ground = ground**self.pair_power
        # Asked all at once: an accelerator makes wait for each answer.
        one_class, any_pair, all_pairs = torch.stack([same.all(), counted.any(), counted.all()]).tolist()
        if one_class or not any_pair:
            if not self._told:
                warn(
                    f"a batch holds {'one class only' if any_pair else 'no pair to compare'}: its "
                    "batch-wise OT loss is 0 and trains nothing (this is said once)",
                    UserWarning,
                )
                self._told = True
            per_item = ground.masked_fill(torch.ones_like(same), 0.0).sum(1)
            return PairTransport(per_item.sum(), per_item, ground, torch.zeros_like(ground), same, counted)
        if self.weighting == "balanced":
            plan = _balanced(same, counted, ground)
        else:
            plan = self._plan(ground, counted, all_pairs)
        losses = plan * ground**self.loss_power * counted
        per_item = self.scale * len(losses) * losses.sum(1)
        return PairTransport(self.scale * losses.sum(), per_item, ground, plan, same, counted)

    def _plan(self, ground: Tensor, counted: Tensor, all_pairs: bool) -> Tensor:
        """Weigh the pairs: (N, M) of total 1, all but nothing on pairs that do not count, unless all do."""
        n, m = ground.shape
        if self.reg_inverse == 0 and all_pairs:
            return ground.new_full((n, m), 1 / (n * m))
        held = ground.detach() if self.plan_gradient == "constant" else ground
        hardness = (-self.gamma * held).exp()
        # In units of reg, so that lambda = 0 and negative ones need no case of their own. Marginals can force mass
        # through two costs of the others at once: one that is left out exceeds twice their range.
        cost = torch.where(counted, self.reg_inverse * hardness, 2 * abs(self.reg_inverse) + EXCLUDED)
        if self.weighting == "softmax":
            return (-cost).flatten().softmax(0).view(n, m)
        if self.plan_gradient == "kernel":
            fixed: Tensor = solve(cost.detach(), solver=Sinkhorn(reg=1.0), validate=False).plan
            return fixed * (cost.detach() - cost).exp()
        plan: Tensor = solve(cost, solver=Sinkhorn(reg=1.0), validate=False).plan
        return plan


def _balanced(same: Tensor, counted: Tensor, like: Tensor) -> Tensor:
    """Give half of the mass to the counted pairs of one class and half to the others; where one kind lacks, all."""
    kinds = [kind.to(like.dtype) for kind in (same & counted, ~same & counted)]
    shares = [kind / kind.sum() for kind in kinds if bool(kind.any())]
    return torch.stack(shares).mean(0)


def pairs_of(
    embeddings: Tensor,
    labels: Tensor | None,
    indices_tuple: tuple[Tensor, ...] | None,
    ref_emb: Tensor | None,
    ref_labels: Tensor | None,
    exclude_self: bool,
) -> tuple[Tensor, Tensor]:
    """Check what is to be compared, and say which pairs are of one class and which count.

    Args:
        embeddings: As of ``BatchwiseOTLoss.transport``, and so are the next three.
        labels: (N,) or None.
        indices_tuple: Pairs or triplets, or None.
        ref_emb: None pairs the batch with itself.
        ref_labels: (M,) or None.
        exclude_self: Leave out the pairs of an embedding with itself where there is one batch.

    Returns:
        (N, M) bool, pairs of one class; and (N, M) bool, pairs that count.

    Raises:
        UserError: As ``BatchwiseOTLoss.transport``.
    """
    y, y_labels = (embeddings, labels) if ref_emb is None else (ref_emb, ref_labels)
    for side, vectors, classes in (("embeddings", embeddings, labels), ("ref_emb", y, y_labels)):
        _check(side, vectors, classes)
    _check_finite({"embeddings": embeddings, "ref_emb": y})
    if embeddings.shape[1] != y.shape[1]:
        raise UserError(f"embeddings have {embeddings.shape[1]} channels and ref_emb {y.shape[1]}")
    shape, device = (len(embeddings), len(y)), embeddings.device
    positive = negative = torch.zeros(shape, dtype=torch.bool, device=device)
    if indices_tuple is not None:
        positive, negative = _mined(indices_tuple, shape, device)
    elif labels is None:
        raise UserError("give labels, or indices_tuple to say which pairs are of one class and which are not")
    same = positive
    if labels is not None and y_labels is not None:
        same = labels.to(device)[:, None] == y_labels.to(device)[None]
    counted = torch.ones_like(same) if indices_tuple is None else positive | negative
    if ref_emb is None and exclude_self:
        counted = counted & ~torch.eye(len(embeddings), dtype=torch.bool, device=device)
    return same, counted


def _check(name: str, embeddings: Tensor, labels: Tensor | None) -> None:
    """Refuse what cannot be paired."""
    if not isinstance(embeddings, Tensor) or embeddings.ndim != 2 or not embeddings.is_floating_point():
        raise UserError(f"{name} must be a floating-point tensor (items, channels)")
    if labels is not None and (not isinstance(labels, Tensor) or labels.shape != embeddings.shape[:1]):
        got = tuple(labels.shape) if isinstance(labels, Tensor) else type(labels).__name__
        side = "ref_" if name == "ref_emb" else ""
        raise UserError(f"{side}labels must be a tensor ({len(embeddings)},), one for each of {name}, not {got}")


def _check_finite(sides: dict[str, Tensor]) -> None:
    """Refuse numbers that are none; asked for both sides at once, since an accelerator makes wait for each answer."""
    finite = {name: embeddings.detach().isfinite().all(1) for name, embeddings in sides.items()}
    if not all(torch.stack([rows.all() for rows in finite.values()]).tolist()):
        name, rows = next((name, rows) for name, rows in finite.items() if not bool(rows.all()))
        raise UserError(f"{name}[{int((~rows).nonzero()[0])}] holds NaN or infinity")


def _mined(indices: tuple[Tensor, ...], shape: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Mark the pairs that a miner chose: those of one class, and those of two."""
    if len(indices) not in {3, 4}:
        raise UserError(f"indices_tuple must hold 3 tensors (triplets) or 4 (pairs), not {len(indices)}")
    anchors, positives, *rest = indices
    again, negatives = (anchors, rest[0]) if len(indices) == 3 else (rest[0], rest[1])
    marks = torch.zeros((2, *shape), dtype=torch.bool, device=device)
    marks[0, anchors, positives] = True
    marks[1, again, negatives] = True
    return marks[0], marks[1]

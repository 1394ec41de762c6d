"""The arms of long-tail: what each second stage minimises."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from otfew.experiments.long_tail.config import OTOptions
from otfew.experiments.long_tail.setting import Cached
from otfew.methods.ot_reweighting import META_COEFFICIENT, Cost, OTReweighting, Reweighting
from otfew.training.long_tail import losses
from otfew.training.long_tail.losses import Objective

META = META_COEFFICIENT
COSTS: tuple[Cost, ...] = ("label", "feature", "combined")


class Weights:
    """All weights of one setting, each computed when it is first asked for.

    Args:
        cached: Features of the setting.
        options: Of the OT weights.
    """

    def __init__(self, cached: Cached, options: OTOptions) -> None:
        self.cached, self.options = cached, options
        self._solved: dict[str, Reweighting] = {}

    def ot(self, cost: Cost) -> Reweighting:
        """Solve for the weights of one cost."""
        if cost not in self._solved:
            f, o = self.cached.features, self.options
            method = OTReweighting(
                cost,
                label_distance=o.label_distance,
                label_coefficient=o.label_coefficient,
                feature_coefficient=o.feature_coefficient,
                meta=o.meta,
                reg=o.reg,
                entropy=o.entropy,
                parameters=o.parameters,
            )
            self._solved[cost] = method.fit(f.train, f.train_labels, f.meta, f.meta_labels)
        return self._solved[cost]

    def factors(self, cost: Cost) -> Tensor:
        """Return the weights of one cost, with mean 1."""
        return self.ot(cost).mean_one()

    def shuffled(self, seed: int) -> Tensor:
        """Return the weights of the combined cost, mixed within each class."""
        return losses.shuffled_within_classes(self.factors("combined"), self.cached.features.train_labels, seed)

    def inverse_frequency(self) -> Tensor:
        """Return factors proportional to 1 / n."""
        return losses.inverse_frequency(self.cached.features.train_labels, self.cached.features.counts)

    def class_balanced(self) -> Tensor:
        """Return factors by the effective number of samples."""
        return losses.class_balanced(self.cached.features.train_labels, self.cached.features.counts)

    def published(self) -> Callable[[Tensor], Tensor]:
        """Begin the published schedule anew."""
        f = self.cached.features
        return OTReweighting.published().schedule(
            f.train, f.train_labels, self.cached.pixel_means, self.cached.pixel_mean_labels
        )


PUBLISHED = "ot-published"
"""The arm whose recipe is the released one; it trains the classifier only."""

Make = Callable[[Weights, int], Objective]
"""Weights and a seed -> objective."""

ARMS: dict[str, tuple[str, Make]] = {
    "ce": ("cross-entropy, continued", lambda w, s: Objective()),
    "ce+meta-data": ("cross-entropy on training and meta images together", lambda w, s: Objective(pooled=True)),
    "crt": (
        "classifier re-training: new classifier, classes sampled alike",
        lambda w, s: Objective(balanced=True, fresh=True),
    ),
    "class-balanced": ("weights by the effective number", lambda w, s: Objective(weights=w.class_balanced())),
    "inverse-frequency": ("weights 1 / n", lambda w, s: Objective(weights=w.inverse_frequency())),
    "focal": ("focal loss, gamma 2", lambda w, s: Objective(loss=losses.focal)),
    "balanced-softmax": ("logits + log n in training", lambda w, s: Objective(loss=losses.balanced_softmax)),
    "ldam-drw": (
        "margins by n^(-1/4), cosines, effective-number weights in the last fifth",
        lambda w, s: Objective(loss=losses.ldam, cosine=True, weights=w.class_balanced(), deferred=0.8),
    ),
    "meta-ce": ("cross-entropy on the meta set only", lambda w, s: Objective(train=0.0, meta=1.0)),
    "class-balanced+meta-ce": (
        "both, meta coefficient 10",
        lambda w, s: Objective(weights=w.class_balanced(), meta=META),
    ),
    "inverse-frequency+meta-ce": (
        "both, meta coefficient 10",
        lambda w, s: Objective(weights=w.inverse_frequency(), meta=META),
    ),
    "ot-label": ("OT weights, label cost", lambda w, s: Objective(weights=w.factors("label"))),
    "ot-feature": ("OT weights, feature cost", lambda w, s: Objective(weights=w.factors("feature"))),
    "ot-combined": ("OT weights, both costs", lambda w, s: Objective(weights=w.factors("combined"))),
    "ot-shuffled": ("ot-combined, mixed within each class", lambda w, s: Objective(weights=w.shuffled(s))),
    "ot-label+meta-ce": ("both, meta coefficient 10", lambda w, s: Objective(weights=w.factors("label"), meta=META)),
    "ot-feature+meta-ce": (
        "both, meta coefficient 10",
        lambda w, s: Objective(weights=w.factors("feature"), meta=META),
    ),
    "ot-combined+meta-ce": (
        "both, meta coefficient 10",
        lambda w, s: Objective(weights=w.factors("combined"), meta=META),
    ),
    "ot-shuffled+meta-ce": ("both, meta coefficient 10", lambda w, s: Objective(weights=w.shuffled(s), meta=META)),
    PUBLISHED: (
        "the published mini-batch schedule, meta coefficient 10",
        lambda w, s: Objective(update=w.published(), meta=META, summed=True),
    ),
}
"""Name -> what it is, and its objective."""

POST_HOC = {
    "stage-1": "the classifier of stage 1",
    "logit-adjustment": "stage 1 with tau log n subtracted from its logits, tau by validation",
}
"""Arms that train nothing."""

COMPARISONS = (
    ("ot-combined+meta-ce", "inverse-frequency+meta-ce"),
    ("ot-label+meta-ce", "inverse-frequency+meta-ce"),
    ("ot-feature+meta-ce", "inverse-frequency+meta-ce"),
    ("ot-combined+meta-ce", "meta-ce"),
    ("ot-combined", "inverse-frequency"),
    ("ot-label", "inverse-frequency"),
    ("ot-feature", "inverse-frequency"),
    ("ot-combined+meta-ce", "ot-shuffled+meta-ce"),
    ("ot-combined", "ot-shuffled"),
    ("ot-published", "class-balanced+meta-ce"),
    ("ot-published", "ce"),
    ("inverse-frequency+meta-ce", "inverse-frequency"),
    ("ot-combined+meta-ce", "balanced-softmax"),
    ("ot-combined+meta-ce", "ce"),
)
"""Pairs that answer questions; Holm's correction is over them. The first is the question of the whole exercise."""

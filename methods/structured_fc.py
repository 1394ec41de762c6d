"""The structured fully connected layer: per class one learnable node set, fitted to the support by SGD."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from otfew import checks
from otfew.errors import UserError
from otfew.method import even_groups, shot_mean
from otfew.methods._sfc_descent import descend
from otfew.methods.shot_heads import ShotHead
from otfew.random.shuffle import draw
from otfew.scores.emd import EMDScore
from otfew.scores.node_weights import CrossReference, Uniform
from otfew.scores.pairwise import NORM_EPS, centred_norms
from otfew.transport import Exact
from otfew.transport.precision import in_full_precision
from otfew.transport.sending import send

MOMENTUM = 0.9
DAMPENING = 0.9
"""As in ``torch.optim.SGD``: all gradients but the first count by 1 - dampening."""

EPOCHS = 100
"""Passes over the support set unless said otherwise: the released evaluation code's."""

MiniBatch = npt.NDArray[np.int64]


@dataclass(frozen=True)
class StructuredFC(ShotHead):
    """DeepEMD's structured fully connected layer (Zhang et al. 2020, section 3.5; 2022, section 4.5, algorithm 1).

    Each class has a learnable node set, which starts at the location-wise mean of the class's support node sets. SGD
    (momentum 0.9, dampening 0.9, no weight decay) minimises the cross-entropy over classes of the support images,
    scored as queries are: temperature times the mean similarity under the cheapest transport. The plan is a constant
    of the gradient, and so are the weights unless the score says ``weight_gradient``; then the whole score is
    differentiated. A node without direction (zero after centring, or constant over channels) stays as it is.

    The defaults are those of the released evaluation code: "100" counts passes over the support set, 700 updates for
    5-way 5-shot. The paper says 100 iterations of mini-batches of 5: ``batch_size=5, iterations=100``.

    The random order of pass t is a function of ``seed``, t and the number of support images, alike in all episodes:
    an episode's answer does not depend on its batch-mates or place. Support images are numbered class by class, and
    masked shots are left out, so a permutation of classes or shots acts as another seed would, unless
    ``batch_size`` holds the whole support set. With one shot in every class nothing is fitted, as in the released
    code: the layer is then the support itself.

    Args:
        lr: Step size.
        epochs: Passes over the support set; 100 where neither these nor ``iterations`` are given.
        batch_size: Support images a step; the last step of a pass takes what is left.
        iterations: Steps, in place of ``epochs``.
        seed: Of the order.

    Raises:
        UserError: A step size that is not positive; epochs, batch size or iterations below 1; both epochs and
            iterations.

    Examples:
        >>> from otfew.methods import DeepEMD
        >>> DeepEMD(shot_head=StructuredFC(lr=10, epochs=20)).shot_head
        StructuredFC(lr=10, epochs=20, batch_size=4, iterations=None, seed=0)
    """

    lr: float = 100.0
    epochs: int | None = None
    batch_size: int = 4
    iterations: int | None = None
    seed: int = 0

    name: ClassVar[str] = "sfc"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.epochs is not None and self.iterations is not None:
            raise UserError("StructuredFC: `epochs` has no effect beside `iterations`: give one of them.")

    @classmethod
    def check_option(cls, owner: str, argument: str, option: str, value: Any) -> None:
        """Refuse a step size that is not positive, and counts below 1."""
        if option == "lr":
            checks.number(owner, argument, value, above=0)
        elif option == "seed":
            checks.whole(owner, argument, value, least=None)
        elif value is not None or option == "batch_size":
            checks.whole(owner, argument, value)

    def scores(
        self, score: EMDScore, support: Tensor, support_mask: Tensor | None, query: Tensor, temperature: float
    ) -> Tensor:
        """Fit the layer to the support, then score the query against it."""
        return score(self.fit(support, support_mask, score, temperature), query)

    def batches(self, n_images: int) -> Iterator[MiniBatch]:
        """Draw the mini-batches.

        Args:
            n_images: Support images, numbered from 0.

        Yields:
            (batch,) int64 numbers of images, one array for each step.
        """
        steps = self.iterations or (self.epochs or EPOCHS) * -(-n_images // self.batch_size)
        return itertools.islice(self._endless(n_images), steps)

    def _endless(self, n_images: int) -> Iterator[MiniBatch]:
        for epoch in itertools.count():
            # 2**130 words lie between two passes.
            generator = np.random.Philox(key=self.seed % (1 << 128), counter=epoch << 128)
            order = np.array(draw(iter(generator.random_raw, None), n_images, n_images), np.int64)
            yield from (order[first : first + self.batch_size] for first in range(0, n_images, self.batch_size))

    @in_full_precision
    def fit(self, support: Tensor, support_mask: Tensor | None, score: EMDScore, temperature: float) -> Tensor:
        """Fit every episode's layer; no gradient flows into the support.

        Args:
            support: (episodes, way, shot, nodes, channels).
            support_mask: (episodes, way, shot) bool; masked shots do not count.
            score: Of a support image against the layer.
            temperature: Factor of the score, in the loss as in the logits.

        Returns:
            (episodes, way, nodes, channels).

        Raises:
            UserError: Fewer than two classes.
        """
        way = support.shape[1]
        if way < 2:
            raise UserError(
                f"the structured FC is fitted to tell classes apart, but the support has {way} class; "
                "give at least two, or take shot_head='mean'."
            )
        with torch.inference_mode(False), torch.no_grad():
            # Inference tensors cannot enter a graph; a copy can.
            support = support.detach().clone() if support.is_inference() else support.detach()
            fitted: Tensor = shot_mean(support, support_mask)
            for group, items, labels in _labelled_images(support, support_mask):
                if items.shape[1] > way:
                    fitted[group] = self._fit(items, labels, fitted[group], score, temperature)
        return fitted

    def _fit(self, items: Tensor, labels: Tensor, start: Tensor, score: EMDScore, temperature: float) -> Tensor:
        # Steps of autograd are six times as many operations as those by hand, on the CPU or by kernels on the device,
        # which match all the mass.
        at_home = items.is_cpu or "cpu" in score.solver.devices
        by_hand = at_home and isinstance(score.weights, CrossReference | Uniform) and score.mass == 1
        if not by_hand or (score.weight_gradient and score.solver.kind != "exact"):
            return self.fit_by_autograd(items, labels, start, score, temperature)
        how: dict[str, Any] = {
            "cross_reference": isinstance(score.weights, CrossReference),
            "weight_gradient": score.weight_gradient,
            "temperature": temperature,
            "lr": self.lr,
            "momentum": MOMENTUM,
            "dampening": DAMPENING,
        }
        if isinstance(score.solver, Exact) and not items.is_cpu:
            from otfew.methods._sfc_device import descend_there

            there = descend_there(items, labels, start, [*self.batches(items.shape[1])], solver=score.solver, **how)
            if there is not None:
                return there
        images = items.shape[1]
        fitted = descend(
            items.cpu(), labels.cpu(), start.cpu(), lambda: self.batches(images), solver=score.solver, **how
        )
        return send(fitted, items.device)

    @in_full_precision
    def fit_by_autograd(
        self, items: Tensor, labels: Tensor, start: Tensor, score: EMDScore, temperature: float
    ) -> Tensor:
        """Fit any weights on any device; slower than by hand.

        Args:
            items: (episodes, images, nodes, channels), the support images.
            labels: (episodes, images) int64.
            start: (episodes, way, nodes, channels).
            score: Of an image against the layer.
            temperature: Factor of the score.

        Returns:
            (episodes, way, nodes, channels).
        """
        layer = start.clone().requires_grad_()
        step = torch.zeros_like(start)
        steps = [*self.batches(items.shape[1])]
        order = send(torch.from_numpy(np.concatenate(steps)), items.device)
        for count, index in enumerate(torch.split(order, [len(chosen) for chosen in steps])):
            with torch.enable_grad():
                images = items[:, index]
                scores = score(layer, images) if score.weight_gradient else score.of_constant_plan(layer, images)
                loss = cross_entropy((temperature * scores).flatten(0, 1), labels[:, index].flatten(), reduction="sum")
                gradient = torch.autograd.grad(loss / len(index), layer)[0]
            gradient.masked_fill_((centred_norms(layer) <= NORM_EPS)[..., None], 0)
            step.mul_(MOMENTUM if count else 0).add_(gradient, alpha=1 - DAMPENING if count else 1)
            layer.data.sub_(step, alpha=self.lr)
        fitted: Tensor = layer.detach()
        return fitted


def _labelled_images(support: Tensor, support_mask: Tensor | None) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """List the support images that count, with their classes, in groups of episodes with equally many.

    Yields:
        Episode indices (group,), images (group, images, nodes, channels) in order of class and shot, labels
        (group, images) int64.
    """
    episodes, way, shot = support.shape[:3]
    if support_mask is None:
        labels = torch.arange(way, device=support.device).repeat_interleave(shot).expand(episodes, -1)
        yield torch.arange(episodes, device=support.device), support.flatten(1, 2), labels
        return
    images = support.flatten(1, 2)
    for group, chosen in even_groups(support_mask, support.device):
        yield group, images[group[:, None], chosen], chosen // shot

"""Laws of backbones: a network from images to maps, the same for the same image."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from otfew import backbones
from otfew.backbones import Backbone
from otfew.conformance.chance import seeded, twice
from otfew.conformance.findings import Finding, Law, broken, judge, noted
from otfew.errors import UserError

IMAGES = 3
NEAR = 1e-4
"""Largest difference of maps that ought to be equal, relative to their size."""


@dataclass
class Subject:
    """A backbone.

    Attributes:
        spec: As it was given.
    """

    spec: str

    @cached_property
    def backbone(self) -> Backbone:
        """Load it, once."""
        with seeded(0):
            return backbones.load(self.spec)

    def images(self, side: int | None = None, count: int = IMAGES) -> Tensor:
        """Draw images (count, 3, side, side) uint8; as large as those of its training."""
        side = side or self.backbone.card.resolution
        return torch.randint(
            0, 256, (count, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
        )


def check(spec: str) -> tuple[Finding, ...]:
    """Try all laws on a backbone.

    Args:
        spec: As ``otfew.backbones.load`` takes it.
    """
    return judge(Subject(spec), LAWS)


def _loads(subject: Subject) -> None:
    _ = subject.backbone


def _maps(subject: Subject) -> None:
    maps = subject.backbone.maps(subject.images())
    if 0 in maps.shape:
        broken(f"maps have the shape {tuple(maps.shape)}: nothing is left of an image of this size.")
    if not bool(torch.isfinite(maps).all()):
        broken("maps are NaN or infinite.")
    if not bool(maps.any()):
        broken("maps are zero throughout.")
    if maps.shape[2:] == (1, 1):
        noted("an image has a single node: transport has nothing to match; return the map before the last pooling.")


def _deterministic(subject: Subject) -> None:
    images = subject.images()
    given = images.clone()
    first, second = twice(lambda: subject.backbone.maps(images))
    if not torch.equal(first, second):
        broken(
            "the same images get other maps when torch is seeded otherwise: nothing may be drawn in evaluation mode."
        )
    if not torch.equal(images, given):
        broken("it writes into the images.")


def _batch_mates(subject: Subject) -> None:
    images = subject.images()
    together = subject.backbone.maps(images)
    alone = torch.cat([subject.backbone.maps(images[i : i + 1]) for i in range(IMAGES)])
    if float((together - alone).abs().max()) > NEAR * max(1e-6, float(together.abs().max())):
        broken(
            "an image's map depends on the other images of the batch: batch statistics must rest in evaluation mode, "
            "and nothing may run over the first axis."
        )


def _looks(subject: Subject) -> None:
    images = subject.images()
    maps = subject.backbone.maps(images)
    if float((maps[0] - maps[1]).abs().max()) == 0:
        broken("two images of noise have the same map: does it look at its input?")


def _sizes(subject: Subject) -> None:
    side = subject.backbone.card.resolution
    refused = [other for other in (side * 3 // 2, 32) if not _takes(subject, other)]
    if refused:
        noted(f"images of {side} px are taken, those of {refused[0]} px are not: give --resolution {side}.")


def _takes(subject: Subject, side: int) -> bool:
    """Tell whether it takes images of a size."""
    try:
        subject.backbone.maps(subject.images(side, 1))
    except (UserError, RuntimeError, ValueError, AssertionError):
        return False
    return True


def _same_weights(subject: Subject) -> None:
    with seeded(99):
        again = backbones.load(subject.spec)
    if again.digest != subject.backbone.digest:
        noted(
            "its weights are drawn anew by each call: right for pretrain, which trains them; for compare, have the "
            "factory load weights, or no run can be gone on with."
        )


def _trains(subject: Subject) -> None:
    module = subject.backbone.module
    parameters = list(module.parameters())
    if not parameters:
        noted("it has no weights: nothing to train.")
    frozen = [parameter.requires_grad for parameter in parameters]
    try:
        module.requires_grad_(True)
        module(subject.images().float() / 255).square().mean().backward()
        found = [parameter.grad for parameter in parameters]
        if not any(gradient is not None and bool(gradient.any()) for gradient in found):
            noted("no gradient reaches its weights: pretrain and metatrain cannot train it.")
        if any(gradient is not None and not bool(torch.isfinite(gradient).all()) for gradient in found):
            broken("a gradient in its weights is NaN or infinite.")
    finally:
        for parameter, wanted in zip(parameters, frozen, strict=True):
            parameter.grad = None
            parameter.requires_grad_(wanted)


def _states(subject: Subject) -> None:
    card = subject.backbone.card
    if "unknown" in card.training_data:
        noted(
            "nothing is known of what it was trained on, and reports say so: return an otfew.backbones.Backbone with a "
            "card to tell."
        )


LAWS: tuple[Law[Subject], ...] = (
    Law("it loads", _loads, first=True),
    Law("images become maps", _maps, first=True),
    Law("the same images have the same maps", _deterministic),
    Law("an image does not depend on its batch-mates", _batch_mates),
    Law("other images have other maps", _looks),
    Law("images of other sizes", _sizes),
    Law("each start has the same weights", _same_weights),
    Law("gradients reach its weights", _trains),
    Law("it says what it was trained on", _states),
)

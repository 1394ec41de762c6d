"""Where the trunks of ``experiments.metric_learning`` begin: anew, or as copies of a trained backbone."""

from __future__ import annotations

from dataclasses import replace

from otfew import backbones
from otfew.backbones import zoo
from otfew.backbones.architectures import ARCHITECTURES
from otfew.backbones.base import Backbone, Card
from otfew.backbones.cards import SUFFIX
from otfew.errors import UserError
from otfew.experiments.metric_learning.material import Material
from otfew.training.metric.task import Images


def find_start(spec: str) -> Backbone | None:
    """Load the backbone to go on from; None for an architecture, which begins anew.

    Raises:
        UserError: It is neither, or of no architecture of ours.
    """
    if spec in ARCHITECTURES:
        return None
    if not (zoo.known(spec) or spec.endswith(SUFFIX)):
        raise UserError(
            f"unknown backbone {spec!r}: choose from {', '.join(ARCHITECTURES)}, or give a trained one by name or as a "
            f"{SUFFIX} file."
        )
    found = backbones.load(spec)
    if found.card.architecture not in ARCHITECTURES:
        raise UserError(f"backbone {spec!r} is of no architecture of ours, so nothing can go on from it: give another.")
    return found


def as_trained(material: Material, card: Card) -> Material:
    """Normalise images as a trained backbone expects them.

    Raises:
        UserError: It has seen classes of the test images that training does not have.
    """
    if not material.shared_classes:
        seen, count = backbones.classes_seen(card, material.test_classes, dataset=material.dataset)
        if seen:
            raise UserError(
                f"backbone {card.name!r} was trained on {seen} of the {count} test classes: give another backbone."
            )

    def normal(parts: tuple[Images, ...]) -> tuple[Images, ...]:
        return tuple(replace(part, mean=card.mean, std=card.std) for part in parts)

    splits = {split: normal(parts) for split, parts in material.splits.items()}
    return replace(material, splits=splits, curve=normal(material.curve))

"""What a finished run of metric learning leaves to other commands: its trunk, as a backbone with a card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from otfew.backbones.architectures import ARCHITECTURES
from otfew.backbones.base import Backbone, Card
from otfew.experiments.metric_learning.material import Material
from otfew.plugins import file_name
from otfew.training.checkpoint import save
from otfew.training.metric.task import Images

FOLDER = "checkpoints"
SIDES = ("", "-queries")
"""Ends the name of each modality's checkpoint: the gallery's, then the queries'."""


def write(folder: Path, weights: Mapping[str, Tensor], train: tuple[Images, ...], card: Card) -> None:
    """Write the trunk of each modality with its card, in half precision; heads and the loss are left behind.

    Args:
        folder: Of the runs.
        weights: State dictionary of the ``Learner``.
        train: Training images of each modality.
        card: Of the first one.
    """
    for modality, (side, images) in enumerate(zip(SIDES, train, strict=False)):
        prefix = f"space.embedders.{modality}.trunk."
        own = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
        trunk = ARCHITECTURES[card.architecture](**card.options)
        trunk.load_state_dict(own)
        named = replace(card, name=card.name + side, mean=images.mean, std=images.std)
        save(folder / FOLDER / f"{named.name}.safetensors", trunk, named, half=True)


def card(architecture: str, start: Backbone | None, material: Material, protocol: Mapping[str, Any]) -> Card:
    """Write the card of a run's trunk.

    Args:
        architecture: Key of ``ARCHITECTURES``.
        start: Where the trunk began; None where it began anew.
        material: What was learned.
        protocol: As ``protocol`` says it.
    """
    items = len(material.splits["train"][0].labels)
    seen = f"{material.dataset} train: {len(material.classes)} classes, {items:,} items"
    known = () if start is None else start.card.training_classes
    # Of a network that came with weights nobody knows what it has seen, so that no list of classes would be whole.
    external = start is not None and start.card.external
    listed = [] if external else list(dict.fromkeys([*known, *material.classes]))
    return Card(
        name=file_name(f"{material.dataset}-{architecture}-{protocol['loss']}-seed{protocol['seed']}"),
        architecture=architecture,
        options={} if start is None else dict(start.card.options),
        resolution=material.resolution,
        external=external,
        training_data="; ".join([seen, *material.notes]),
        dataset=material.dataset,
        training_classes=tuple(listed),
        protocol=dict(protocol),
        classes_known=start is None or start.card.classes_known,
    )


def protocol(shared: Mapping[str, Any], start: Backbone | None, **own: Any) -> dict[str, Any]:
    """Say in a card how a trunk was trained.

    Args:
        shared: What all runs of the folder have in common.
        start: Where the trunk began; None where it began anew.
        **own: What this run has of its own.
    """
    kept = ("head", "epochs", "batch_size", "optimizer", "per_class", "augmentation", "precision", "data", "curve")
    behind = "fully connected layers behind the maps are not kept" if shared["head"] else "which are the maps' means"
    began = {} if start is None else {"started_from": {**shared["started_from"], "protocol": start.card.protocol}}
    return {
        "objective": f"a loss of pairs of embeddings, {behind}",
        **{name: shared[name] for name in kept},
        **own,
        **began,
        "torch": torch.__version__,
    }

"""What a comparison runs on and with: material, solver and device, found or refused in a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from otfew import devices
from otfew.backbones import Backbone
from otfew.choices import Crop, Part
from otfew.data import DataOptions
from otfew.errors import UserError
from otfew.evaluation.guard import refuse_overlap
from otfew.features.material import FileMaterial, Material, load_image_material
from otfew.runs import processes
from otfew.runs.watch import SILENT, Watch
from otfew.transport import Solver
from otfew.transport.registry import resolve


def open_material(
    dataset: str,
    features: Path | None = None,
    *,
    split: Part = "test",
    data_root: Path | None = None,
    options: DataOptions | None = None,
    backbone: str | Backbone | None = None,
    resolution: int | None = None,
    crop: Crop | None = None,
    nodes: str = "",
    allow_overlap: bool = False,
    trained_on: str | None = None,
    support_domain: str | None = None,
    query_domain: str | None = None,
    watch: Watch = SILENT,
) -> Material:
    """Open the user's features, or a split and a backbone.

    Args:
        dataset: As ``otfew.data.find`` takes it.
        features: The user's own features instead.
        split: What is evaluated.
        data_root: Folder of data sets.
        options: Of the data set.
        backbone: As in ``compare``.
        resolution: As in ``compare``.
        crop: As in ``compare``.
        nodes: Kind of nodes for all methods; "" for what each prefers.
        allow_overlap: Go on although the backbone has seen the classes.
        trained_on: As in ``compare``.
        support_domain: As in ``compare``.
        query_domain: As in ``compare``.
        watch: Where progress is shown.

    Raises:
        UserError: Anything is missing or unknown, or classes were seen in training.
    """
    if features is not None:
        return FileMaterial(features)
    # What has to be fetched or drawn is fetched or drawn once a machine.
    with processes.leaders_first():
        material = load_image_material(
            dataset, split, data_root, options, backbone, resolution, crop, nodes, watch, trained_on,
            support_domain, query_domain,
        )  # fmt: skip
    # Evaluation refuses them too; here they are refused before anything is extracted.
    refuse_overlap(material.overlap, allow_overlap)
    return material


def refuse_images(**given: object) -> None:
    """Raise ``UserError`` where arguments about images stand beside features: None is an argument that is left out."""
    for name, value in given.items():
        if value is not None:
            raise UserError(f"`features` comes in place of images, so that `{name}` is without effect: leave it out.")


def refuse_other_images(materials: Mapping[str, Material]) -> None:
    """Raise ``UserError`` where features cannot be of the same images in the same order."""
    (first, own), *others = materials.items()
    for name, other in others:
        if len(other.labels) != len(own.labels):
            said = f"{len(other.labels):,} images where {first} has {len(own.labels):,}"
        elif set(other.classes) != set(own.classes):
            said = f"other classes than {first}"
        elif other.classes != own.classes:
            said = (
                f"its classes in another order than {first}, as where labels are numbers in one and text in the other"
            )
        elif len(different := np.flatnonzero(other.labels != own.labels)):
            said = f"image {different[0]} of another class than {first}"
        else:
            continue
        raise UserError(f"`features` {name} has {said}: give features of the same images, in the same order.")


def check_solver(solver: str | Solver) -> None:
    """Raise ``UserError`` unless the solver exists and is installed."""
    try:
        resolve(solver)
    except (ValueError, TypeError, ImportError) as error:
        raise UserError(f"`solver`: {error}.") from error


def pick_device(name: str) -> str:
    """Choose where to compute; raises ``UserError`` where there is no such device.

    Processes of one machine take its accelerators in turn, unless the name says which.
    """
    import torch

    here = processes.world()
    if name in {"auto", "cuda"} and here.size > 1 and torch.cuda.is_available():
        name = f"cuda:{here.local_rank % torch.cuda.device_count()}"
    return str(devices.pick(name, among=("cuda",)))  # methods need float64, which MPS lacks

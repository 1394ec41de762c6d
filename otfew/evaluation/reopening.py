"""The images that a run was of, found again by what its protocol says of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from otfew.choices import CubSplit
from otfew.data import DataOptions, ImageSet
from otfew.data import load as load_images
from otfew.data.domains import AS_THEY_ARE, across
from otfew.data.halves import HALVES, load_half
from otfew.errors import UserError


def reopen(
    protocol: Mapping[str, Any], root: Path | None = None, options: DataOptions | None = None, dataset: str = ""
) -> ImageSet:
    """Open the images of a run.

    Args:
        protocol: Of the run, or of a panel.
        root: Data root, or None for the default.
        options: What the protocol does not say, such as the depth of class folders.
        dataset: The data set as the run was given it, where the protocol's name does not lead there.

    Raises:
        UserError: The run was of features, images are missing, or they are others than the run's.
    """
    data = protocol["data"]
    name, split = dataset or str(data["dataset"]), str(data["split"])
    if "names_sha256" not in data:
        raise UserError(f"the run was of {name!r}, which has no images that could be shown.")
    load = load_half if split in HALVES else load_images
    images = load(name, split, root, _options(protocol, options or DataOptions()))
    if "domains" in data:
        images = _joined(images, data["domains"])
    if images.digest != data["names_sha256"]:
        raise UserError(
            f"the images of {name!r} in `data_root` are others than those of the run ({len(images):,} in "
            f"{len(images.classes):,} classes; the run had {data['images']:,} in {data['classes']:,}): give the "
            "folder and the options that the run had."
        )
    return images


def _joined(images: ImageSet, domains: Mapping[str, Any]) -> ImageSet:
    """See images as a run across domains did; raises ``UserError`` where its queries lay in a folder."""

    def refuse(folder: Path) -> ImageSet:
        raise UserError(f"the run's queries were of folder {folder.name!r}, which is not known here: no pictures.")

    names = (domains["support"]["name"], domains["query"]["name"])
    if not domains["same_images"] and not set(names) <= set(images.domains):
        return refuse(Path(names[1]))
    support, query = (None if name == AS_THEY_ARE else name for name in names)
    return across(images, support, query, refuse).joined


def _options(protocol: Mapping[str, Any], given: DataOptions) -> DataOptions:
    """Read the choices that a data set offered out of the protocol."""
    variant = str(protocol["data"]["variant"]).partition("; ")[0]  # two domains are named behind it
    cub_split: CubSplit
    for cub_split in get_args(CubSplit):
        if variant == cub_split:
            given = replace(given, cub_split=cub_split)
    if seed := re.fullmatch(r"seed(-?\d+)", variant):
        given = replace(given, split_seed=int(seed[1]))
    return replace(given, all_classes=bool(protocol.get("fixed_classes")))

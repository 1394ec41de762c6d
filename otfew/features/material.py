"""What methods run on: a split of a data set through a backbone, or a user's own features."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from otfew.backbones import Backbone, classes_seen
from otfew.backbones import load as load_backbone
from otfew.backbones.stated import state
from otfew.choices import Crop
from otfew.data import DataOptions, ImageSet
from otfew.data import find as find_data
from otfew.data import load as load_images
from otfew.data.domains import Domains, across
from otfew.data.halves import ALL, HALVES, JOINED, load_half
from otfew.data.preparation import Preparation, default_crop
from otfew.errors import UserError
from otfew.features.extract import FeatureSet, base_mean, extract
from otfew.features.file import labels_digest, load_feature_file
from otfew.nodes import parse
from otfew.runs import processes
from otfew.runs.files import cache_directory
from otfew.runs.watch import SILENT, Watch


class Material(Protocol):
    """Where node sets come from."""

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """Return the label of every image."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the class names."""
        ...

    @property
    def overlap(self) -> str:
        """Say which classes the backbone has seen in training, without the sentence's end; "" where it is no leak."""
        ...

    def describe(self) -> dict[str, Any]:
        """Return the protocol's part about data, backbone and images, JSON-ready and without paths."""
        ...

    def nodes_spec(self, preferred: str) -> str:
        """Return the kind of nodes that a method gets; raises ``UserError`` where there is no such kind."""
        ...

    def base_mean_missing(self) -> str:
        """Say why there is no mean of the base classes, or return ""."""
        ...

    def features(self, spec: str, device: str) -> FeatureSet:
        """Return the nodes of all images."""
        ...

    def base_mean(self, spec: str, device: str) -> Tensor:
        """Return the (channels,) mean of the base classes' global vectors."""
        ...

    def learned(self, method: str) -> dict[str, float]:
        """Return the options of a method that were learned with the backbone, where it was meta-trained for it."""
        ...


class FileMaterial:
    """A user's own features.

    Args:
        path: See ``otfew.features.file``.
    """

    def __init__(self, path: Path) -> None:
        self._features = load_feature_file(path)

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """Return the label of every image."""
        return self._features.labels

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the class names."""
        return self._features.classes

    @property
    def overlap(self) -> str:
        """Return nothing: files of features do not say what their backbone has seen."""
        return ""

    def describe(self) -> dict[str, Any]:
        """Return the protocol's part about the data.

        Episodes are keyed by the labels, so that features of the same images by two networks are asked the same.
        """
        images, nodes, channels = self._features.nodes.shape
        digest = self._features.source["features_sha256"]
        data = {
            "dataset": "features",
            "variant": labels_digest(self.labels, self.classes)[:16],
            "split": "file",
            "classes": len(self.classes),
            "published_classes": len(self.classes),
            "images": images,
            "features_sha256": digest,
            "notes": [f"{nodes} nodes of {channels} channels an image"],
        }
        return {"data": data, "backbone": None, "resolution": None, "crop": None}

    def nodes_spec(self, preferred: str) -> str:
        """Return "file", whatever a method prefers."""
        del preferred
        return self._features.nodes_spec

    def base_mean_missing(self) -> str:
        """Say why there is no mean of the base classes, or return ""."""
        return "" if self._features.base_mean is not None else "the features file has no base_mean"

    def features(self, spec: str, device: str) -> FeatureSet:
        """Return the file's nodes."""
        del spec, device
        return self._features

    def base_mean(self, spec: str, device: str) -> Tensor:
        """Return the file's base mean."""
        del spec, device
        if self._features.base_mean is None:
            raise UserError(f"{self.base_mean_missing()}: add it or leave such methods out.")
        return self._features.base_mean

    def learned(self, method: str) -> dict[str, float]:
        """Return nothing: files of features do not say."""
        del method
        return {}


@dataclass
class ImageMaterial:
    """One split of a data set and a backbone.

    Attributes:
        images: The evaluated split.
        backbone: What extracts.
        preparation: Resolution and crop.
        base: Loads the train split.
        seen: Classes that the backbone has seen in training; None where unknown.
        given_nodes: Kind of nodes for all methods, or "" for what each prefers.
        watch: Where progress is shown.
    """

    images: ImageSet
    backbone: Backbone
    preparation: Preparation
    base: Callable[[], ImageSet]
    seen: int | None
    given_nodes: str = ""
    watch: Watch = SILENT
    _features: dict[str, FeatureSet] = field(default_factory=dict)

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """Return the label of every image."""
        return self.images.labels

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the class names."""
        return self.images.classes

    @property
    def overlap(self) -> str:
        """Say which classes the backbone has seen in training; "" for external ones, whose reports say it."""
        if not self.seen or self.backbone.card.external:
            return ""
        return (
            f"backbone {self.backbone.name!r} was trained on {self.seen} of the {len(self.classes)} classes of split "
            f"{self.images.split!r} of {self.images.dataset!r}"
        )

    def describe(self) -> dict[str, Any]:
        """Return the protocol's part about data, backbone and images."""
        card = self.backbone.card
        data = {
            "dataset": self.images.dataset,
            "variant": self.images.variant,
            "split": self.images.split,
            "classes": len(self.classes),
            "published_classes": self.images.published_classes,
            **({"units": len(set(self.images.units))} if self.images.units else {}),
            "images": len(self.images),
            "names_sha256": self.images.digest,
            "notes": list(self.images.notes),
        }
        backbone = {
            "name": card.name,
            "architecture": card.architecture,
            "sha256": self.backbone.digest,
            "training_data": card.training_data,
            "external": card.external,
            "test_classes_seen": self.seen,
        }
        resolution, crop = self.preparation.resolution, self.preparation.crop
        return {"data": data, "backbone": backbone, "resolution": resolution, "crop": crop}

    def seed_name(self, image: int) -> str:
        """Return the name by which random crops of an image are drawn."""
        return self.images.names[image]

    def nodes_spec(self, preferred: str) -> str:
        """Return the canonical kind of nodes that a method gets."""
        return parse(self.given_nodes or preferred).spec

    def base_mean_missing(self) -> str:
        """Say why there is no mean of the base classes, or return ""."""
        if self.images.split in {"train", HALVES[0], ALL}:
            return "the base classes are the evaluated split itself"
        try:
            self.base()
        except UserError as error:
            return f"the train split cannot be had ({error})"
        return ""

    def features(self, spec: str, device: str) -> FeatureSet:
        """Extract nodes, or take them from the cache."""
        if spec not in self._features:
            with processes.leaders_first(), self.watch.task(f"extracting {spec} nodes") as progress:
                found = extract(
                    self.images,
                    self.backbone.to(device),
                    parse(spec),
                    self.preparation,
                    cache_directory() / "features",
                    progress=progress,
                    note=self.watch.note,
                )
            self._features[spec] = replace(found, overlap=self.overlap)
        return self._features[spec]

    def base_mean(self, spec: str, device: str) -> Tensor:
        """Extract the mean of the base classes, or take it from the cache."""
        with processes.leaders_first(), self.watch.task("extracting base classes") as progress:
            return base_mean(
                self.base(),
                self.backbone.to(device),
                parse(spec),
                self.preparation,
                cache_directory() / "features",
                progress=progress,
                note=self.watch.note,
            )

    def learned(self, method: str) -> dict[str, float]:
        """Return what the backbone's card says was learned with it."""
        return dict(self.backbone.card.protocol.get("learned", {}).get(method, {}))


@dataclass(kw_only=True)
class DomainMaterial(ImageMaterial):
    """Two domains of the same classes and a backbone; ``images`` holds those of both, the queries' behind the others.

    Attributes:
        domains: Where labelled images and where queries come from.
        support: Material of the labelled images.
        query: Material of the queries.
    """

    domains: Domains
    support: ImageMaterial
    query: ImageMaterial

    def describe(self) -> dict[str, Any]:
        """Return the protocol's part about data, both domains, backbone and images."""
        described = self.support.describe()
        told = {
            role: {"name": name, "images": len(part.images), "names_sha256": part.images.digest}
            for role, name, part in zip(("support", "query"), self.domains.names, self.parts, strict=True)
        }
        data = {
            **described["data"],
            "names_sha256": self.images.digest,
            "notes": list(self.images.notes),
            "domains": {**told, "same_images": self.domains.same},
        }
        if not self.domains.same:
            # Episodes are keyed by these names: those of a view are the ordinary ones, to be paired with them.
            data["variant"] = "; ".join(
                [*([data["variant"]] if data["variant"] else []), " to ".join(self.domains.names)]
            )
        return {**described, "data": data}

    @property
    def parts(self) -> tuple[ImageMaterial, ImageMaterial]:
        """Material of the labelled images, and of the queries."""
        return self.support, self.query

    def seed_name(self, image: int) -> str:
        """Return the name by which random crops of an image are drawn: the same through any view."""
        behind = image - len(self.domains.support)
        return (self.domains.support if behind < 0 else self.domains.query).names[behind if behind >= 0 else image]

    def features(self, spec: str, device: str) -> FeatureSet:
        """Extract the nodes of both domains, or take them from the cache; each lies there under a key of its own."""
        if spec not in self._features:
            own, other = (part.features(spec, device) for part in self.parts)
            digests = [part.source["features_sha256"] for part in (own, other)]
            source = {"features_sha256": hashlib.sha256("\n".join(["across", *digests]).encode()).hexdigest()}
            self._features[spec] = replace(own, queries=other, source=source)
        return self._features[spec]


def between(material: ImageMaterial, domains: Domains) -> DomainMaterial:
    """Put the images of two domains before the backbone of a material.

    Args:
        material: Whose backbone and preparation are taken, with its base classes.
        domains: Of the same classes as its images.
    """
    # Images as they are have been extracted for the material itself, or will be.
    support, query = (
        material if images is material.images else replace(material, images=images, _features={})
        for images in (domains.support, domains.query)
    )
    return DomainMaterial(
        images=domains.joined,
        backbone=material.backbone,
        preparation=material.preparation,
        base=material.base,
        seen=material.seen,
        given_nodes=material.given_nodes,
        watch=material.watch,
        domains=domains,
        support=support,
        query=query,
    )


def load_image_material(
    dataset: str,
    split: str = "test",
    root: Path | None = None,
    options: DataOptions | None = None,
    backbone: str | Backbone | None = None,
    resolution: int | None = None,
    crop: Crop | None = None,
    nodes: str = "",
    watch: Watch = SILENT,
    trained_on: str | None = None,
    support_domain: str | None = None,
    query_domain: str | None = None,
) -> ImageMaterial:
    """Load a split and a backbone.

    Whether the backbone has seen the classes is told by ``overlap``; who evaluates refuses them then.

    Args:
        dataset: As ``otfew.data.find`` takes it.
        split: "train", "val", "test", "first-half", "second-half" or "all".
        root: Data root, or None for the default.
        options: Choices that some data sets offer, or None for their defaults.
        backbone: Name, path, ``package.module:factory`` or the backbone itself; None takes the data set's.
        resolution: Side in pixels; None takes that of the backbone's training.
        crop: "none" or "center"; None takes what is usual for the data set.
        nodes: Kind of nodes for all methods, or "" for what each prefers.
        watch: Where progress is shown, and what there is to say of the backbone's weights.
        trained_on: What a backbone that says nothing of it was trained on, see ``otfew.backbones.stated``.
        support_domain: Where labelled images come from, see ``otfew.data.domains.across``; None for the split as it is.
        query_domain: Where queries come from, likewise.

    Raises:
        UserError: Anything is missing or unknown.
    """
    options = options or DataOptions()
    load_part = load_half if split in JOINED else load_images
    images = load_part(dataset, split, root, options)
    if not isinstance(backbone, Backbone):
        network = load_backbone(backbone, dataset=images.dataset, trained_on=trained_on)
    else:
        network = backbone if trained_on is None else state(backbone, trained_on)
    for sentence in network.notes:
        watch.note(sentence)
    seen, _ = classes_seen(network.card, images.classes, dataset=images.dataset)
    usual = find_data(dataset).resolution
    trained = network.card.external or bool(network.card.training_data)
    side = resolution if resolution is not None else network.card.resolution if trained else usual
    preparation = Preparation(side, default_crop(usual) if crop is None else crop)
    if nodes:
        parse(nodes)
    found = ImageMaterial(
        images=images,
        backbone=network,
        preparation=preparation,
        base=lambda: load_part(dataset, HALVES[0] if split in HALVES else "train", root, options),
        seen=seen,
        given_nodes=nodes,
        watch=watch,
    )
    if support_domain is None and query_domain is None:
        return found

    def open_folder(folder: Path) -> ImageSet:
        # A folder of class folders beside another data set has no part in the splits of that.
        if find_data(dataset).name == "image-folder":
            return load_part("image-folder", split, folder, options)
        return load_half("image-folder", ALL, folder, options)

    return between(found, across(images, support_domain, query_domain, open_folder))

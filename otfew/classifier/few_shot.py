"""Few-shot classification of one's own images, scikit-learn style."""

from __future__ import annotations

import copy
import hashlib
import itertools
import numbers
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Tags
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from otfew import catalogue, devices, nodes
from otfew.backbones import Backbone, of_module
from otfew.backbones import load as load_backbone
from otfew.classifier.pictures import Picture, count, in_order
from otfew.data.class_folders import class_folders, split_folders
from otfew.data.class_labels import as_labels, classes_of
from otfew.data.decoding.picture import decode_picture
from otfew.data.preparation import Preparation
from otfew.errors import UserError
from otfew.features.extract import embed
from otfew.method import FewShotMethod, check_method
from otfew.nodes import Extractor

_WITHOUT_DOUBLES = frozenset({"mps"})
"""Kinds of devices on which methods cannot run, since they have no float64; the network can."""


class FewShotClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Classifies images after seeing a few of each class; nothing is trained.

    An image is a path, the bytes of an image file, a PIL image, an array (height, width, 3) or (height, width) of
    uint8, or a float array of that shape or a tensor (3, height, width) with values in [0, 1]: see
    ``otfew.data.decoding.picture.decode_picture``. Images come in a list or in anything that goes through them in
    order: a tuple, an iterator, a pandas Series, a data set of torch, an array (images, height, width, 3), a tensor
    (images, 3, height, width). Images and labels are paired by position.

    Args:
        backbone: Name, path of a .safetensors file, ``package.module:factory``, a ``Backbone``, or a module from
            normalised images to maps (images, channels, h, w); None takes efficientnet-lite0 if it is installed.
        method: Name of a few-shot method, or an object that follows ``otfew.method.FewShotMethod``.
        nodes: Kind of nodes, such as "grid:2,3"; None takes what the method prefers.
        resolution: Side in pixels; None takes that of the backbone's training.
        crop: "none" or "center".
        options: Further options of the method's constructor, where it is given by name.
        batch_size: Images that are prepared at once.
        device: Where the network and the method run, as torch names devices; "auto" takes CUDA, else MPS, else the CPU.
            On MPS, which has no float64, the method runs on the CPU.

    Attributes:
        classes_: Labels seen in ``fit``, sorted.
        support_: (1, way, shot, nodes, channels) nodes of the labelled images; short classes are padded.
        support_mask_: (1, way, shot) bool, False at the padding.

    Example:
        >>> classifier = FewShotClassifier(method="deepemd-fcn")  # doctest: +SKIP
        >>> classifier.fit_folder("birds/labelled").predict(["birds/new.jpg"])  # doctest: +SKIP
    """

    # These are scikit-learn's X and y, no metadata to be routed.
    __metadata_request__fit: ClassVar[dict[str, str]] = {"images": UNUSED, "labels": UNUSED}
    __metadata_request__predict: ClassVar[dict[str, str]] = {"images": UNUSED}
    __metadata_request__predict_proba: ClassVar[dict[str, str]] = {"images": UNUSED}
    __metadata_request__decision_function: ClassVar[dict[str, str]] = {"images": UNUSED}

    def __init__(
        self,
        backbone: str | Path | Backbone | nn.Module | None = None,
        method: str | FewShotMethod = "deepemd-fcn",
        nodes: str | None = None,
        resolution: int | None = None,
        crop: str = "none",
        options: Mapping[str, Any] | None = None,
        batch_size: int = 32,
        device: str | torch.device = "auto",
    ) -> None:
        self.backbone = backbone
        self.method = method
        self.nodes = nodes
        self.resolution = resolution
        self.crop = crop
        self.options = options
        self.batch_size = batch_size
        self.device = device

    def fit(self, images: Iterable[Picture], labels: Iterable[Any]) -> FewShotClassifier:
        """Keep the nodes of labelled images; classes may have different numbers of them.

        Args:
            images: At least one of each class.
            labels: A label for each, in the order of the images: strings or whole numbers.

        Returns:
            Itself.

        Raises:
            UserError: Fewer than two classes, counts that differ, a label that is missing or names no class, an image
                that cannot be used (named), or a setting that is unknown or out of range.
        """
        names = as_labels(labels)
        pictures, given = in_order(images), count(images)
        if given is not None:
            _check_counts(given, names)
        classes, indices = classes_of(names)
        if len(classes) < 2:
            raise UserError(f"the labels name {len(classes)} class(es): give images of at least two.")
        method = self._build_method()
        embedder = self._build_embedder(method)
        found = list(embedder(pictures, self._images_at_once()))
        _check_counts(sum(map(len, found)), names)
        support = torch.cat(found)
        shots = np.bincount(indices)
        padded = support.new_zeros(1, len(classes), int(shots.max()), *support.shape[1:])
        mask = torch.zeros(padded.shape[:3], dtype=torch.bool)
        for c in range(len(classes)):
            padded[0, c, : shots[c]] = support[torch.from_numpy(np.flatnonzero(indices == c))]
            mask[0, c, : shots[c]] = True
        # All at the end: what fails half-way leaves an earlier fit as it was.
        self.method_, self.embedder_ = method, embedder
        self.support_, self.support_mask_, self.classes_ = padded, mask.to(padded.device), classes
        return self

    def fit_folder(self, folder: str | Path) -> FewShotClassifier:
        """Fit on a folder that holds a folder of images for each class, which names it.

        Found as ``otfew.data.class_folders`` says: at any depth below the class folder, nothing hidden. What is left
        out is said in a warning.

        Raises:
            UserError: No such folder, no images in it, a class without one that can be read, or as for ``fit``.
        """
        if not isinstance(folder, str | os.PathLike) or folder == "":
            raise UserError(f"the folder is {folder!r}: give its path.")
        folder = Path(folder)
        if not os.path.isdir(folder):
            raise UserError(f"{folder} is not a folder: give one that holds a folder of images for each class.")
        if splits := split_folders(folder):
            raise UserError(f"the classes are in folders in {folder}, {', '.join(splits)}: give {folder / splits[0]}.")
        found = class_folders(folder)
        if not found.images:
            raise UserError(f"{folder} holds no images: put a folder of images for each class into it.")
        for note in found.notes:
            warnings.warn(f"{folder}: {note}.", stacklevel=2)
        files = [(name, path) for name, paths in found.images.items() for path in paths]
        return self.fit([path for _, path in files], [name for name, _ in files])

    def predict(self, images: Iterable[Picture]) -> npt.NDArray[Any]:
        """Classify images: (images,) of the labels' dtype.

        Raises:
            NotFittedError: Before ``fit``.
            UserError: One image in place of a list, or an image that cannot be used, naming it.
        """
        scores = self._scores(images)
        return cast("npt.NDArray[Any]", self.classes_[scores.argmax(1)])

    def predict_proba(self, images: Iterable[Picture]) -> npt.NDArray[np.float64]:
        """Softmax of the method's logits: (images, classes) in the order of ``classes_``. Not calibrated."""
        scores = torch.from_numpy(self._scores(images))
        return cast("npt.NDArray[np.float64]", torch.softmax(scores, 1).numpy())

    def decision_function(self, images: Iterable[Picture]) -> npt.NDArray[np.float64]:
        """The method's logits: (images, classes) in the order of ``classes_``.

        Of two classes, as scikit-learn has it, (images,): how much the second is ahead of the first. A transductive
        method sees all images at once, others a batch at a time.
        """
        scores = self._scores(images)
        return scores if len(self.classes_) > 2 else scores[:, 1] - scores[:, 0]

    def __sklearn_tags__(self) -> Tags:
        """Tell scikit-learn that images are no table; strings are paths."""
        tags = super().__sklearn_tags__()
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        return tags

    def __getstate__(self) -> dict[str, Any]:
        """Bring weights and nodes to the CPU, so that a pickle can be read where there is no accelerator."""
        state = dict(super().__getstate__())
        if isinstance(self.backbone, Backbone):
            state["backbone"] = _placed(self.backbone, torch.device("cpu"))
        if "embedder_" in state:
            state |= _moved(state, torch.device("cpu"))
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Go back to the device that was asked for, or stay on the CPU where there is none such."""
        super().__setstate__(state)
        if "embedder_" in state:
            try:
                device = devices.pick(self.device)
            except UserError:
                device = torch.device("cpu")
            self.__dict__ |= _moved(self.__dict__, device)

    def _scores(self, images: Iterable[Picture]) -> npt.NDArray[np.float64]:
        """Ask the method about images: (images, classes)."""
        check_is_fitted(self, "support_")
        batches = self.embedder_(in_order(images), self._images_at_once())
        if self.method_.transductive:
            every = list(batches)
            batches = iter([torch.cat(every)] if every else [])
        scores = [self._logits(batch) for batch in batches]
        return np.concatenate(scores) if scores else np.zeros((0, len(self.classes_)))

    def _logits(self, batch: Tensor) -> npt.NDArray[np.float64]:
        """Ask the method about a batch of nodes: (images, classes)."""
        name = getattr(self.method_, "name", "") or type(self.method_).__name__
        mask = None if bool(self.support_mask_.all()) else self.support_mask_
        logits = self.method_(self.support_, batch[None], support_mask=mask)
        expected = (1, len(batch), len(self.classes_))
        if not isinstance(logits, Tensor) or logits.shape != expected:
            got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise UserError(f"method {name!r} answered with {got} in place of logits {expected}: mend the method.")
        if bool(logits.isnan().any()):
            raise UserError(f"method {name!r} answered NaN: check its options.")
        return cast("npt.NDArray[np.float64]", logits[0].detach().cpu().double().numpy())

    def _build_method(self) -> FewShotMethod:
        """Make the method from its name, or check the object that was given."""
        options = self.options or {}
        if not isinstance(options, Mapping) or not all(isinstance(name, str) for name in options):
            raise UserError(f"options are {options!r}: give a dictionary of the method's options by name.")
        if isinstance(self.method, str):
            return catalogue.build(self.method, **options)
        check_method(self.method)
        if options:
            raise UserError("options go with the name of a method: set those of an object in its constructor.")
        return self.method

    def _build_embedder(self, method: FewShotMethod) -> _Embedder:
        """Load the backbone, and settle what an image becomes before and after it."""
        kind = method.nodes if self.nodes is None else self.nodes
        if not isinstance(kind, str):
            raise UserError(f"nodes are {kind!r}: give their kind as a string such as fcn or grid:2,3, or None.")
        if self.resolution is not None and not isinstance(self.resolution, numbers.Integral):
            raise UserError(f"resolution is {self.resolution!r}: give whole pixels, or None.")
        extractor = nodes.parse(kind)
        given = self.backbone
        if isinstance(given, nn.Module):
            given = of_module(copy.deepcopy(given))
        elif isinstance(given, str | Path) or given is None:
            given = load_backbone(None if given is None else str(given))
        elif not isinstance(given, Backbone):
            raise UserError(
                f"backbone is {given!r}: give a name, a path, package.module:factory, a torch module or a Backbone."
            )
        side = given.card.resolution if self.resolution is None else int(self.resolution)
        preparation = Preparation(side, self.crop)  # type: ignore[arg-type]
        return _Embedder(_placed(given, devices.pick(self.device)), extractor, preparation)

    def _images_at_once(self) -> int:
        """Check ``batch_size``, which may change after ``fit``."""
        if not isinstance(self.batch_size, numbers.Integral) or self.batch_size < 1:
            raise UserError(f"batch_size is {self.batch_size!r}: give a whole number of at least 1.")
        return int(self.batch_size)


@dataclass(frozen=True)
class _Embedder:
    """From images to nodes, the same in ``fit`` and in ``predict``.

    Attributes:
        backbone: On its device.
        extractor: Kind of nodes.
        preparation: Resolution and crop.
    """

    backbone: Backbone
    extractor: Extractor
    preparation: Preparation

    def __call__(self, images: Iterator[Picture], size: int) -> Iterator[Tensor]:
        """Yield nodes (images, nodes, channels) of ``size`` images at a time."""
        start = 0
        while batch := list(itertools.islice(images, size)):
            views = np.stack([self._views(image, start + i) for i, image in enumerate(batch)])
            found = embed(torch.from_numpy(views) / 255, self.backbone, self.extractor)
            bad = (~torch.isfinite(found).flatten(1).all(1)).nonzero()
            if len(bad):
                raise UserError(f"features of image {start + int(bad[0])} are not finite: check image and backbone.")
            start += len(batch)
            # Inference tensors cannot enter a method that differentiates.
            yield found.cpu() if found.device.type in _WITHOUT_DOUBLES else found.clone()

    def _views(self, image: Picture, index: int) -> npt.NDArray[np.float32]:
        """Decode an image and cut it into views (n_views, resolution, resolution, 3) with values in [0, 255].

        Random crops draw from the pixels, so that an image's nodes do not depend on its place among others. Floating
        throughout: decoded files and the user's tensors may stand in one list.
        """
        picture = decode_picture(image, index)
        name = hashlib.sha256(np.rint(picture).astype(np.uint8).tobytes()).hexdigest()
        try:
            return self.extractor.views(picture, self.preparation, name).astype(np.float32)
        except UserError as error:
            raise UserError(f"image {index}: {error}") from error


def _check_counts(images: int, labels: npt.NDArray[Any]) -> None:
    """Raise ``UserError`` unless there is a label for each image."""
    if images != len(labels):
        raise UserError(f"there are {images} images but {len(labels)} labels: give a label for each.")


def _placed(backbone: Backbone, device: torch.device) -> Backbone:
    """Return a backbone on a device; that of the caller stays where it is."""
    here = torch.empty(0, device=device).device
    tensors = itertools.chain(backbone.module.parameters(), backbone.module.buffers())
    return backbone if all(t.device == here for t in tensors) else copy.deepcopy(backbone).to(device)


def _moved(state: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """Return what ``fit`` found, on a device."""
    embedder: _Embedder = state["embedder_"]
    place = torch.device("cpu") if device.type in _WITHOUT_DOUBLES else device
    return {
        "embedder_": replace(embedder, backbone=_placed(embedder.backbone, device)),
        "support_": state["support_"].to(place),
        "support_mask_": state["support_mask_"].to(place),
    }

"""Few-shot classification of one's own images, scikit-learn style."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from otfew import catalogue, nodes
from otfew.backbones import Backbone
from otfew.backbones import load as load_backbone
from otfew.data.class_folders import class_folders, split_folders
from otfew.data.picture import decode_picture
from otfew.errors import UserError
from otfew.features import embed
from otfew.method import FewShotMethod
from otfew.nodes import Extractor
from otfew.preparation import Preparation

Picture = str | Path | npt.NDArray[Any] | Tensor | bytes | Any


class FewShotClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Classifies images after seeing a few of each class; nothing is trained.

    An image is a path, an array (height, width, 3) or (height, width) of uint8, or a float array of that shape or a
    tensor (3, height, width) with values in [0, 1], a PIL image, or the bytes of an image file: see
    ``otfew.data.picture.decode_picture``.

    Args:
        backbone: What stands after ``--backbone``, or a ``Backbone``; None takes efficientnet-lite0 if it is installed.
        method: Name of a few-shot method.
        nodes: Kind of nodes, such as "grid:2,3"; None takes what the method prefers.
        resolution: Side in pixels; None takes that of the backbone's training.
        crop: "none" or "center".
        options: Further options of the method's constructor.
        batch_size: Images that are prepared at once.
        device: Where the network and the method run.

    Attributes:
        classes_: Labels seen in ``fit``, sorted.
        support_: (1, way, shot, nodes, channels) nodes of the labelled images; short classes are padded.
        support_mask_: (1, way, shot) bool, False at the padding.

    Example:
        >>> classifier = FewShotClassifier(method="deepemd-fcn")  # doctest: +SKIP
        >>> classifier.fit_folder("birds/labelled").predict(["birds/new.jpg"])  # doctest: +SKIP
    """

    def __init__(
        self,
        backbone: str | Backbone | None = None,
        method: str = "deepemd-fcn",
        nodes: str | None = None,
        resolution: int | None = None,
        crop: str = "none",
        options: Mapping[str, Any] | None = None,
        batch_size: int = 32,
        device: str = "cpu",
    ) -> None:
        self.backbone = backbone
        self.method = method
        self.nodes = nodes
        self.resolution = resolution
        self.crop = crop
        self.options = options
        self.batch_size = batch_size
        self.device = device

    def fit(self, images: Sequence[Picture], labels: Sequence[Any] | npt.NDArray[Any]) -> FewShotClassifier:
        """Keep the nodes of labelled images; classes may have different numbers of them.

        Args:
            images: At least one of each class.
            labels: A label for each.

        Returns:
            Itself.

        Raises:
            UserError: Fewer than two classes, counts that differ, an image that cannot be used (named), or an unknown
                backbone, method or kind of nodes.
        """
        names = np.asarray(labels)
        if len(images) != len(names) or names.ndim != 1:
            raise UserError(f"there are {len(images)} images but labels of shape {names.shape}: give a label for each.")
        classes, indices = np.unique(names, return_inverse=True)
        if len(classes) < 2:
            raise UserError(f"the labels name {len(classes)} class(es): give images of at least two.")
        method = catalogue.build(self.method, **dict(self.options or {}))
        backbone = self.backbone if isinstance(self.backbone, Backbone) else load_backbone(self.backbone)
        self.backbone_ = backbone.to(self.device)
        self.method_: FewShotMethod = method
        support = torch.cat(list(self._nodes(images)))
        shots = np.bincount(indices)
        padded = support.new_zeros(1, len(classes), int(shots.max()), *support.shape[1:])
        mask = torch.zeros(padded.shape[:3], dtype=torch.bool)
        for c in range(len(classes)):
            padded[0, c, : shots[c]] = support[torch.from_numpy(np.flatnonzero(indices == c))]
            mask[0, c, : shots[c]] = True
        self.support_, self.support_mask_, self.classes_ = padded, mask.to(padded.device), classes
        return self

    def fit_folder(self, folder: str | Path) -> FewShotClassifier:
        """Fit on a folder that holds a folder of images for each class, which names it.

        Found as ``otfew.data.class_folders`` says: at any depth below the class folder, nothing hidden. What is left
        out is said in a warning.

        Raises:
            UserError: No such folder, no images in it, a class without one that can be read, or as for ``fit``.
        """
        folder = Path(folder)
        if not folder.is_dir():
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

    def predict(self, images: Sequence[Picture]) -> npt.NDArray[Any]:
        """Classify images: (images,) of the labels' dtype.

        Raises:
            NotFittedError: Before ``fit``.
            UserError: An image cannot be used, naming it.
        """
        scores = self.decision_function(images)
        return cast("npt.NDArray[Any]", self.classes_[scores.argmax(1)])

    def predict_proba(self, images: Sequence[Picture]) -> npt.NDArray[np.float64]:
        """Softmax of the method's logits: (images, classes) in the order of ``classes_``. Not calibrated."""
        scores = torch.from_numpy(self.decision_function(images))
        return cast("npt.NDArray[np.float64]", torch.softmax(scores, 1).numpy())

    def decision_function(self, images: Sequence[Picture]) -> npt.NDArray[np.float64]:
        """The method's logits: (images, classes) in the order of ``classes_``.

        A transductive method sees all images at once, others a batch at a time.
        """
        check_is_fitted(self, "support_")
        batches = list(self._nodes(images))
        if not batches:
            return np.zeros((0, len(self.classes_)))
        if self.method_.transductive:
            batches = [torch.cat(batches)]
        mask = None if bool(self.support_mask_.all()) else self.support_mask_
        logits = [self.method_(self.support_, batch[None], support_mask=mask)[0] for batch in batches]
        return cast("npt.NDArray[np.float64]", torch.cat(logits).detach().double().cpu().numpy())

    def _nodes(self, images: Sequence[Picture]) -> Iterator[Tensor]:
        """Yield batches of nodes (images, nodes, channels)."""
        extractor = nodes.parse(self.method_.nodes if self.nodes is None else self.nodes)
        side = self.backbone_.card.resolution if self.resolution is None else self.resolution
        preparation = Preparation(side, self.crop)  # type: ignore[arg-type]
        for start in range(0, len(images), self.batch_size):
            numbers = range(start, min(start + self.batch_size, len(images)))
            views = np.stack([_views(images[i], i, extractor, preparation) for i in numbers])
            found = embed(torch.from_numpy(views) / 255, self.backbone_, extractor)
            bad = (~torch.isfinite(found).flatten(1).all(1)).nonzero()
            if len(bad):
                raise UserError(f"features of image {start + int(bad[0])} are not finite: check image and backbone.")
            # Inference tensors cannot enter a method that differentiates.
            yield found.clone()


def _views(image: Picture, index: int, extractor: Extractor, preparation: Preparation) -> npt.NDArray[np.float32]:
    """Decode an image and cut it into views (n_views, resolution, resolution, 3) with values in [0, 255].

    Random crops draw from the pixels, so that an image's nodes do not depend on its place among others. Floating
    throughout: decoded files and the user's tensors may stand in one list.
    """
    picture = decode_picture(image, index)
    name = hashlib.sha256(np.rint(picture).astype(np.uint8).tobytes()).hexdigest()
    try:
        return extractor.views(picture, preparation, name).astype(np.float32)
    except UserError as error:
        raise UserError(f"image {index}: {error}") from error

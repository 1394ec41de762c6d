"""Few-shot classification of one's own images, scikit-learn style."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import ClassifierMixin
from sklearn.utils import Tags
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import check_is_fitted
from torch import nn

from otfew.backbones import Backbone
from otfew.classifier import answering, explaining, fitting, rejection, trust
from otfew.classifier.door import Door, OnError, Shown
from otfew.classifier.embedder import make_embedder, together
from otfew.classifier.explanation import Explanation
from otfew.classifier.fitted import Fitted
from otfew.classifier.pictures import Picture
from otfew.classifier.places import labelled_photos
from otfew.classifier.trusted import Trusted, unless_it_fails
from otfew.data.class_labels import as_labels
from otfew.method import FewShotMethod


class FewShotClassifier(Trusted, ClassifierMixin, Fitted):  # type: ignore[misc]
    """Classifies images after seeing a few of each class; nothing is trained.

    An image is a path, the bytes of an image file, an open file, a PIL image, an array (height, width, 3) or (height,
    width) of uint8, or a float array of that shape or a tensor (3, height, width) with values in [0, 1]: see
    ``otfew.data.decoding.picture.decode_picture``. Images come in a list or in anything that goes through them in
    order: a tuple, an iterator, a pandas Series, a data set of torch, an array (images, height, width, 3), a tensor
    (images, 3, height, width); or by the name of a folder or a pattern such as "new/*.jpg", in the order of
    ``otfew.classifier.find_photos``. Images and labels are paired by position.

    Args:
        backbone: Name, path of a .safetensors file, ``package.module:factory``, a ``Backbone``, or a module from
            normalised images to maps (images, channels, h, w); None takes efficientnet-lite0 if it is installed.
        method: Name of a few-shot method, or an object that follows ``otfew.method.FewShotMethod``; "auto" chooses
            among methods, resolutions, crops and networks: the first by a prior ranking from other data, unless
            held-out photos speak for another beyond chance (``selection_`` says which and why).
        nodes: Kind of nodes, such as "grid:2,3"; None takes what the method prefers, or with "auto" tries several.
        resolution: Side in pixels; None takes that of the backbone's training, or with "auto" tries several.
        crop: "none" or "center".
        options: Further options of the method's constructor, where it is given by name.
        batch_size: Images that are prepared at once.
        device: Where the network and the method run, as torch names devices; "auto" takes CUDA, else MPS, else the CPU.
            On MPS, which has no float64, the method runs on the CPU.
        on_error: "raise" refuses the first image that cannot be used; "skip" leaves such images out, warns once and
            lists them in ``skipped_``. Answers keep their places: a skipped image has None among labels, NaN among
            scores.
        reject: Share of photos of known classes that may be refused; ``predict`` then answers ``otfew.UNKNOWN`` where
            it is not sure enough. None refuses nothing. Needs 1 / ``reject`` - 1 photos that can be held out.
        unknown_label: What refused photos are labelled with in place of ``otfew.UNKNOWN``.
        cache: Folder where the nodes of labelled photos are kept by content, for the next ``fit``; None keeps them in
            the memory of the process alone.

    Attributes:
        classes_: Labels seen in ``fit``, sorted.
        support_: (1, way, shot, nodes, channels) nodes of the labelled images; short classes are padded.
        support_mask_: (1, way, shot) bool, False at the padding.
        groups_: (1, way, shot) int64, equal for near-duplicates, -1 at the padding.
        labelled_: The same in the order of ``fit``, with names and thumbnails: ``otfew.classifier.labelled.Labelled``.
        selection_: Candidates and why one was chosen (``otfew.classifier.selection.Choice``; print it), or None where
            the method was given.
        calibration_: Temperature and threshold.
        report_: What held-out photos say: accuracy, confusions, labels that look wrong; ``report_.lines()`` says it.
        skipped_: (place, name, reason) of each image that the last call left out, whichever it was.

    Examples:
        >>> classifier = FewShotClassifier(reject=0.05)  # doctest: +SKIP
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
        method: str | FewShotMethod = trust.AUTO,
        nodes: str | None = None,
        resolution: int | None = None,
        crop: str = "none",
        options: Mapping[str, Any] | None = None,
        batch_size: int = 32,
        device: str | torch.device = "auto",
        on_error: OnError = "raise",
        reject: float | None = None,
        unknown_label: Any = None,
        cache: str | Path | None = None,
    ) -> None:
        self.backbone = backbone
        self.method = method
        self.nodes = nodes
        self.resolution = resolution
        self.crop = crop
        self.options = options
        self.batch_size = batch_size
        self.device = device
        self.on_error = on_error
        self.reject = reject
        self.unknown_label = unknown_label
        self.cache = cache

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
        names, door = as_labels(labels), Door(self.on_error)
        fitting.two_classes(names)
        rejection.check_rate(self.reject)
        if isinstance(self.method, str) and self.method == trust.AUTO:
            return self._fit_automatically(images, names, door)
        method = answering.build_method(self.method, self.options)
        kind = method.nodes if self.nodes is None else self.nodes
        embedder = make_embedder(self.backbone, kind, self.resolution, self.crop, self.device)
        photos, nodes, kept = fitting.extract(images, names, embedder, door, self._images_at_once())
        labelled = fitting.assemble(photos, nodes, kept, embedder)
        with unless_it_fails(self):
            self.recipe_ = (self.method, dict(self.options or {}))
            self.method_, self.embedder_, self.selection_ = method, embedder, None
            self._settle(labelled, door)
        return self

    def _fit_automatically(self, images: Iterable[Picture], names: npt.NDArray[Any], door: Door) -> FewShotClassifier:
        """Choose among candidates."""
        chosen = trust.choose(
            images,
            names,
            door,
            given=(self.backbone, self.nodes, self.resolution, self.crop, self.device, self.options),
            size=self._images_at_once(),
            folder=None if self.cache is None else Path(self.cache),
        )
        with unless_it_fails(self):
            self.recipe_ = (chosen.method.name, {})
            self.method_, self.embedder_, self.selection_ = chosen.method, chosen.embedder, chosen.examined.choice
            self._settle(chosen.labelled, door, chosen.examined)
        return self

    def fit_folder(self, folder: str | Path, depth: int = 1) -> FewShotClassifier:
        """Fit on a folder that holds a folder of images for each class, which names it.

        Found as ``otfew.data.class_folders`` says: at any depth below the class folder, nothing hidden. What is left
        out is said in a warning.

        Args:
            folder: Its path; ``~`` is the home folder. A .csv file of image and label in its place lists the images,
                see ``otfew.data.image_list``; where it has splits, those of train are labelled.
            depth: Levels down to the class folders: 2 for FOLDER/GROUP/CLASS/NAME.jpg, of which the classes are called
                "GROUP/CLASS".

        Returns:
            Itself.

        Raises:
            UserError: No such folder, no images in it, a class without one that can be read, or as for ``fit``.
        """
        files, labels, notes = labelled_photos(folder, depth)
        for note in notes:
            warnings.warn(note, stacklevel=2)
        return self.fit(files, labels)

    def predict(self, images: Iterable[Picture]) -> npt.NDArray[Any]:
        """Classify images.

        Args:
            images: A list of them, or what else the class takes.

        Returns:
            (images,) labels of the dtype of ``classes_``; with ``reject``, ``otfew.UNKNOWN`` where it is not sure. An
            array of objects where labels are numbers and some images unknown, or where an image was skipped, which has
            None.

        Raises:
            NotFittedError: Before ``fit``.
            UserError: One image in place of a list, or an image that cannot be used, naming it.
        """
        scores = self._scores(images)
        missing = np.isnan(scores).any(1)
        told = self._with_unknown(self.classes_[scores[~missing].argmax(1)], scores[~missing])
        if not missing.any():
            return told
        answers = np.full(len(scores), None, object)
        answers[~missing] = told
        return answers

    def predict_proba(self, images: Iterable[Picture]) -> npt.NDArray[np.float64]:
        """Compute calibrated probabilities.

        The softmax of the method's logits over a temperature, which held-out labelled photos settle together with what
        other data let expect: see ``otfew.statistics.temperature``.

        Args:
            images: As in ``predict``.

        Returns:
            (images, classes) float64 in the order of ``classes_``; NaN in the row of an image that was skipped.

        Raises:
            NotFittedError: Before ``fit``.
            UserError: As ``predict``.
        """
        return self._shares(self._scores(images))

    def decision_function(self, images: Iterable[Picture]) -> npt.NDArray[np.float64]:
        """Compute the method's logits.

        A transductive method sees all images at once, others a batch at a time.

        Args:
            images: As in ``predict``.

        Returns:
            (images, classes) float64 in the order of ``classes_``; of two classes, as scikit-learn has it, (images,),
            how much the second is ahead of the first. NaN for an image that was skipped.

        Raises:
            NotFittedError: Before ``fit``.
            UserError: As ``predict``.
        """
        scores = self._scores(images)
        return scores if len(self.classes_) > 2 else scores[:, 1] - scores[:, 0]

    def explain(self, image: Picture, *, seed: int = 0) -> Explanation:
        """Say why an image gets its answer: which labelled photos and which regions counted, and whether that holds.

        The maps are of the method that decides: what a class's logit owes to each node. The numbered flows are those of
        DeepEMD on the same nodes, a second opinion where another method decided. A deletion test paints over the
        regions that speak for the answer most and, 19 times, as many drawn at random.

        Args:
            image: One image.
            seed: Of the random removals.

        Returns:
            The reasons, which can be printed, drawn and written as a page.

        Raises:
            NotFittedError: Before ``fit``.
            UserError: The image cannot be used, or the places of the nodes are unknown.
        """
        check_is_fitted(self, "support_")
        shown = next(Door().read([image]))
        limit = None if self.reject is None else self.calibration_.threshold
        case = explaining.Case(shown, self._judge, self.labelled_, self.embedder_, self._shares, limit)
        return explaining.explain(case, seed=seed)

    def __sklearn_tags__(self) -> Tags:
        """Tell scikit-learn that images are no table; strings are paths."""
        tags = super().__sklearn_tags__()
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        return tags

    def _scores(self, images: Iterable[Picture]) -> npt.NDArray[np.float64]:
        """Ask the method about images: (images, classes), NaN where an image was left out."""
        check_is_fitted(self, "support_")
        door = Door(self.on_error)
        batches = self.embedder_(door.read(images), self._images_at_once(), door, _place)
        if self.method_.transductive:
            batches = together(batches)
        answers = [(places, self._judge(nodes).cpu().double().numpy()) for places, nodes in batches if places]
        scores = np.full((door.count, len(self.classes_)), np.nan)
        for places, found in answers:
            scores[places] = found
        self._report(door)
        return scores


def _place(image: Shown) -> int:
    """Remember where among the images one stands."""
    return image.place

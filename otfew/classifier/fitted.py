"""What a classifier has learnt: kept in memory, in files and in pickles, made larger and smaller."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from otfew import devices, plugins
from otfew.backbones import Backbone
from otfew.classifier import answering, fitting, keeping
from otfew.classifier.automatic import Examined
from otfew.classifier.door import Door, OnError, Skipped
from otfew.classifier.embedder import WITHOUT_DOUBLES, Embedder, placed
from otfew.classifier.labelled import Labelled
from otfew.classifier.pictures import Picture
from otfew.classifier.trusted import unless_it_fails
from otfew.data.class_labels import as_labels
from otfew.errors import UserError
from otfew.method import FewShotMethod

Self = TypeVar("Self", bound="Fitted")


class Fitted(BaseEstimator):  # type: ignore[misc]
    """What ``FewShotClassifier`` knows of labelled photos, however it came to know them; not for use alone."""

    backbone: str | Path | Backbone | nn.Module | None
    batch_size: int
    device: str | torch.device
    on_error: OnError

    classes_: npt.NDArray[Any]
    labelled_: Labelled
    support_: Tensor
    support_mask_: Tensor
    groups_: npt.NDArray[np.int64]
    method_: FewShotMethod
    recipe_: tuple[Any, dict[str, Any]]
    embedder_: Embedder
    skipped_: tuple[Skipped, ...]
    _judge: answering.Judge

    if TYPE_CHECKING:

        def _assess(self, examined: Examined | None = None) -> None: ...

    def add(self: Self, images: Iterable[Picture], labels: Iterable[Any]) -> Self:
        """Learn more photos, of these classes or of new ones, as if all had been fitted at once.

        Those that are known are not extracted again. Settings other than ``on_error`` and ``batch_size`` stay those of
        ``fit``.

        Args:
            images: As in ``fit``.
            labels: A label for each, of the kind that is known: text or whole numbers.

        Returns:
            Itself.

        Raises:
            NotFittedError: Before ``fit``.
            UserError: As ``fit``; what was known is known still.
        """
        check_is_fitted(self, "labelled_")
        names, door = as_labels(labels), Door(self.on_error)
        fitting.both(self.classes_, names)
        photos, nodes, kept = fitting.extract(images, names, self.embedder_, door, self._images_at_once())
        known = fitting.joined(self.labelled_, photos, nodes, kept, self.embedder_)
        with unless_it_fails(self):
            self._settle(known, door)
        return self

    def remove(self: Self, label: Any) -> Self:
        """Forget a class and its photos, as if it had never been fitted.

        Args:
            label: Of the class, as in ``classes_``.

        Returns:
            Itself.

        Raises:
            NotFittedError: Before ``fit``.
            UserError: There is no such class, or fewer than two would be left.
        """
        check_is_fitted(self, "labelled_")
        known = fitting.without(self.labelled_, label, self.embedder_)
        with unless_it_fails(self):
            self._settle(known, Door(self.on_error))
        return self

    def forget(self: Self, photos: Iterable[int]) -> Self:
        """Forget single photos, as if they had never been fitted; a class that loses its last one goes with it.

        Args:
            photos: Places among ``labelled_.photos``.

        Returns:
            Itself.

        Raises:
            NotFittedError: Before ``fit``.
            UserError: There is no such photo, or fewer than two classes would be left.
        """
        check_is_fitted(self, "labelled_")
        known = fitting.without_photos(self.labelled_, photos, self.embedder_)
        with unless_it_fails(self):
            self._settle(known, Door(self.on_error))
        return self

    def save(self, path: str | Path, *, embed_backbone: bool = False, thumbnails: bool = True) -> Path:
        """Keep the fitted classifier in one file, which ``load`` reads: no pickle, nothing that runs.

        It holds labels, nodes in half precision (to which ``fit`` has rounded them), the method with its options, the
        kind of nodes, resolution, crop, temperature and threshold, how an automatic choice was made, and small pictures
        of the labelled photos, with their names but not the folders above them.

        Args:
            path: Of the file; usually ends in ".otfew". What was there is replaced.
            embed_backbone: Keep the backbone's weights too. Otherwise its name and a digest, and whoever loads the file
                needs the backbone.
            thumbnails: Keep the small pictures, by which ``explain`` shows labelled photos.

        Returns:
            The path.

        Raises:
            NotFittedError: Before ``fit``.
            UserError: The method or an option is an object that cannot be kept, the backbone cannot be embedded, or the
                file cannot be written.
        """
        check_is_fitted(self, "labelled_")
        return keeping.save(self, path, embed_backbone=embed_backbone, thumbnails=thumbnails)

    @classmethod
    def load(
        cls: type[Self],
        path: str | Path,
        *,
        backbone: str | Path | Backbone | nn.Module | None = None,
        device: str | torch.device = "auto",
    ) -> Self:
        """Read a classifier that ``save`` wrote: its answers are those of the one that was saved.

        Args:
            path: Of the file.
            backbone: Of the classifier, where the file holds no weights and it is none of otfew's own.
            device: Where to compute, whatever the device was that it was fitted on.

        Returns:
            The classifier.

        Raises:
            UserError: The file cannot be read, is none that ``save`` wrote, is damaged or of a later otfew, or the
                backbone is missing or another one.
        """
        if isinstance(backbone, str) and (given := plugins.plain(backbone)):
            plugins.load(given, "backbone")  # named by the user: the file may name it too
        with plugins.only_imported(f"classifier {path}"):
            made: Self = keeping.load(cls, path, backbone=backbone, device=device)
            # A later fit would import what its settings name.
            for name in _named_in(made.get_params(deep=False).values()):
                plugins.load(name, "plug-in")
        return made

    def restore(self, name: str, options: Mapping[str, Any], embedder: Embedder, labelled: Labelled) -> None:
        """Take what a file holds in place of a fit; for ``load``.

        Args:
            name: Of the method.
            options: Of its constructor.
            embedder: Makes nodes of photos.
            labelled: The photos that it knows, with their nodes.

        Raises:
            UserError: There is no such method, or it has no such option.
        """
        self.method_ = answering.build_method(name, options)
        self.recipe_ = (name, dict(options))
        self.embedder_ = embedder
        place = next(embedder.backbone.module.parameters(), torch.empty(0)).device
        self.labelled_ = labelled.to(torch.device("cpu") if place.type in WITHOUT_DOUBLES else place)
        self.classes_, self.skipped_ = labelled.classes, ()
        self._arrange()

    def __getstate__(self) -> dict[str, Any]:
        """Bring weights and nodes to the CPU, so that a pickle can be read where there is no accelerator."""
        state = dict(super().__getstate__())
        if isinstance(self.backbone, Backbone):
            state["backbone"] = placed(self.backbone, torch.device("cpu"))
        if "labelled_" in state:
            state |= _moved(state, torch.device("cpu"))
            for arranged in ("support_", "support_mask_", "groups_", "_judge"):
                del state[arranged]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Go back to the device that was asked for, or stay on the CPU where there is none such."""
        super().__setstate__(state)
        if "labelled_" in state:
            try:
                device = devices.pick(self.device)
            except UserError:
                device = torch.device("cpu")
            self.__dict__ |= _moved(self.__dict__, device)
            self._arrange()

    def _settle(self, labelled: Labelled, door: Door, examined: Examined | None = None) -> None:
        """Take labelled photos in place of those known before."""
        self.labelled_, self.classes_ = labelled, labelled.classes
        self._arrange()
        self._assess(examined)
        self._report(door)

    def _arrange(self) -> None:
        """Lay out for the method what is known."""
        self.support_, self.support_mask_ = self.labelled_.episode()
        groups = np.full(self.support_mask_.shape, -1, np.int64)
        for c in range(len(self.classes_)):
            own = self.labelled_.groups[self.labelled_.labels == c]
            groups[0, c, : len(own)] = own
        self.groups_ = groups
        self._judge = answering.Judge.of(self.method_, self.support_, self.support_mask_)

    def _report(self, door: Door) -> None:
        """Keep the list of images that were left out, and warn of them."""
        self.skipped_ = tuple(door.skipped)
        door.tell()

    def _images_at_once(self) -> int:
        """Check ``batch_size``, which may change after ``fit``."""
        if not isinstance(self.batch_size, numbers.Integral) or self.batch_size < 1:
            raise UserError(f"batch_size is {self.batch_size!r}: give a whole number of at least 1.")
        return int(self.batch_size)


def _moved(state: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """Return what ``fit`` found, on a device."""
    place = torch.device("cpu") if device.type in WITHOUT_DOUBLES else device
    return {"embedder_": state["embedder_"].on(device), "labelled_": state["labelled_"].to(place)}


def _named_in(values: Iterable[Any]) -> list[str]:
    """List the plug-ins that settings name, those of options among them."""
    found: list[str] = []
    for value in values:
        if isinstance(value, Mapping):
            found += _named_in(value.values())
        elif isinstance(value, str) and (name := plugins.plain(value)):
            found.append(name)
    return found

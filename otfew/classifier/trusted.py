"""The part of the classifier that says how far its answers are to be trusted."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from otfew.classifier import rejection, trust
from otfew.classifier.automatic import Examined
from otfew.classifier.calibration import Calibration
from otfew.classifier.door import Door, OnError, Shown
from otfew.classifier.evidence import Evidence
from otfew.classifier.pictures import Picture
from otfew.classifier.resemblance import Resemblance
from otfew.classifier.selection import Choice
from otfew.statistics.detection import sureness
from otfew.statistics.temperature import softmax

if TYPE_CHECKING:
    from otfew.classifier.embedder import Embedder
    from otfew.classifier.labelled import Labelled
    from otfew.method import FewShotMethod

Floats = npt.NDArray[np.float64]


class Trusted:
    """What ``FewShotClassifier`` knows of itself; not for use alone.

    What takes held-out photos is found when it is first asked for, and once: a classifier of which only labels are
    asked never pays for it.
    """

    if TYPE_CHECKING:
        reject: float | None
        unknown_label: Any
        options: Any
        method: str | FewShotMethod
        on_error: OnError
        method_: FewShotMethod
        embedder_: Embedder
        labelled_: Labelled
        classes_: npt.NDArray[Any]

        def _images_at_once(self) -> int: ...
        def _scores(self, images: Iterable[Picture]) -> Floats: ...
        def _report(self, door: Door) -> None: ...

    selection_: Choice | None = None
    _trust: trust.Trust | None = None
    _calibration: Calibration | None = None
    """That is used as long as nothing else is known: of a file without evidence, or of the photos known before."""
    _of_before: bool = False
    """Whether that is of the photos known before."""
    _later: bool = False
    """Within ``assessed_later``."""

    @property
    def calibration_(self) -> Calibration:
        """Temperature and threshold: ``otfew.classifier.calibration.Calibration``.

        Raises:
            NotFittedError: Before ``fit``.
        """
        check_is_fitted(self, "labelled_")
        return self._calibration or self._trusted().calibration

    @calibration_.setter
    def calibration_(self, kept: Calibration) -> None:
        """Take what was kept with a saved classifier."""
        self._calibration, self._of_before = kept, False

    @property
    def report_(self) -> Evidence:
        """What held-out photos say: ``otfew.classifier.evidence.Evidence``; ``lines()`` puts it into sentences.

        Raises:
            NotFittedError: Before ``fit``.
        """
        check_is_fitted(self, "labelled_")
        return self._trusted().evidence

    def predict_set(self, images: Iterable[Picture], alpha: float = 0.1) -> list[npt.NDArray[Any]]:
        """Answer with sets of labels, which hold the right one for a share 1 - ``alpha`` of photos.

        That holds over all classes together, not for each, and for photos that come from where the labelled ones come
        from: ``resembles`` looks for signs that they do not. It is void for kinds that have no label. Full conformal
        prediction, see ``otfew.classifier.conformal``: takes some milliseconds to seconds a photo.

        Args:
            images: As in ``predict``.
            alpha: Share of sets that may lack the right label.

        Returns:
            For each image the labels (classes in the set,) sorted; perhaps none, where it resembles no class; None for
            an image that was skipped.

        Raises:
            NotFittedError: Before ``fit``.
            UserError: As ``predict``, fewer than 1 / ``alpha`` - 1 labelled photos, or a method for which there are no
                such sets.
        """
        check_is_fitted(self, "labelled_")
        # What makes sets impossible is said before any image is read.
        trust.label_sets(self.method_, self.labelled_, self.labelled_.nodes[:0], alpha)
        places, nodes, count = self._embedded(images)
        inside, _ = trust.label_sets(self.method_, self.labelled_, nodes, alpha)
        sets: list[Any] = [None] * count
        for place, row in zip(places, inside, strict=True):
            sets[place] = self.classes_[row]
        return sets

    def resembles(self, images: Iterable[Picture]) -> Resemblance:
        """Test whether new photos resemble the labelled ones, class by class.

        Where they do not, no estimate from held-out photos holds for them.

        Args:
            images: As in ``predict``.

        Returns:
            The verdict, class by class; ``str()`` says it in words.

        Raises:
            NotFittedError: Before ``fit``.
            UserError: As ``predict``.
        """
        check_is_fitted(self, "labelled_")
        _, nodes, _ = self._embedded(images)
        taken = np.zeros(0, np.int64)
        if len(nodes):
            taken = self._judge(nodes).argmax(1).cpu().numpy()  # type: ignore[attr-defined]
        return trust.resemblance(self._trusted().held, self.labelled_, nodes, taken)

    def _shares(self, scores: Floats) -> Floats:
        """Turn logits (images, classes) into calibrated probabilities; NaN stays NaN."""
        return softmax(scores, self.calibration_.temperature) if len(scores) else scores

    def _with_unknown(self, labels: npt.NDArray[Any], scores: Floats) -> npt.NDArray[Any]:
        """Replace the answers to photos that are refused."""
        limit = None if self.reject is None else self.calibration_.threshold
        if limit is None or not len(labels):
            return labels
        refused = sureness(scores) < limit
        return rejection.with_unknown(labels, refused, rejection.label_of_unknown(self.unknown_label, self.classes_))

    def _assess(self, examined: Examined | None = None) -> None:
        """Forget what was known of earlier photos; what ``fit`` must refuse is found now.

        Args:
            examined: How the method was chosen, where it was just now: its held-out photos are there already.
        """
        rate = rejection.check_rate(self.reject)
        if rate is not None:
            rejection.label_of_unknown(self.unknown_label, self.classes_)
        if self._later:
            trust.check_rate_of(self.method_, self.labelled_, rate)
            self._calibration, self._trust, self._of_before = self.calibration_, None, True
            return
        self._trust, self._calibration, self._of_before = None, None, False
        if examined is not None:
            self._take(trust.assess(self.method_, self.embedder_, self.labelled_, rate, examined=examined))
        if rate is not None:
            self._trusted()

    @contextmanager
    def assessed_later(self) -> Iterator[None]:
        """Learn and forget without holding photos out: temperature and threshold stay those of before.

        They stay until ``report_`` is asked for, which then holds photos out, or until ``_take`` brings what
        ``_assessment`` has found meanwhile. What must be refused at once, such as a class called like unknown photos,
        still is.

        Yields:
            Nothing; it is a context, ``with classifier.assessed_later(): classifier.add(...)``.
        """
        before, self._later = self._later, True
        try:
            yield
        finally:
            self._later = before

    def _trusted(self) -> trust.Trust:
        """Hold photos out, once."""
        if self._trust is None:
            found = self._assessment()()
            if self._calibration is not None and not self._of_before:
                found = found.calibrated(self._calibration)
            self._take(found)
        assert self._trust is not None
        return self._trust

    def _assessment(self, *, aside: bool = False) -> Callable[[], trust.Trust]:
        """Return what holds the photos out that are known now, whatever is learnt or forgotten before it is called.

        Args:
            aside: It will be called while the method is asked about other photos, and gets a method of its own.
        """
        return partial(
            trust.assess,
            copy.deepcopy(self.method_) if aside else self.method_,
            self.embedder_,
            self.labelled_,
            rejection.check_rate(self.reject),
            choice=self.selection_,
            plain=isinstance(self.method, str) and not self.options,
        )

    def _take(self, found: trust.Trust) -> None:
        """Use what held-out photos of those that are known now have said."""
        self._trust, self._calibration, self._of_before = found, None, False

    def _refuse_anew(self) -> None:
        """Let ``reject`` be another rate than that of ``fit``, by the held-out photos that are there.

        Raises:
            UserError: As ``fit``.
        """
        rate = rejection.check_rate(self.reject)
        if rate is not None:
            rejection.label_of_unknown(self.unknown_label, self.classes_)
            self._take(trust.at_rate(self._trusted(), self.method_, self.labelled_, rate))

    def _embedded(self, images: Iterable[Picture]) -> tuple[list[int], Tensor, int]:
        """Extract nodes: places, (images, nodes, channels), and how many images were given."""
        door = Door(self.on_error)
        places: list[int] = []
        found = [self.labelled_.nodes[:0]]
        for where, nodes in self.embedder_(door.read(images), self._images_at_once(), door, _place):
            places += where
            found.append(nodes)
        self._report(door)
        return places, torch.cat(found), door.count


def _place(image: Shown) -> int:
    """Remember where among the images one stands."""
    return image.place


@contextmanager
def unless_it_fails(thing: object) -> Iterator[None]:
    """Change an object, or leave it as it was where that fails half-way."""
    before = dict(vars(thing))
    try:
        yield
    except BaseException:
        vars(thing).clear()
        vars(thing).update(before)
        raise

"""One classifier and the photos dropped on its page: all that the page can ask for, without the network."""

from __future__ import annotations

import io
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from otfew.app import names, pictures
from otfew.app.limits import Limits
from otfew.app.renewal import Renewal
from otfew.classifier import answer_table, keeping
from otfew.classifier.answers import Answer, Raw, answers, ask
from otfew.classifier.door import Door, Shown
from otfew.classifier.few_shot import FewShotClassifier
from otfew.classifier.trust import Trust
from otfew.classifier.trusted import unless_it_fails
from otfew.errors import UserError

HEAD = (*answer_table.HEAD, "corrected")
"""Columns of the page's table: a photo that was given its label by hand has no confidence."""
MODEL = "photos.otfew"
"""What the saved classifier is called, unless the user calls it otherwise."""


class Named(io.BytesIO):
    """The bytes of a photo with what it is called: a name for sentences, never a path that is opened."""

    def __init__(self, data: bytes, name: str) -> None:
        super().__init__(data)
        self.name = name


@dataclass
class Dropped:
    """A photo on the page.

    Attributes:
        number: By which the page asks for it.
        name: Fit to be shown, see ``names.shown``.
        data: The file's bytes.
        picture: JPEG that the page shows, made anew from the pixels.
        nodes: (1, nodes, channels).
        raw: What the classifier makes of them, as it is now.
        answer: The same as an answer.
        label: That the user has given, or None.
        place: Among the classifier's labelled photos, if the user has given a label.
        why: The explanation, once it was asked for, until the classifier changes.
    """

    number: int
    name: str
    data: bytes
    picture: bytes
    nodes: Tensor
    raw: Raw | None = None
    answer: Answer | None = None
    label: Any = None
    place: int | None = None
    why: dict[str, Any] | None = None


@dataclass
class Session:
    """A fitted classifier and the photos that are asked about; one lock is around all of it.

    What is corrected is learnt and answered at once, with the confidence of before; how far answers are to be trusted
    is found anew meanwhile, without the lock.

    Args:
        classifier: Fitted; it learns what is corrected.
        limits: How much is taken.

    Raises:
        UserError: The classifier's method is transductive: photos come one at a time.
    """

    classifier: FewShotClassifier
    limits: Limits = field(default_factory=Limits)
    unsaved: int = field(default=0, init=False)
    """Labels given, changed or taken back since the classifier was saved."""
    _photos: dict[int, Dropped] = field(default_factory=dict, init=False)
    _next: int = field(default=1, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    _figures: Renewal[Trust] = field(init=False)
    _lines: list[str] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        if self.classifier.method_.transductive:
            told = f"`method` {self.classifier.method_.name} classifies photos by one another"
            raise UserError(f"{told}, and the page asks about one at a time: give another method.")
        self.classifier.on_error = "raise"
        self._lines = self._found()  # photos are held out now, not at the first photo dropped
        self._figures = Renewal(self._lock, lambda: self.classifier._assessment(aside=True), self._renewed)

    def check_room(self, size: int) -> None:
        """Raise ``LimitError`` where a photo of so many bytes is not taken; before it is read."""
        self.limits.check_file(size)
        photos = list(self._photos.values())
        self.limits.check_room(len(photos), sum(len(photo.data) for photo in photos), size)

    def drop(self, name: str, data: bytes) -> dict[str, Any]:
        """Take a photo and answer.

        Args:
            name: What the user's file is called.
            data: Its bytes.

        Returns:
            What the page shows of it.

        Raises:
            UserError: It is no image that can be used, or there is no room.
        """
        name = names.shown(name)
        with self._changing():
            self.check_room(len(data))
            door = Door()
            # A file's name is for sentences; the pixels come from its bytes alone.
            image = next(door.read([Named(data, name)]))
            (_, nodes), *_ = self.classifier.embedder_([image], 1, door, _nothing)
            number, self._next = self._next, self._next + 1
            self._photos[number] = Dropped(number, name, data, pictures.small(image.pixels), nodes)
            try:
                self._answer(all_anew=False)
            except BaseException:
                del self._photos[number]
                raise
            return self._told(self._photos[number])

    def remove(self, number: int) -> dict[str, Any]:
        """Take a photo off the page; what was learnt from it stays learnt."""
        with self._lock:
            self._photo(number)
            del self._photos[number]
            return self._state()

    def teach(self, number: int, label: str) -> dict[str, Any]:
        """Learn a photo under a label, one that is known or a new one, in place of the label it had been given.

        Raises:
            UserError: There is no such photo, or the label is none.
        """
        with self._changing():
            photo = self._photo(number)
            given = names.label(label, self.classifier.classes_, self.limits.label)
            if photo.place is not None and photo.label == given:
                return self._state()
            before = [(one, one.place) for one in self._photos.values()]
            try:
                with unless_it_fails(self.classifier), self.classifier.assessed_later():
                    self.classifier.add([Named(photo.data, photo.name)], [given])
                    if photo.place is not None:
                        self._forget(photo.place)
                    photo.place = len(self.classifier.labelled_) - 1
            except BaseException:
                for one, place in before:
                    one.place = place
                raise
            photo.label = given
            self._learnt()
            return self._state()

    def unteach(self, number: int) -> dict[str, Any]:
        """Take a label back.

        Raises:
            UserError: There is no such photo, it has no label, or fewer than two classes would be left.
        """
        with self._changing():
            photo = self._photo(number)
            if photo.place is None:
                raise UserError(f"{photo.name} has no label to take back: give it one.")
            with self.classifier.assessed_later():
                self._forget(photo.place)
            photo.place = photo.label = None
            self._learnt()
            return self._state()

    def explain(self, number: int) -> dict[str, Any]:
        """Say why a photo gets its answer; see ``otfew.app.pictures.reasons``."""
        with self._changing():
            photo = self._photo(number)
            if photo.why is None:
                photo.why = pictures.reasons(self.classifier.explain(Named(photo.data, photo.name)))
            return photo.why

    def picture(self, number: int) -> bytes:
        """Return the small JPEG of a photo; without the lock, so that pictures show while answers are computed."""
        return self._photo(number).picture

    def wait(self) -> None:
        """Wait until figures are those of what is known now."""
        with self._lock:
            self._figures.wait()

    def state(self) -> dict[str, Any]:
        """Say all that the page shows; ``renewing`` where confidence and figures are still those of before."""
        with self._lock:
            return self._state()

    def table(self) -> bytes:
        """Write the answers as CSV, once figures are renewed."""
        with self._lock:
            self._figures.wait()
            rows = []
            for photo in self._photos.values():
                row = answer_table.row(photo.name, photo.answer, self.classifier)
                if photo.place is not None:
                    row[1:6] = [photo.label, None, None, None, None]
                rows.append([*row, photo.place is not None])
            return answer_table.answers_csv(rows, HEAD)

    def model(self) -> bytes:
        """Save the classifier, as the bytes of its file, once figures are renewed.

        Raises:
            UserError: As ``FewShotClassifier.save``, or figures that cannot be found.
        """
        with self._lock, tempfile.TemporaryDirectory() as folder:
            self._figures.wait()
            path = Path(folder) / MODEL
            keeping.save_for_others(self.classifier, path)
            data = path.read_bytes()
            self.unsaved = 0
            return data

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Hold the lock; what the library warns of is on the page already."""
        with self._lock, warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            yield

    def _photo(self, number: int) -> Dropped:
        try:
            return self._photos[number]
        except KeyError:
            raise UserError(f"photo {number} is not on the page any more: drop it again.") from None

    def _forget(self, place: int) -> None:
        """Forget a labelled photo, and remember where the others stand then."""
        self.classifier.forget([place])
        for one in self._photos.values():
            if one.place is not None and one.place > place:
                one.place -= 1

    def _learnt(self) -> None:
        """Ask about all photos again, and let figures be renewed."""
        self.unsaved += 1
        self._answer(all_anew=True)
        self._figures.start()

    def _renewed(self, found: Trust) -> None:
        """Take what held-out photos say of what is known now."""
        self.classifier._take(found)
        self._lines = self._found()
        self._answer(all_anew=False)
        for photo in self._photos.values():
            photo.why = None

    def _found(self) -> list[str]:
        """Say what held-out photos say."""
        titles = [names.shown(photo.title) for photo in self.classifier.labelled_.photos]
        return [names.text(line) for line in self.classifier.report_.lines(titles)]

    def _told_lines(self) -> list[str]:
        """Say what is known now: as long as figures are of before, how many photos there are and nothing else."""
        if not self._figures.running and not self._figures.failure:
            return self._lines
        known = self.classifier.labelled_
        counted = f"{len(known)} photos of {len(known.classes)} classes"
        if self._figures.running:
            return [f"{counted}; figures are being renewed"]
        return [f"{counted}; confidence is that of before: {names.text(self._figures.failure)}"]

    def _answer(self, *, all_anew: bool) -> None:
        """Bring answers up to date, of all photos or of new ones."""
        photos = list(self._photos.values())
        for photo in photos:
            if all_anew or photo.raw is None:
                photo.raw = ask(self.classifier, photo.nodes)
        known = [(photo, photo.raw) for photo in photos if photo.raw is not None]
        if not known:
            return
        logits = np.concatenate([raw.logits for _, raw in known])
        nearest = [int(raw.nearest[0]) for _, raw in known]
        for (photo, _), answer in zip(known, answers(self.classifier, logits, nearest), strict=True):
            photo.answer = answer
            photo.why = None if all_anew else photo.why

    def _state(self) -> dict[str, Any]:
        known = self.classifier.labelled_
        counts = np.bincount(known.labels, minlength=len(known.classes))
        return {
            "classes": [
                {"label": names.text(label), "photos": int(count)}
                for label, count in zip(known.classes.tolist(), counts, strict=True)
            ],
            "lines": self._told_lines(),
            "renewing": self._figures.running,
            "reject": self.classifier.reject,
            "unsaved": self.unsaved,
            "limits": {"file": self.limits.file_bytes, "photos": self.limits.photos, "label": self.limits.label},
            "photos": [self._told(photo) for photo in self._photos.values()],
        }

    def _told(self, photo: Dropped) -> dict[str, Any]:
        answer = photo.answer
        assert answer is not None
        return {
            "number": photo.number,
            "name": photo.name,
            "answer": names.text(answer.label),
            "confidence": answer.confidence,
            "runner_up": names.text(answer.runner_up),
            "runner_up_confidence": answer.runner_up_confidence,
            "unknown": bool(answer.unknown),
            "nearest": names.text(self.classifier.labelled_.photos[answer.nearest].title),
            "given": None if photo.place is None else names.text(photo.label),
        }


def _nothing(image: Shown) -> None:
    """Remember nothing of an image."""

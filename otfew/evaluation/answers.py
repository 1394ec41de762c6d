"""What every method answered to every query of a run, kept beside the figures that rest on it.

A file of some hundred kilobytes: images and classes as numbers in the smallest type that holds them, names once.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from otfew.evaluation.episodes import Episodes, Indices
from otfew.evaluation.run import Scores
from otfew.runs.files import DamagedError
from otfew.runs.npz import check_unpacked

FILE = "answers.npz"
"""Of a run's folder, or of a panel's."""

Whole = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Answers:
    """What methods answered.

    Attributes:
        methods: Names, in the order of the run.
        class_names: Of the split.
        images: Names of the split's images.
        labels: (images,) the class of each.
        classes: (episodes, way) the classes of each episode.
        support: (episodes, way, shot) numbers of labelled images.
        query: (episodes, queries) numbers of images that were asked about: class after class, behind them those of
            classes that have no labelled images.
        predicted: (methods, episodes, queries) places of the answers among the episode's classes.
        logits: (methods, episodes, queries, way) float32; None where they were not asked for.

    Raises:
        DamagedError: Shapes or numbers do not belong together.
    """

    methods: tuple[str, ...]
    class_names: tuple[str, ...]
    images: tuple[str, ...]
    labels: Whole
    classes: Whole
    support: Whole
    query: Whole
    predicted: Whole
    logits: npt.NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        episodes, way = self.classes.shape
        wanted = (len(self.methods), episodes, self.query.shape[1])
        fits = (
            self.labels.shape == (len(self.images),)
            and self.support.shape[:2] == (episodes, way)
            and self.support.ndim == 3
            and self.predicted.shape == wanted
            and (self.logits is None or self.logits.shape == (*wanted, way))
        )
        if not fits:
            raise DamagedError("its arrays have shapes that do not belong together")
        limits = {"labels": len(self.class_names), "classes": len(self.class_names), "predicted": way}
        limits |= dict.fromkeys(("support", "query"), len(self.images))
        for name, limit in limits.items():
            values = getattr(self, name)
            if values.dtype.kind not in "iu" or (
                values.size and not 0 <= int(values.min()) <= int(values.max()) < limit
            ):
                raise DamagedError(f"{name!r} holds numbers of nothing")

    @property
    def truth(self) -> Indices:
        """The class of every query: (episodes, queries) indices into ``class_names``."""
        return self.labels[self.query].astype(np.int64)

    @property
    def answered(self) -> Indices:
        """The classes that were answered: (methods, episodes, queries) indices into ``class_names``."""
        rows = np.arange(len(self.classes))[None, :, None]
        return self.classes[rows, self.predicted].astype(np.int64)

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """True where a query is of one of its episode's classes: (episodes, queries)."""
        found: npt.NDArray[np.bool_] = (self.truth[:, :, None] == self.classes[:, None, :]).any(2)
        return found


def gather(
    scores: Mapping[str, Scores],
    episodes: Episodes,
    images: Sequence[str],
    labels: Indices,
    class_names: Sequence[str],
    *,
    with_logits: bool = False,
) -> Answers:
    """Put together what a run was asked and what it answered.

    Args:
        scores: By name, in the order of the run.
        episodes: All that were run.
        images: Names of the split's images.
        labels: (images,) the class of each.
        class_names: Of the split.
        with_logits: Take them along, where scores have them.

    Raises:
        ValueError: Scores that know of right answers alone.
    """
    predicted = [own.predicted for own in scores.values() if own.predicted is not None]
    logits = [own.logits for own in scores.values() if with_logits and own.logits is not None]
    if len(predicted) < len(scores):
        raise ValueError("scores without predictions cannot be gathered")
    asked = episodes.query.reshape(len(episodes), -1)
    if episodes.unknown is not None:
        asked = np.concatenate([asked, episodes.unknown.reshape(len(episodes), -1)], 1)
    return Answers(
        tuple(scores),
        tuple(class_names),
        tuple(images),
        _small(labels, len(class_names)),
        _small(episodes.classes, len(class_names)),
        _small(episodes.support, len(images)),
        _small(asked, len(images)),
        np.stack(predicted),
        np.stack(logits) if len(logits) == len(scores) else None,
    )


def _small(values: Indices, limit: int) -> Whole:
    """Keep whole numbers from 0 to below a limit in the smallest type."""
    return values.astype(np.min_scalar_type(max(0, limit - 1)))


def to_bytes(answers: Answers) -> bytes:
    """Write answers as an ``.npz`` file; equal answers are equal bytes."""
    arrays = {field.name: getattr(answers, field.name) for field in fields(answers)}
    told = {name: np.array(array) for name, array in arrays.items() if array is not None}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **told)
    return buffer.getvalue()


def from_bytes(data: bytes) -> Answers:
    """Read what ``to_bytes`` wrote.

    Raises:
        DamagedError: It is no such file.
    """
    names = [field.name for field in fields(Answers)]
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            check_unpacked(archive)
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            arrays: dict[str, Any] = {name: file[name] for name in names if name in file.files}
        for name in ("methods", "class_names", "images"):
            arrays[name] = tuple(map(str, arrays[name].tolist()))
        return Answers(**arrays)
    except DamagedError:
        raise
    except Exception as error:  # a damaged file may raise nearly any exception
        raise DamagedError(str(error).partition("\n")[0] or type(error).__name__) from error

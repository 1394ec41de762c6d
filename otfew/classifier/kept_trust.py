"""What held-out photos have said, in a classifier's file and back: equal, and nothing is held out again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from otfew.classifier.calibration import Calibration, HeldOut, Quality
from otfew.classifier.evidence import Accuracy, Confusion, Evidence, Suspect
from otfew.classifier.rejection import Detection
from otfew.classifier.selection import Choice
from otfew.classifier.trust import Trust

_HELD = {
    "photos": torch.int64,
    "logits": torch.float64,
    "probabilities": torch.float64,
    "labels": torch.int64,
    "units": torch.int64,
}
"""Arrays of ``HeldOut``, and what they hold."""
_COUNTS = ("photos", "classes", "fewest", "most", "rounds")


def to_record(trust: Trust, classes: npt.NDArray[Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Describe what is known, without the calibration and the choice of a method, which are kept beside it.

    Args:
        trust: Of the classifier.
        classes: Its labels, by whose places confusions and doubtful labels are kept.

    Returns:
        JSON-ready values, and arrays by name.
    """
    told = trust.evidence
    place = {label: i for i, label in enumerate(classes.tolist())}

    def of(label: Any) -> int:
        return place[label.item() if isinstance(label, np.generic) else label]

    record: dict[str, Any] = {name: getattr(told, name) for name in _COUNTS}
    record |= {
        name: None if (part := getattr(told, name)) is None else asdict(part)
        for name in ("accuracy", "quality", "detection")
    }
    record |= {
        "confusions": [[of(one.label), of(one.other), one.count] for one in told.confusions],
        "suspects": [[one.photo, of(one.label), of(one.looks_like), one.confidence] for one in told.suspects],
        "duplicates": [list(group) for group in told.duplicates],
        "reason": told.reason,
    }
    arrays = {_named(name): torch.from_numpy(np.ascontiguousarray(getattr(trust.held, name))) for name in _HELD}
    return record, arrays


def from_record(
    record: Mapping[str, Any],
    arrays: Mapping[str, Tensor],
    classes: npt.NDArray[Any],
    calibration: Calibration,
    choice: Choice | None,
) -> Trust:
    """Undo ``to_record``.

    Args:
        record: Its values.
        arrays: Of the file.
        classes: Labels of the classifier.
        calibration: That was kept.
        choice: Likewise, or None.

    Raises:
        ValueError: Parts that do not fit each other; other errors of what is no such record.
    """
    found = {name: arrays[_named(name)] for name in _HELD}
    shapes = {tuple(tensor.shape) for name, tensor in found.items() if name not in {"logits", "probabilities"}}
    rows = len(found["labels"])
    wide = {tuple(found[name].shape) for name in ("logits", "probabilities")}
    kinds = {name: tensor.dtype for name, tensor in found.items()}
    if shapes != {(rows,)} or wide != {(rows, len(classes))} or kinds != _HELD:
        raise ValueError("its held-out photos do not fit")
    held = HeldOut(**{name: tensor.numpy() for name, tensor in found.items()})
    count = int(record["photos"])
    if rows and not (_within(held.photos, count) and _within(held.labels, len(classes))):
        raise ValueError("its held-out photos are none of its photos")
    accuracy, quality, detection = (record[name] for name in ("accuracy", "quality", "detection"))
    # Earlier files hold averages over units, whatever their classes.
    before = {"classes": int(record["classes"]), "even": True}
    told = Evidence(
        **{name: int(record[name]) for name in _COUNTS},
        accuracy=None if accuracy is None else Accuracy(**{**before, **accuracy}),
        quality=None if quality is None else Quality(**{name: tuple(pair) for name, pair in quality.items()}),
        confusions=tuple(Confusion(classes[a], classes[b], n) for a, b, n in record["confusions"]),
        suspects=tuple(Suspect(i, classes[a], classes[b], share) for i, a, b, share in record["suspects"]),
        duplicates=tuple(tuple(group) for group in record["duplicates"]),
        calibration=calibration,
        detection=None if detection is None else Detection(**detection),
        choice=choice,
        reason=str(record["reason"]),
    )
    return Trust(calibration, held, told)


def _named(name: str) -> str:
    return f"held {name}"


def _within(values: npt.NDArray[np.int64], count: int) -> bool:
    return bool(values.min() >= 0 and values.max() < count)

"""The card of a checkpoint: what it is and what it was trained on; read without reading the weights."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field, fields
from os.path import isfile
from pathlib import Path
from typing import Any

from otfew.errors import UserError
from otfew.runs.files import parse_json, reason
from otfew.runs.regular_file import read_regular

SUFFIX = ".safetensors"
"""Ending of the weights, beside which the card lies."""
LARGEST_CARD = 64 << 20
"""Bytes of a card that are read."""
CHECKSUM = "card_sha256"
"""Field of a written card: sha256 of all its other fields."""

_LARGEST_SIDE = 10_000
_LEAST_STD = 1e-6

IMAGENET = "ImageNet-1k (external)"
"""``Card.training_data`` of weights trained on the 1,000 classes of ImageNet."""


@dataclass(frozen=True)
class Card:
    """What a checkpoint is and what it was trained on; stored as JSON beside the weights.

    Attributes:
        name: Name in reports.
        architecture: Key of ``otfew.backbones.ARCHITECTURES``, or the spec that the backbone was loaded from.
        options: Keyword arguments of the architecture.
        resolution: Side in pixels of the training images.
        mean: Per-channel mean subtracted from RGB in [0, 1].
        std: Per-channel standard deviation divided by.
        external: True for weights that nobody trained with otfew (ImageNet weights of a package).
        training_data: Data set in words, with split and variant.
        dataset: Data set's name in ``otfew.data.DATASETS``, "" where external.
        training_classes: Class names seen in training; the evaluator refuses test classes among them.
        protocol: How it was trained (epochs, rates, seed, selection, command), free-form but JSON.
        sha256: Of the weights file; checked on loading.
        classes_known: False where a card was read that carries no checksum of its own: then nothing vouches for its
            list of training classes, from which some may be missing. Never written.
    """

    name: str
    architecture: str
    options: dict[str, Any] = field(default_factory=dict)
    resolution: int = 84
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    external: bool = False
    training_data: str = ""
    dataset: str = ""
    training_classes: tuple[str, ...] = ()
    protocol: dict[str, Any] = field(default_factory=dict)
    sha256: str = ""
    classes_known: bool = True

    def to_json(self) -> dict[str, Any]:
        """Return the card as a JSON-ready dictionary, with a checksum of its own where the training classes are known.

        What went on from a card without one (meta-training) gets none either.
        """
        record = asdict(self)
        del record["classes_known"]
        return {**record, CHECKSUM: _checksum(record)} if self.classes_known else record

    @classmethod
    def from_json(cls, data: Any) -> Card:
        """Return the card that ``to_json`` made a dictionary of.

        Args:
            data: What a JSON file holds.

        Raises:
            ValueError: Not a dictionary, an unknown or missing field, a value of the wrong kind, or another checksum.
        """
        if not isinstance(data, dict):
            raise ValueError("is not a JSON object")
        values = dict(data)
        checksum = values.pop(CHECKSUM, None)
        unknown = sorted(set(values) - ({f.name for f in fields(cls)} - {"classes_known"}))
        if unknown:
            raise ValueError(f"has the unknown field {unknown[0]!r}")
        if checksum is not None and checksum != _checksum(values):
            raise ValueError("was changed after it was written (its own checksum differs)")
        values["classes_known"] = checksum is not None
        for key in ("mean", "std", "training_classes"):
            if key in values:
                if not isinstance(values[key], list):
                    raise ValueError(f"field {key!r} is not a list")
                values[key] = tuple(values[key])
        try:
            card = cls(**values)
        except TypeError:
            raise ValueError("lacks 'name' or 'architecture'") from None
        card.check()
        return card

    def check(self) -> None:
        """Refuse values that can't be used.

        Raises:
            ValueError: The first of them, named.
        """
        for key in ("name", "architecture", "training_data", "dataset", "sha256"):
            if not isinstance(getattr(self, key), str):
                raise ValueError(f"field {key!r} is not a string")
        if not isinstance(self.options, dict) or not isinstance(self.protocol, dict):
            raise ValueError("field 'options' or 'protocol' is not an object")
        if not isinstance(self.external, bool):
            raise ValueError("field 'external' is not true or false")
        if not _is_number(self.resolution, 1, _LARGEST_SIDE) or not isinstance(self.resolution, int):
            raise ValueError(f"field 'resolution' is not an integer from 1 to {_LARGEST_SIDE}")
        if len(self.mean) != 3 or not all(_is_number(v, 0, 1) for v in self.mean):
            raise ValueError("field 'mean' is not three numbers from 0 to 1")
        if len(self.std) != 3 or not all(_is_number(v, _LEAST_STD, 1 / _LEAST_STD) for v in self.std):
            raise ValueError("field 'std' is not three positive, finite numbers")
        if not all(isinstance(name, str) for name in self.training_classes):
            raise ValueError("field 'training_classes' is not a list of names")
        learned = self.protocol.get("learned", {})
        options = list(learned.values()) if isinstance(learned, dict) else [None]
        if not all(
            isinstance(o, dict) and all(_is_number(v, -math.inf, math.inf) for v in o.values()) for o in options
        ):
            raise ValueError("field 'learned' of its protocol is not numbers by method and option")


def load_card(path: Path) -> Card:
    """Read the card beside a checkpoint.

    Args:
        path: Of the weights.

    Raises:
        UserError: Weights or card missing, or the card is not one.
    """
    if not isfile(path):
        raise UserError(f"there is no checkpoint at {path}: check `backbone`.")
    beside = path.with_suffix(".json")
    if not isfile(beside):
        raise UserError(
            f"checkpoint {path} has no card: put {beside.name}, which was written with it, beside it, or say what the "
            f"weights are of, such as resnet12@{path.name}."
        )
    return read_card(beside)


def read_card(path: Path) -> Card:
    """Read a card.

    Args:
        path: Of the card itself.

    Raises:
        UserError: It can't be read, or is none.
    """
    try:
        data = read_regular(path, LARGEST_CARD)
    except OSError as error:
        raise UserError(f"the card {path} cannot be read ({reason(error)}).") from error
    try:
        record = parse_json(data)
    except ValueError as error:
        raise _wrong_card(path, f"is not valid JSON ({error})") from error
    try:
        return Card.from_json(record)
    except ValueError as error:
        raise _wrong_card(path, str(error)) from error


def _wrong_card(path: Path, detail: str) -> UserError:
    """Say what is wrong with a card."""
    return UserError(f"the card {path} {detail}: copy it again from where the checkpoint came from.")


def _is_number(value: object, least: float, most: float) -> bool:
    """Tell whether a value is a finite number in a range; True and False are none."""
    return (
        isinstance(value, float | int)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and least <= value <= most
    )


def _checksum(record: dict[str, Any]) -> str:
    """Hash a card's fields as they are written, however the file is laid out."""
    return hashlib.sha256(json.dumps(record, sort_keys=True, ensure_ascii=True).encode()).hexdigest()

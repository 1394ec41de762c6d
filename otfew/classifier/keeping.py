"""A fitted classifier in one file, and back: equal answers, bit for bit, on the same machine and releases."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from otfew.classifier import kept_backbone, kept_trust, model_file
from otfew.classifier.calibration import Calibration
from otfew.classifier.embedder import Embedder, make_embedder
from otfew.classifier.kept_values import from_json, labels_from_json, labels_to_json, to_json
from otfew.classifier.labelled import Labelled, Photo, halved, unhalved
from otfew.classifier.selection import Choice
from otfew.classifier.trust import Trust
from otfew.errors import UserError
from otfew.runs.identity import versions

ALSO_KEPT: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "calibration_": (asdict, lambda record: Calibration(**record)),
    "selection_": (
        lambda choice: None if choice is None else choice.describe(),
        lambda record: None if record is None else Choice.from_record(record),
    ),
}
"""Fitted attribute -> functions to JSON and from it."""

_NOT_KEPT = frozenset({"backbone", "cache", "device"})
"""Settings that are of a machine, or kept otherwise."""


def save(classifier: Any, path: str | Path, *, embed_backbone: bool, thumbnails: bool) -> Path:
    """Write a fitted classifier: see ``FewShotClassifier.save``."""
    path = _checked(path)
    arrays: dict[str, Tensor] = {}
    settings = {name: value for name, value in classifier.get_params(deep=False).items() if name not in _NOT_KEPT}
    name, options = classifier.recipe_
    if not isinstance(name, str):
        raise UserError(
            f"the method is an object ({type(name).__name__}), which cannot be saved: give its name and `options`."
        )
    known: Labelled = classifier.labelled_
    embedder: Embedder = classifier.embedder_
    backbone, weights = kept_backbone.to_record(embedder.backbone, embed_backbone)
    halves, exponents = halved(known.nodes.cpu())
    pictures = [photo.thumbnail if thumbnails else b"" for photo in known.photos]
    evidence, held = kept_trust.to_record(classifier._trusted(), known.classes)
    record = {
        "written by": versions(),
        "settings": {key: to_json(value, f"setting.{key}", arrays) for key, value in settings.items()},
        "method": {"name": name, "options": to_json(dict(options), "option", arrays)},
        "nodes": embedder.extractor.spec,
        "resolution": embedder.preparation.resolution,
        "crop": embedder.preparation.crop,
        "backbone": backbone,
        "classes": labels_to_json(known.classes),
        "photos": [
            {"name": photo.title, "size": list(photo.size), "key": photo.key, "drift": photo.drift}
            for photo in known.photos
        ],
        "also": {name: out(getattr(classifier, name)) for name, (out, _) in ALSO_KEPT.items()},
        "evidence": evidence,
    }
    arrays |= model_file.packed(halves, "nodes")
    arrays |= {
        "exponents": exponents,
        "labels": torch.from_numpy(known.labels.astype(np.int64)),
        "groups": torch.from_numpy(known.groups),
        "prints": _bytes([photo.print for photo in known.photos]),
        "thumbnails": _bytes(pictures),
        "thumbnail ends": torch.tensor([len(picture) for picture in pictures], dtype=torch.int64).cumsum(0),
        **held,
        **weights,
    }
    model_file.write(path, json.loads(json.dumps(record)), arrays)
    return path


def save_for_others(classifier: Any, path: str | Path) -> str:
    """Write a fitted classifier so that another process, or another machine with otfew, can read it.

    The weights go along where the network is the user's own.

    Args:
        classifier: Fitted.
        path: Of the file.

    Returns:
        What whoever loads it needs beside the file, as a sentence without its end; "" for nothing.

    Raises:
        UserError: As ``FewShotClassifier.save``.
    """
    given, network = classifier.backbone, classifier.embedder_.backbone
    save(classifier, path, embed_backbone=kept_backbone.goes_along(given, network), thumbnails=True)
    if not kept_backbone.must_be_given(given, network):
        return ""
    return f"it names the network {network.name!r} by a digest of its weights: give `backbone` where it is loaded"


def load(kind: type, path: str | Path, *, backbone: Any, device: str | torch.device) -> Any:
    """Read a classifier: see ``FewShotClassifier.load``."""
    path = _checked(path)
    record, arrays = model_file.read(path)
    try:
        network = kept_backbone.from_record(record["backbone"], arrays, backbone, path)
        embedder = make_embedder(network, record["nodes"], record["resolution"], record["crop"], device)
        settings = {name: from_json(value, arrays) for name, value in record["settings"].items()}
        known = _labelled(record, arrays)
        options = from_json(record["method"]["options"], arrays)
        also = {name: back(record["also"][name]) for name, (_, back) in ALSO_KEPT.items()}
        trust = _trust(record, arrays, known, also)
        own = network if record["backbone"]["embedded"] else record["backbone"]["name"]
        made = kind(backbone=own if backbone is None else backbone, device=device, **settings)
        made.restore(record["method"]["name"], options, embedder, known)
    except UserError:
        raise
    except Exception as error:  # with a checksum that fits: made by other code than ours, in whatever way
        raise UserError(
            f"classifier {path} does not hold what it should ({_first_line(error)}): save it again."
        ) from error
    for name, value in also.items():
        setattr(made, name, value)
    if trust is not None:
        made._take(trust)
    return made


def _trust(
    record: Mapping[str, Any], arrays: Mapping[str, Tensor], known: Labelled, also: Mapping[str, Any]
) -> Trust | None:
    """Read what held-out photos have said; None in files of the first format, which kept the calibration alone."""
    if record["format"] == 1:
        return None
    told = record["evidence"]
    if told["photos"] != len(known) or told["classes"] != len(known.classes):
        raise ValueError("its evidence is of other photos")
    return kept_trust.from_record(told, arrays, known.classes, also["calibration_"], also["selection_"])


def _labelled(record: Mapping[str, Any], arrays: Mapping[str, Tensor]) -> Labelled:
    """Put the labelled photos together; raises ``ValueError`` where their parts do not fit."""
    halves = model_file.unpacked(arrays, "nodes")
    classes = labels_from_json(record["classes"])
    labels, groups = (arrays[name].numpy() for name in ("labels", "groups"))
    ends, pictures = arrays["thumbnail ends"].tolist(), arrays["thumbnails"].numpy().tobytes()
    prints = arrays["prints"].view(len(labels), -1).numpy()
    parts = zip([0, *ends[:-1]], ends, record["photos"], prints, strict=True)
    photos = tuple(
        Photo(
            name=str(photo["name"]),
            path="",
            size=(int(photo["size"][0]), int(photo["size"][1])),
            thumbnail=pictures[start:end],
            print=print_.tobytes(),
            key=str(photo["key"]),
            drift=None if photo["drift"] is None else float(photo["drift"]),
        )
        for start, end, photo, print_ in parts
    )
    wrong = (
        halves.ndim != 3 or halves.dtype != torch.float16 or 0 in halves.shape,
        len({len(halves), len(photos), len(labels), len(groups), len(arrays["exponents"])}) > 1,
        len(classes) < 2 or sorted(set(labels.tolist())) != list(range(len(classes))),
    )
    if any(wrong) or not math.isfinite(float(halves.float().sum())):
        raise ValueError("its arrays do not fit each other")
    return Labelled(unhalved(halves, arrays["exponents"]), labels, classes, photos, groups)


def _bytes(parts: list[bytes]) -> Tensor:
    return (
        torch.frombuffer(bytearray(b"".join(parts)), dtype=torch.uint8)
        if any(parts)
        else torch.zeros(0, dtype=torch.uint8)
    )


def _checked(path: str | Path) -> Path:
    """Refuse what can be no path of a file."""
    if not isinstance(path, str | os.PathLike) or not os.fspath(path) or "\0" in os.fspath(path):
        raise UserError(f"`path` is {path!r}: give the path of a file, such as parts{model_file.SUFFIX}.")
    return Path(os.path.expanduser(path))


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".split("\n", 1)[0].rstrip(".:")

"""Pictures and explanations as the page shows them."""

from __future__ import annotations

import base64
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from otfew.app.names import text
from otfew.classifier.explanation import Explanation
from otfew.classifier.explanation_figure import heat, shrunk
from otfew.classifier.reasons import Transport
from otfew.data.base import Image
from otfew.nodes.boxes import Boxes

SIDE = 360
"""Longest side of the pictures in the list, pixels."""
TARGETS = 4
"""Regions that are named for the mass of one."""
PHOTOS = 4
"""Labelled photos that are listed for a class."""
_QUALITY = 85


def small(pixels: npt.NDArray[Any]) -> bytes:
    """Make the JPEG that stands for a photo in the list: none of the bytes that were sent are sent back.

    Args:
        pixels: (height, width, 3), see ``otfew.classifier.door.Shown``.
    """
    image = pixels if pixels.dtype == np.uint8 else np.rint(pixels).astype(np.uint8)
    height, width = image.shape[:2]
    if (scale := SIDE / max(height, width)) < 1:
        image = cv2.resize(
            image, (max(1, round(width * scale)), max(1, round(height * scale))), interpolation=cv2.INTER_AREA
        )
    return _jpeg(image)


def reasons(told: Explanation) -> dict[str, Any]:
    """Put an explanation into what JSON can hold.

    Boxes are x0, y0, x1, y1 as shares of the picture's width and height. ``mass`` is that of each region, 1 on average;
    ``moves`` lists where most of it goes: region of the labelled photo, share of the region's own mass, similarity.
    """
    lead = told.for_answer - told.for_runner_up
    return {
        "sentences": [text(sentence) for sentence in told.sentences()],
        "method": text(told.method),
        "answer": text(told.answer),
        "runner_up": text(told.runner_up),
        "opinion": {
            "decided": told.opinion.decided,
            "agrees": told.opinion.agrees,
            "answer": text(told.opinion.answer),
        },
        "tells": None if told.deletion is None else told.deletion.tells,
        "picture": _shown(told.picture),
        "maps": [
            {"title": title, "picture": _shown(heat(told.picture, told.boxes, _scaled(values)))}
            for title, values in (
                (f"speaks for {text(told.answer)}", told.for_answer),
                (f"rather {text(told.answer)} than {text(told.runner_up)}", lead),
            )
        ],
        "boxes": _shares(told.boxes, told.picture),
        "effects": np.round(_scaled(told.for_answer), 4).tolist(),
        "towards": [
            _towards(told, label, transport)
            for label, transport in zip((told.answer, told.runner_up), told.transports, strict=True)
        ],
    }


def _towards(told: Explanation, label: Any, transport: Transport) -> dict[str, Any]:
    """Tell where the mass goes in the labelled photo that counts most for a class."""
    best = told.best(label)
    own = [one for one in told.evidence if one.label == label][:PHOTOS]
    return {
        "label": text(label),
        "name": text(best.name),
        "picture": None if best.picture is None else _shown(best.picture),
        "boxes": [] if best.picture is None else _shares(transport.there, best.picture),
        "mass": np.round(transport.plan.sum(1) * len(transport.plan), 4).tolist(),
        "moves": _moves(transport),
        "photos": [{"name": text(one.name), "effect": one.effect} for one in own],
    }


def _moves(transport: Transport) -> list[list[list[float]]]:
    """List, for each region, the regions that most of its mass goes to."""
    found = []
    for row, similar in zip(transport.plan, transport.similarity, strict=True):
        mass = float(row.sum())
        order = np.argsort(-row, kind="stable")[:TARGETS].tolist() if mass > 0 else []
        found.append([[j, round(float(row[j]) / mass, 4), round(float(similar[j]), 4)] for j in order if row[j] > 0])
    return found


def _shares(boxes: Boxes, picture: Image) -> list[list[float]]:
    height, width = picture.shape[:2]
    shares: list[list[float]] = np.round(np.clip(boxes / [width, height, width, height], 0, 1), 5).tolist()
    return shares


def _scaled(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """From -1 to 1."""
    scaled: npt.NDArray[np.float64] = values / max(float(np.abs(values).max()), 1e-12)
    return scaled


def _shown(picture: Image) -> dict[str, Any]:
    image, _ = shrunk(picture)
    data = base64.b64encode(_jpeg(image)).decode()
    return {"data": f"data:image/jpeg;base64,{data}", "width": image.shape[1], "height": image.shape[0]}


def _jpeg(image: Image) -> bytes:
    _, encoded = cv2.imencode(".jpg", np.ascontiguousarray(image[:, :, ::-1]), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    data: bytes = encoded.tobytes()
    return data

"""What each picture of ``glyphs`` is made of: the target, the pieces of other glyphs below it, and the colours.

All of it is integers: lengths in 1/256 pixel, turns in half degrees, so that a picture has the same bytes everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from otfew.data.glyph_drawing.atlas import SIDE, Atlas
from otfew.random.dice import Dice

Integers = npt.NDArray[np.int64]

VERSION = 3
"""Version of the generator: to be raised with every change that moves a pixel."""

RESOLUTION = 64
"""Side of a picture, pixels."""

PIXEL = 256
"""Units of length per pixel."""

TARGET_SIZE = (35 * RESOLUTION * PIXEL // 100, 70 * RESOLUTION * PIXEL // 100)
"""Longest side of the target before it is turned."""

TARGET_TURN = 50
"""Largest turn of the target, half degrees: less than what makes one letter of another."""

PIECES = (6, 12)
"""Fewest and most pieces of other glyphs."""

PIECE_SIZE = (26 * PIXEL, 58 * PIXEL)
"""Longest side of the whole glyph that a piece is cut from."""

PIECE_WINDOW = (SIDE * 40 // 100, SIDE * 60 // 100)
"""Side of the square cut out of a mask, mask pixels: less than the longest side of any glyph."""

CONTRAST = 80
"""Least difference in luma (0 to 255) of target and background."""

DISTANCE = 150
"""Least sum over channels of the differences of target and piece in colour."""

SHADE = 20
"""Largest difference of a corner of the background from its colour, per channel."""

_TRIES = 4
_HALF_TURNS = 720
_ANGLES = np.arange(_HALF_TURNS) * (np.pi / 360)
# Rounded to 1/4096, far above the last-digit differences between mathematical libraries.
_COSINE = np.rint(np.cos(_ANGLES) * 4096).astype(np.int64)
_SINE = np.rint(np.sin(_ANGLES) * 4096).astype(np.int64)

_ROLLS = 11 + 2 * _TRIES + PIECES[1] * (8 + _TRIES)


@dataclass(frozen=True)
class Recipes:
    """What to paint, for many pictures at once. Layers go from the bottom to the top; the last is the target.

    Attributes:
        corners: (pictures, 4, 3) colours of the background in the corners: upper left, upper right, lower left, right.
        mask: (pictures, layers) place in the atlas, -1 for no layer.
        window: (pictures, layers, 4) part of the mask that is used: x0, y0, x1, y1 in mask pixels.
        centre: (pictures, layers, 2) x and y of the middle of that part in the picture, 1/256 pixel.
        reach: (pictures, layers, 2) half the width and height of a box around the turned part, 1/256 pixel.
        step: (pictures, layers, 2) how far a step of one pixel along x leads in the mask, in x and y, 1/65536 pixel.
        colour: (pictures, layers, 3) RGB.
    """

    corners: Integers
    mask: Integers
    window: Integers
    centre: Integers
    reach: Integers
    step: Integers
    colour: Integers


def recipes(classes: Sequence[str], labels: Integers, numbers: Integers, masks: Atlas) -> Recipes:
    """Decide what to paint: for each picture a pure function of the class, the number and the list of classes.

    Args:
        classes: Class names of the split: pieces come from the other ones of them.
        labels: (pictures,) index into ``classes``.
        numbers: (pictures,) which picture of its class each is.
        masks: Masks of ``classes``.

    Returns:
        Recipes of ``PIECES[1]`` + 1 layers.
    """
    pairs = zip(labels.tolist(), numbers.tolist(), strict=True)
    dice = Dice([f"otfew/glyphs/{VERSION}/{classes[label]}/{number}" for label, number in pairs], _ROLLS)
    target_colour, corners, base = _background(dice)
    target = _target(dice, labels, masks)
    pieces = _pieces(dice, labels, masks)
    colour = _piece_colours(dice, target_colour, base)
    return Recipes(
        corners=corners,
        mask=np.concatenate([pieces[0], target[0]], axis=1),
        window=np.concatenate([pieces[1], target[1]], axis=1),
        centre=np.concatenate([pieces[2], target[2]], axis=1),
        reach=np.concatenate([pieces[3], target[3]], axis=1),
        step=np.concatenate([pieces[4], target[4]], axis=1),
        colour=np.concatenate([colour, target_colour], axis=1),
    )


_Layers = tuple[Integers, Integers, Integers, Integers, Integers]


def _target(dice: Dice, labels: Integers, masks: Atlas) -> _Layers:
    """The whole glyph of the class, somewhere inside the picture."""
    which = masks.first[labels][:, None] + dice.below(masks.count[labels][:, None])
    size = masks.sizes[which]
    window = np.concatenate([np.zeros_like(size), size], axis=-1)
    length = TARGET_SIZE[0] + dice.below(TARGET_SIZE[1] - TARGET_SIZE[0] + 1)
    turn = (dice.below(2 * TARGET_TURN + 1) - TARGET_TURN) % _HALF_TURNS
    step, reach = _geometry(window, size.max(axis=-1), length, turn)
    room = RESOLUTION * PIXEL - 2 * reach
    centre = reach + np.stack([dice.below(room[..., 0] + 1), dice.below(room[..., 1] + 1)], axis=-1)
    return which, window, centre, reach, step


def _pieces(dice: Dice, labels: Integers, masks: Atlas) -> _Layers:
    """Square cuts around a pixel of ink of glyphs of other classes, anywhere and in any turn."""
    most = PIECES[1]
    used = np.arange(most) < PIECES[0] + dice.below(PIECES[1] - PIECES[0] + 1)
    classes = len(masks.first)
    owner = (labels[:, None] + 1 + dice.below(classes - 1, most)) % classes
    which = masks.first[owner] + dice.below(masks.count[owner], most)
    ink = masks.ink[masks.ink_first[which] + dice.below(masks.ink_count[which], most)]
    side = (PIECE_WINDOW[0] + dice.below(PIECE_WINDOW[1] - PIECE_WINDOW[0] + 1, most))[..., None]
    size = masks.sizes[which]
    corner = np.maximum(ink - side // 2, 0)
    window = np.concatenate([corner, np.minimum(corner + side, size)], axis=-1)
    length = PIECE_SIZE[0] + dice.below(PIECE_SIZE[1] - PIECE_SIZE[0] + 1, most)
    step, reach = _geometry(window, size.max(axis=-1), length, dice.below(_HALF_TURNS, most))
    centre = np.stack([dice.below(RESOLUTION * PIXEL, most), dice.below(RESOLUTION * PIXEL, most)], axis=-1)
    return np.where(used, which, -1), window, centre, reach, step


def _geometry(window: Integers, longest: Integers, length: Integers, turn: Integers) -> tuple[Integers, Integers]:
    """Step and reach of a layer whose glyph, ``longest`` mask pixels long, is drawn ``length`` / 256 pixels long."""
    cosine, sine = _COSINE[turn], _SINE[turn]
    step = np.stack([cosine, sine], axis=-1) * (16 * PIXEL * longest)[..., None] // length[..., None]
    width, height = window[..., 2] - window[..., 0], window[..., 3] - window[..., 1]
    wide = width * np.abs(cosine) + height * np.abs(sine)
    high = width * np.abs(sine) + height * np.abs(cosine)
    # A pixel more on each side, since bilinear samples fade out beyond the edge of the mask.
    reach = np.stack([wide, high], axis=-1) * length[..., None] // (2 * 4096 * longest[..., None]) + PIXEL
    return step, reach


def _background(dice: Dice) -> tuple[Integers, Integers, Integers]:
    """Colours of the target (pictures, 1, 3), the corners (pictures, 4, 3) and the background (pictures, 3)."""
    target = dice.colours()
    tries = dice.colours(2 * _TRIES)
    far = np.where(_luma(target) < 128, 255, 0)[..., None] * np.ones(3, dtype=np.int64)
    base = _first(tries, np.abs(_luma(tries) - _luma(target)) >= CONTRAST, far[:, 0])
    corners = base[:, None] + dice.colours(4) % (2 * SHADE + 1) - SHADE
    return target, np.clip(corners, 0, 255), base


def _piece_colours(dice: Dice, target: Integers, base: Integers) -> Integers:
    """Colours (pictures, pieces, 3) unlike the target's; the background's, which is, where no try is."""
    tries = dice.colours(PIECES[1] * _TRIES).reshape(len(target), PIECES[1], _TRIES, 3)
    apart = np.abs(tries - target[:, None]).sum(axis=-1) >= DISTANCE
    return _first(tries, apart, np.broadcast_to(base[:, None], (*tries.shape[:2], 3)))


def _first(tries: Integers, good: npt.NDArray[np.bool_], otherwise: Integers) -> Integers:
    """The first good one of several tries (..., tries, 3), else ``otherwise`` (..., 3)."""
    chosen = np.take_along_axis(tries, good.argmax(axis=-1)[..., None, None], axis=-2)[..., 0, :]
    return np.where(good.any(axis=-1, keepdims=True), chosen, otherwise)


def _luma(colour: Integers) -> Integers:
    """Brightness (0 to 255) of RGB colours (..., 3) with the weights of Rec. 601 in 1/256."""
    return np.asarray((colour * np.array([77, 150, 29])).sum(axis=-1) // 256, dtype=np.int64)

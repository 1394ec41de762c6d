"""Generated furniture and buildings: each call makes another object of its class."""

from __future__ import annotations

import numpy as np

from otfew.data.shapes.chances import Chances
from otfew.data.shapes.mesh import Mesh, joined
from otfew.data.shapes.solids import arc, box, cylinder, ellipsoid, lathe, prism, tube


def _legs(chances: Chances, width: float, depth: float, height: float, count: int = 4) -> Mesh:
    """Stand legs, round or square, under the corners of a plate, or round its middle where they are three."""
    thick, splay = chances.between(0.04, 0.09), chances.between(0.0, 0.12)
    is_round = chances.happens(0.5)
    legs = []
    for turn in range(count):
        if count == 4:
            x, y = ((-1, -1), (-1, 1), (1, -1), (1, 1))[turn]
        else:
            corner = arc(1, 360 * turn / count, 360 * turn / count, 1)[0]
            x, y = corner[0], corner[2]
        top = (x * (width / 2 - thick), y * (depth / 2 - thick), height)
        foot = (top[0] * (1 + splay), top[1] * (1 + splay), 0.0)
        legs.append(tube([foot, top], thick / 2 * (1.0 if is_round else 1.3), sides=10 if is_round else 4))
    return joined(*legs)


def chair(chances: Chances) -> Mesh:
    """A seat on four legs, with a back of slats or of one board, and sometimes arms."""
    width, depth = chances.between(0.8, 1.1), chances.between(0.8, 1.1)
    height, back, thick = chances.between(0.8, 1.1), chances.between(0.8, 1.3), chances.between(0.06, 0.14)
    parts = [_legs(chances, width, depth, height), box(width, depth, thick).moved(0, 0, height)]
    behind = depth / 2 - 0.05
    if chances.happens(0.5):
        parts.append(box(width, 0.07, back).moved(0, behind, height + thick))
    else:
        slats = chances.count(2, 5)
        post, above = box(0.07, 0.07, back), height + thick
        parts += [post.moved(side * (width / 2 - 0.04), behind, above) for side in (-1, 1)]
        gap = back / (slats + 0.3)
        parts += [box(width, 0.05, 0.1).moved(0, behind, above + gap * (slat + 0.7)) for slat in range(slats)]
    if chances.happens(0.35):
        for side in (-1, 1):
            at = side * (width / 2 - 0.04)
            parts.append(box(0.07, depth, 0.06).moved(at, 0, height + thick + 0.35))
            parts.append(box(0.07, 0.07, 0.35).moved(at, -depth / 2 + 0.06, height + thick))
    return joined(*parts)


def stool(chances: Chances) -> Mesh:
    """A round or square seat on three or four legs, without a back."""
    width, height = chances.between(0.6, 0.9), chances.between(0.9, 1.5)
    legs = _legs(chances, width, width, height, chances.count(3, 4))
    thick = chances.between(0.08, 0.18)
    seat = cylinder(width / 2, thick) if chances.happens(0.6) else box(width, width, thick)
    parts = [legs, seat.moved(0, 0, height)]
    if chances.happens(0.6):
        ring = arc(width * 0.42, 0, 360)
        parts.append(tube(ring[:, [0, 2, 1]] + np.array([0, 0, height * chances.between(0.25, 0.5)]), 0.025))
    return joined(*parts)


def bench(chances: Chances) -> Mesh:
    """A long seat on two or three supports, sometimes with a back."""
    width, depth, height = chances.between(2.2, 3.2), chances.between(0.5, 0.8), chances.between(0.6, 0.9)
    thick, supports = chances.between(0.08, 0.15), chances.count(2, 3)
    parts = [box(width, depth, thick).moved(0, 0, height)]
    for number in range(supports):
        at = (number / (supports - 1) - 0.5) * width * 0.8
        parts.append(box(0.12, depth * 0.9, height).moved(at, 0, 0))
    if chances.happens(0.5):
        parts.append(box(width, 0.07, 0.3).moved(0, depth / 2, height + thick + 0.25))
        parts += [box(0.08, 0.08, 0.6).moved(side * width * 0.4, depth / 2, height) for side in (-1, 1)]
    return joined(*parts)


def table(chances: Chances) -> Mesh:
    """A wide top, square, long or round, on four legs or on one column."""
    width, depth = chances.between(1.4, 2.4), chances.between(1.0, 1.5)
    height, thick = chances.between(0.8, 1.2), chances.between(0.05, 0.12)
    if chances.happens(0.4):
        foot = cylinder(width * 0.28, 0.06)
        column = cylinder(chances.between(0.06, 0.14), height)
        return joined(foot, column, cylinder(width / 2, thick).moved(0, 0, height))
    return joined(_legs(chances, width, depth, height), box(width, depth, thick).moved(0, 0, height))


def bed(chances: Chances) -> Mesh:
    """A mattress on a frame, a board at its head and often one at its foot, and pillows."""
    width, length, height = chances.between(1.0, 1.8), chances.between(2.0, 2.4), chances.between(0.25, 0.5)
    head, thick = chances.between(0.5, 1.0), chances.between(0.18, 0.3)
    parts = [
        box(width, length, 0.12).moved(0, 0, height),
        box(width * 0.96, length * 0.97, thick).moved(0, 0, height + 0.12),
        box(width * 1.03, 0.08, height + thick + head).moved(0, length / 2 + 0.04, 0),
    ]
    if chances.happens(0.7):
        parts.append(box(width * 1.03, 0.08, height + thick + head * 0.35).moved(0, -length / 2 - 0.04, 0))
    x, y, leg = width / 2 - 0.06, length / 2 - 0.06, box(0.1, 0.1, height)
    parts += [leg.moved(at, to, 0) for at in (-x, x) for to in (-y, y)]
    pillows = chances.count(1, 2)
    for number in range(pillows):
        at = 0.0 if pillows == 1 else (number - 0.5) * width * 0.46
        pillow = ellipsoid(width * 0.36 / pillows + 0.05, 0.22, 0.1)
        parts.append(pillow.moved(at, length / 2 - 0.3, height + thick + 0.18))
    return joined(*parts)


def bookshelf(chances: Chances) -> Mesh:
    """Boards between two walls, with books in rows on some."""
    width, depth, height = chances.between(1.0, 1.8), chances.between(0.35, 0.5), chances.between(1.6, 2.6)
    shelves = chances.count(3, 6)
    parts = [box(0.06, depth, height).moved(side * width / 2, 0, 0) for side in (-1, 1)]
    gap = (height - 0.06) / shelves
    for shelf in range(shelves + 1):
        parts.append(box(width, depth, 0.05).moved(0, 0, shelf * gap))
        if shelf < shelves and chances.happens(0.7):
            at, end = -width / 2 + 0.06, -width / 2 + width * chances.between(0.3, 0.95)
            while at < end:
                thick = chances.between(0.05, 0.12)
                tall = gap * chances.between(0.55, 0.85)
                parts.append(box(thick * 0.9, depth * 0.75, tall).moved(at + thick / 2, 0, shelf * gap + 0.05))
                at += thick
    if chances.happens(0.5):
        parts.append(box(width, 0.02, height).moved(0, depth / 2, 0))
    return joined(*parts)


def ladder(chances: Chances) -> Mesh:
    """Two rails and rungs, alone or as a stepladder of two frames."""
    rungs, width, height = chances.count(5, 10), chances.between(0.45, 0.7), chances.between(2.0, 3.0)
    narrow = chances.between(0.75, 1.0)
    rails = [tube([(s * width / 2, 0, 0), (s * width / 2 * narrow, 0, height)], 0.035) for s in (-1, 1)]
    for rung in range(rungs):
        share = (rung + 0.6) / (rungs + 0.2)
        half = width / 2 * (1 + (narrow - 1) * share)
        rails.append(tube([(-half, 0, share * height), (half, 0, share * height)], 0.025))
    frame = joined(*rails)
    if chances.happens(0.4):
        lean = chances.between(12, 18)
        back = joined(*rails[:2]).moved(0, 0, -height).turned("x", lean).moved(0, 0, height)
        return joined(frame.moved(0, 0, -height).turned("x", -lean).moved(0, 0, height), back)
    return frame.turned("x", -chances.between(5, 20))


def lamp(chances: Chances) -> Mesh:
    """A foot, a stem, straight or bent, and a shade that widens downwards."""
    height, wide = chances.between(1.2, 2.4), chances.between(0.35, 0.6)
    tall, narrow = chances.between(0.35, 0.6), chances.between(0.4, 0.8)
    shade = lathe([(wide, 0), (wide * narrow, tall)])
    foot = cylinder(chances.between(0.25, 0.4), 0.06)
    if chances.happens(0.35):
        reach = chances.between(0.4, 0.8)
        bow = arc(reach, 180, 0) + np.array([reach, 0, height])
        stem = tube([(0, 0, 0), *bow.tolist()], 0.03)
        return joined(foot, stem, shade.scaled(0.8, 0.8, 0.8).moved(2 * reach, 0, height - 0.8 * tall))
    return joined(foot, cylinder(0.03, height), shade.moved(0, 0, height - tall * 0.6))


def house(chances: Chances) -> Mesh:
    """Walls under a gable roof, with a door, windows and sometimes a chimney."""
    width, depth, height = chances.between(1.4, 2.2), chances.between(1.2, 2.6), chances.between(0.8, 1.5)
    rise, over = chances.between(0.5, 1.0), 0.12
    roof = prism([(-width / 2 - over, 0), (width / 2 + over, 0), (0, rise)], depth + 2 * over).moved(0, 0, height)
    parts = [box(width, depth, height), roof, box(0.3, 0.06, 0.6).moved(0, -depth / 2, 0)]
    for side in (-1, 1):
        parts.append(box(0.28, 0.06, 0.28).moved(side * width * 0.32, -depth / 2, height * 0.5))
        windows = chances.count(1, 3)
        for number in range(windows):
            at = ((number + 0.5) / windows - 0.5) * depth * 0.8
            parts.append(box(0.06, 0.28, 0.28).moved(side * width / 2, at, height * 0.5))
    if chances.happens(0.6):
        parts.append(box(0.2, 0.2, rise * 0.9).moved(width * 0.25, depth * 0.2, height + rise * 0.35))
    return joined(*parts)


def windmill(chances: Chances) -> Mesh:
    """A tapering tower with a cap and three to six sails."""
    height, foot = chances.between(1.8, 2.6), chances.between(0.45, 0.7)
    top = foot * chances.between(0.5, 0.8)
    tower = cylinder(foot, height, top, sides=chances.count(6, 12))
    parts = [tower, ellipsoid(top, top, top * 0.8).moved(0, 0, height)]
    sails, length, turn = chances.count(3, 6), height * chances.between(0.45, 0.65), chances.between(0, 90)
    for sail in range(sails):
        blade = joined(box(0.05, 0.04, length), box(0.22, 0.02, length * 0.7).moved(0.08, 0, length * 0.28))
        parts.append(blade.turned("y", turn + 360 * sail / sails).moved(0, -top - 0.15, height * 0.95))
    parts.append(tube([(0, 0, height * 0.95), (0, -top - 0.2, height * 0.95)], 0.06))
    return joined(*parts)

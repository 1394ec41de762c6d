"""Generated vessels and tools: each call makes another object of its class."""

from __future__ import annotations

from otfew.data.shapes.chances import Chances
from otfew.data.shapes.mesh import Mesh, joined
from otfew.data.shapes.solids import arc, box, cylinder, ellipsoid, lathe, prism, tube


def cup(chances: Chances) -> Mesh:
    """An open cylinder with one handle at its side."""
    radius, height = chances.between(0.4, 0.6), chances.between(0.7, 1.2)
    foot = radius * chances.between(0.75, 1.0)
    body = lathe([(0, 0), (foot, 0), (radius, height), (radius - 0.05, height), (foot - 0.05, 0.06), (0, 0.06)])
    ring, thick = height * chances.between(0.22, 0.34), chances.between(0.04, 0.07)
    handle = tube(arc(ring, -90, 90), thick).moved((foot + radius) / 2 - 0.03, 0, height * 0.5)
    return joined(body, handle)


def bottle(chances: Chances) -> Mesh:
    """A body, shoulders and a narrow neck with a cap."""
    radius, body = chances.between(0.28, 0.45), chances.between(0.9, 1.5)
    neck, long = radius * chances.between(0.25, 0.45), chances.between(0.3, 0.7)
    slope = chances.between(0.15, 0.4)
    outline = [(0, 0), (radius, 0), (radius, body), (neck, body + slope), (neck, body + slope + long)]
    cap = cylinder(neck * 1.25, 0.12).moved(0, 0, body + slope + long - 0.04)
    return joined(lathe([*outline, (0, body + slope + long)], sides=4 if chances.happens(0.2) else 24), cap)


def bowl(chances: Chances) -> Mesh:
    """A wide open shell on a low foot."""
    radius, height = chances.between(0.8, 1.1), chances.between(0.4, 0.7)
    curve = chances.between(0.4, 0.7)
    outer = [(radius * (i / 8) ** curve, height * (i / 8) ** (2 - curve)) for i in range(9)]
    inner = [(r * 0.93, z + 0.05 * (1 - z / height)) for r, z in reversed(outer)]
    foot = cylinder(radius * 0.4, 0.1)
    return joined(foot, lathe([*outer, *inner]).moved(0, 0, 0.08))


def goblet(chances: Chances) -> Mesh:
    """A bowl on a thin stem and a round foot."""
    radius, stem, bowl_height = chances.between(0.3, 0.5), chances.between(0.5, 0.9), chances.between(0.4, 0.8)
    rim = radius * chances.between(0.7, 1.1)
    half, inside = stem + bowl_height * 0.5, radius * 0.92
    foot = [(0, 0), (radius * 0.9, 0), (radius * 0.85, 0.05), (0.05, 0.1), (0.05, stem)]
    outer = [(radius * 0.7, stem + bowl_height * 0.2), (radius, half), (rim, stem + bowl_height)]
    outline = [*foot, *outer, (rim * 0.93, stem + bowl_height), (inside, half), (0, stem + bowl_height * 0.15)]
    return lathe(outline)


def vase(chances: Chances) -> Mesh:
    """A belly between a foot and a flaring mouth, sometimes with two handles."""
    belly, neck, height = chances.between(0.4, 0.65), chances.between(0.15, 0.3), chances.between(1.3, 1.9)
    foot, mouth, waist = chances.between(0.25, 0.4), chances.between(0.3, 0.5), chances.between(0.3, 0.5)
    outline = [(0, 0), (foot, 0), (belly * 0.9, height * waist * 0.5), (belly, height * waist)]
    outline += [(neck * 1.3, height * 0.75), (neck, height * 0.85), (mouth, height), (mouth * 0.9, height)]
    parts = [lathe([*outline, (neck * 0.85, height * 0.85), (0, height * 0.7)])]
    if chances.happens(0.4):
        for turn in (0, 180):
            handle = tube(arc(height * 0.16, -80, 100), 0.04).moved(belly * 0.75, 0, height * 0.68)
            parts.append(handle.turned("z", turn))
    return joined(*parts)


def teapot(chances: Chances) -> Mesh:
    """A round body with a lid, a spout to one side and a handle to the other."""
    wide, tall = chances.between(0.6, 0.8), chances.between(0.45, 0.7)
    body = ellipsoid(wide, wide, tall).moved(0, 0, tall)
    lid = joined(ellipsoid(wide * 0.5, wide * 0.5, 0.12), ellipsoid(0.09, 0.09, 0.09).moved(0, 0, 0.17))
    reach, rise = chances.between(0.5, 0.8), chances.between(0.3, 0.6)
    start = wide * 0.8
    bend = [(start, 0, tall * 0.8), (start + reach * 0.5, 0, tall), (start + reach, 0, tall + rise)]
    spout = tube(bend, [0.16, 0.11, 0.06])
    handle = tube(arc(tall * 0.6, 90, 270), 0.06).moved(-wide * 0.85, 0, tall)
    return joined(body, lid.moved(0, 0, 2 * tall - 0.03), spout, handle)


def hammer(chances: Chances) -> Mesh:
    """A head across the end of a handle, with a claw, a wedge or two faces."""
    length, head = chances.between(1.6, 2.4), chances.between(0.5, 0.9)
    thick = chances.between(0.14, 0.22)
    handle = cylinder(chances.between(0.06, 0.1), length)
    block = cylinder(thick, head).turned("y", 90).moved(-head / 2, 0, length)
    parts = [handle, block]
    kind = chances.count(0, 2)
    if kind == 0:
        for side in (-1, 1):
            claw = [(-head / 2, side * 0.05, length), (-head / 2 - 0.2, side * 0.09, length - 0.05)]
            parts.append(tube([*claw, (-head / 2 - 0.4, side * 0.12, length - 0.22)], [0.08, 0.06, 0.02]))
    elif kind == 1:
        wedge = prism([(0, -thick), (0, thick), (-0.45, 0.02), (-0.45, -0.02)], thick * 1.6)
        parts.append(wedge.moved(-head / 2, 0, length))
    return joined(*parts)


def sword(chances: Chances) -> Mesh:
    """A long pointed blade, a guard across, a grip and a knob."""
    length, width = chances.between(1.8, 2.8), chances.between(0.12, 0.24)
    blade = lathe([(0, 0), (width, 0), (width * 0.85, length * 0.85), (0, length)], sides=4).scaled(1, 0.25, 1)
    wide, grip = chances.between(0.5, 0.9), chances.between(0.35, 0.6)
    parts = [blade.moved(0, 0, grip), cylinder(0.06, grip)]
    if chances.happens(0.3):
        parts.append(cylinder(wide * 0.4, 0.06).moved(0, 0, grip - 0.03))
    else:
        parts.append(box(wide, 0.12, 0.09).moved(0, 0, grip - 0.04))
    parts.append(ellipsoid(0.1, 0.1, 0.1))
    return joined(*parts).turned("y", chances.between(-30, 30))


def dumbbell(chances: Chances) -> Mesh:
    """Two weights at the ends of a bar: balls, prisms or stacks of discs."""
    bar, radius, kind = chances.between(0.8, 1.6), chances.between(0.3, 0.5), chances.count(0, 2)
    parts = [tube([(-bar / 2 - 0.1, 0, 0), (bar / 2 + 0.1, 0, 0)], chances.between(0.06, 0.1))]
    for side in (-1, 1):
        if kind == 0:
            parts.append(ellipsoid(radius, radius, radius).moved(side * bar / 2, 0, 0))
        elif kind == 1:
            weight = cylinder(radius, radius * 1.2, sides=6).turned("y", 90)
            parts.append(weight.moved(side * bar / 2 - radius * 0.6, 0, 0))
        else:
            for disc in range(3):
                plate = cylinder(radius * (1 - 0.18 * disc), 0.12).turned("y", 90)
                parts.append(plate.moved(side * (bar / 2 + 0.13 * disc) - 0.06, 0, 0))
    return joined(*parts)


def umbrella(chances: Chances) -> Mesh:
    """A canopy of flat panels on a stick with a hook or a knob."""
    panels, radius, rise = chances.count(6, 10), chances.between(0.9, 1.3), chances.between(0.35, 0.7)
    long = chances.between(1.4, 2.0)
    rounds = [(radius * s, rise * (1 - s * s)) for s in (1.0, 0.8, 0.55, 0.3, 0.0)]
    parts = [lathe(rounds, sides=panels).moved(0, 0, long - rise), cylinder(0.03, long + 0.12)]
    if chances.happens(0.7):
        parts.append(tube(arc(0.16, 180, 360), 0.035).moved(0.16, 0, 0))
    else:
        parts.append(ellipsoid(0.08, 0.08, 0.12))
    return joined(*parts)

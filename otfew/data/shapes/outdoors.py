"""Generated vehicles and plants: each call makes another object of its class."""

from __future__ import annotations

from otfew.data.shapes.chances import Chances
from otfew.data.shapes.mesh import Mesh, joined
from otfew.data.shapes.solids import box, cylinder, ellipsoid, lathe, prism, tube


def airplane(chances: Chances) -> Mesh:
    """A fuselage with two wings, a tail, and engines under the wings or none."""
    length, radius = chances.between(2.2, 3.2), chances.between(0.18, 0.3)
    span, chord, sweep = chances.between(1.1, 1.7), chances.between(0.4, 0.7), chances.between(0.0, 0.7)
    nose = [(0, 0), (radius * 0.7, 0.15), (radius, 0.5), (radius, length * 0.7), (radius * 0.2, length), (0, length)]
    parts = [lathe(nose).turned("y", 90).moved(-length / 2, 0, 0)]
    engines = chances.count(0, 2)
    for side in (-1, 1):
        wing = prism([(-chord / 2, 0), (chord / 2, 0), (sweep + chord * 0.3, span), (sweep - chord * 0.1, span)], 0.06)
        parts.append(wing.turned("x", -90 * side).moved(-0.1, 0, -0.05))
        tail = prism([(-0.2, 0), (0.2, 0), (0.35, span * 0.4), (0.15, span * 0.4)], 0.05)
        parts.append(tail.turned("x", -90 * side).moved(length * 0.42, 0, 0.05))
        for number in range(engines):
            at = span * (0.35 + 0.3 * number)
            pod = cylinder(0.1, 0.4).turned("y", 90)
            parts.append(pod.moved(-0.35 + sweep * at / span, side * at, -0.18))
    fin = prism([(-0.25, 0), (0.2, 0), (0.35, 0.6), (0.15, 0.6)], 0.05)
    return joined(*parts, fin.moved(length * 0.4, 0, radius * 0.3))


def car(chances: Chances) -> Mesh:
    """A body and a cabin on four wheels: saloon, van or pick-up."""
    length, width, height = chances.between(2.2, 2.8), chances.between(0.9, 1.1), chances.between(0.3, 0.45)
    wheel = chances.between(0.2, 0.28)
    parts = [box(length, width, height).moved(0, 0, wheel * 0.8)]
    roof, base = chances.between(0.35, 0.55), wheel * 0.8 + height
    kind = chances.count(0, 2)
    start, stop, slope = [(-0.32, 0.3, 0.22), (-0.48, 0.4, 0.1), (-0.3, 0.05, 0.12)][kind]
    outline = [(start * length, 0), (stop * length, 0), (stop * length - slope, roof), (start * length + slope, roof)]
    parts.append(prism(outline, width * 0.92).moved(0, 0, base))
    for x in (-0.32, 0.32):
        for side in (-1, 1):
            tyre = cylinder(wheel, 0.16).turned("x", 90)
            parts.append(tyre.moved(x * length, side * width / 2 + 0.08, wheel))
    return joined(*parts)


def boat(chances: Chances) -> Mesh:
    """A hull with a mast and a sail, or with a cabin and a funnel."""
    length, width, deep = chances.between(1.8, 2.6), chances.between(0.5, 0.8), chances.between(0.3, 0.5)
    hull = lathe([(0.001, -1), (0.8, -0.9), (1, -0.2), (0.8, 0.4), (0.001, 1)], sides=16).turned("y", 90)
    lower = hull.scaled(length / 2, width / 2, deep)
    vertices = lower.vertices.copy()
    vertices[:, 2] = vertices[:, 2].clip(max=0.0)
    parts = [Mesh(vertices, lower.faces)]
    if chances.happens(0.6):
        mast = chances.between(1.3, 2.0)
        parts.append(cylinder(0.035, mast))
        boom = length * chances.between(0.3, 0.42)
        parts.append(prism([(0.05, 0.2), (boom, 0.2), (0.05, mast * 0.95)], 0.02))
        if chances.happens(0.6):
            parts.append(prism([(-0.05, 0.15), (-boom * 0.8, 0.1), (-0.05, mast * 0.8)], 0.02))
    else:
        cabin = chances.between(0.25, 0.4)
        parts.append(box(length * 0.35, width * 0.6, cabin))
        funnel = cylinder(0.08, 0.35)
        parts += [funnel.moved((number - 1) * 0.22, 0, cabin) for number in range(chances.count(1, 3))]
    return joined(*parts)


def rocket(chances: Chances) -> Mesh:
    """A pointed body standing on three to five fins, sometimes with boosters."""
    radius, length, point = chances.between(0.22, 0.35), chances.between(1.4, 2.2), chances.between(0.5, 0.9)
    outline = [(0, 0), (radius * 0.8, 0), (radius, 0.25), (radius, length), (radius * 0.55, length + point * 0.6)]
    parts = [lathe([*outline, (0, length + point)])]
    fins, wide = chances.count(3, 5), chances.between(0.35, 0.6)
    boosters = chances.happens(0.35)
    for fin in range(fins):
        tip, root = radius + wide, radius * 0.6
        blade = prism([(root, 0.1), (tip, -0.2), (tip - wide * 0.1, 0.2), (root, 0.8)], 0.05)
        parts.append(blade.turned("z", 360 * fin / fins))
        if boosters:
            side = joined(cylinder(0.12, length * 0.6), cylinder(0.12, 0.25, 0.0).moved(0, 0, length * 0.6))
            parts.append(side.moved(radius + 0.1, 0, 0.1).turned("z", 360 * (fin + 0.5) / fins))
    return joined(*parts)


def fir(chances: Chances) -> Mesh:
    """A trunk with two to five cones, one above the other."""
    tiers, radius, tall = chances.count(2, 5), chances.between(0.6, 0.9), chances.between(0.5, 0.8)
    trunk = chances.between(0.3, 0.6)
    parts = [cylinder(chances.between(0.08, 0.16), trunk + 0.2)]
    for tier in range(tiers):
        share = 1 - tier / (tiers + 1)
        cone = cylinder(radius * share, tall, 0.0, sides=12)
        parts.append(cone.moved(0, 0, trunk + tier * tall * chances.between(0.55, 0.65)))
    return joined(*parts)


def palm(chances: Chances) -> Mesh:
    """A bent bare trunk with leaves that hang from its top."""
    height, bend = chances.between(1.6, 2.6), chances.between(-0.5, 0.5)
    path = [(bend * s * s, 0.0, height * s) for s in (0.0, 0.25, 0.5, 0.75, 1.0)]
    parts = [tube(path, [0.14, 0.11, 0.1, 0.09, 0.08])]
    leaves, long, hang = chances.count(6, 10), chances.between(0.7, 1.1), chances.between(0.3, 0.8)
    for leaf in range(leaves):
        line = [(long * s, 0.0, 0.25 * s - hang * s * s) for s in (0.02, 0.35, 0.7, 1.0)]
        blade = tube(line, [0.03, 0.13, 0.1, 0.01], sides=6)
        parts.append(blade.turned("z", 360 * leaf / leaves + chances.between(0, 20)).moved(bend, 0, height))
    return joined(*parts)


def mushroom(chances: Chances) -> Mesh:
    """A stem under a wide cap, rounded or pointed."""
    height, cap, thick = chances.between(0.7, 1.3), chances.between(0.5, 0.9), chances.between(0.12, 0.25)
    rise, point = chances.between(0.3, 0.6), chances.between(0.6, 2.0)
    stem = cylinder(thick * chances.between(1.0, 1.5), height, thick)
    rounds = [(cap * s, rise * (1 - s**2) ** (1 / point) if s < 1 else 0.0) for s in (1, 0.95, 0.85, 0.7, 0.5, 0.25, 0)]
    return joined(stem, lathe([(thick, 0.02), *rounds]).moved(0, 0, height - 0.05))


def snowman(chances: Chances) -> Mesh:
    """Two or three balls of falling size, a nose, two arms and sometimes a hat."""
    balls, radius, shrink = chances.count(2, 3), chances.between(0.5, 0.7), chances.between(0.65, 0.8)
    parts: list[Mesh] = []
    height = last = 0.0
    for _ in range(balls):
        height += radius * (0.9 if not parts else 0.75)
        parts.append(ellipsoid(radius, radius, radius).moved(0, 0, height))
        last, height, radius = radius, height + radius * 0.8, radius * shrink
    head = height - last * 0.8
    parts.append(cylinder(0.07, 0.35, 0.0).turned("x", 90).moved(0, -last * 0.9, head))
    for side in (-1, 1):
        shoulder = head - last * 1.5
        parts.append(tube([(side * last * 0.7, 0, shoulder), (side * (last + 0.7), 0, shoulder + 0.3)], 0.035))
    if chances.happens(0.5):
        brim = cylinder(last * 1.1, 0.05)
        parts.append(joined(brim, cylinder(last * 0.7, 0.4)).moved(0, 0, head + last * 0.8))
    return joined(*parts)

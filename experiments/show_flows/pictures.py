"""Transport plans as pictures: numbered flows over photographs, a plan as a matrix, an image rebuilt from another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from otfew.experiments.show_flows.scenes import Scene
from otfew.nodes.boxes import Boxes
from otfew.reporting.canvas import INK, TEXT, WIDTH, add_axes, blank, caption, headline, headline_height, wrapped
from otfew.reporting.flow_picture import ANSWER, RUNNER_UP, Link, Photo, draw_strip, largest, strip_width

Floats = npt.NDArray[np.float64]
DPI = 100
"""Photographs make large files: 800 pixels across."""
GAP, PAIR_GAP = 0.22, 0.6
"""Between three photos and between two, as shares of their height."""
SHOWN = 10
"""Rows and columns of the matrix; what is left over is one more."""
NAMES = {"cross_reference": "cross-reference weights", "uniform": "equal weights"}
_BAR = "White bar at a cell's foot: its weight, as a share of the heaviest cell's."
_HEAD = 0.40
"""Inches above a row of photos, for their titles."""
_LINE = (
    "Line: mass that moves from a cell to a cell, as wide as it is much; its number stands at both ends, and "
    "below with its % of all mass and the similarity of its cells. "
)


@dataclass(frozen=True)
class Flow:
    """A plan between two scenes.

    Attributes:
        plan: (nodes of a, nodes of b), total 1.
        s: (nodes of a,) weights.
        d: (nodes of b,) weights.
        sim: (nodes of a, nodes of b) similarities.
        similarity: sum_ij plan_ij sim_ij.
    """

    plan: Floats
    s: Floats
    d: Floats
    sim: Floats
    similarity: float


@dataclass(frozen=True)
class Candidate:
    """A labelled photo that a query is compared with.

    Attributes:
        label: Its class.
        scene: The photo.
        flow: From the query to it.
    """

    label: str
    scene: Scene
    flow: Flow


def draw_answer(query: Scene, answer: Candidate, runner_up: Candidate, count: int) -> Any:
    """Draw a query between the nearest photo of the class it is taken for and that of the runner-up.

    Args:
        query: In the middle.
        answer: At the left; flows to it are numbered from 1, in discs.
        runner_up: At the right; its flows have the numbers after those, in squares.
        count: Flows of each plan, the largest.

    Returns:
        A ``matplotlib.figure.Figure``.
    """
    left = _links(answer.flow, count, 1, 0)
    right = _links(runner_up.flow, count, 1, 2, first=len(left) + 1, colour=RUNNER_UP, square=True)
    photos = [
        _labelled(answer, "nearest class"),
        # The query's weights depend on what it is compared with: shown are those against the answer.
        Photo(query.picture, f"{query.name}\nto be named", query.boxes, answer.flow.s),
        _labelled(runner_up, "runner-up"),
    ]
    said = (
        f"{query.name} is taken for {answer.label}: its parts find their like at similarity "
        f"{answer.flow.similarity:.2f}, in {runner_up.label}, the runner-up, at {runner_up.flow.similarity:.2f}"
    )
    lines = (
        (listed(left, answer.flow, f"to {answer.label}"), ANSWER),
        (listed(right, runner_up.flow, f"to {runner_up.label}"), RUNNER_UP),
    )
    figure, (axes,) = _rows([photos], said, lines, GAP)
    draw_strip(axes, photos, [*left, *right], gap=GAP)
    return figure


def draw_pairs(a: Scene, b: Scene, flows: Mapping[str, Flow], count: int) -> Any:
    """Draw the largest flows between two images, a row for each kind of weights.

    Args:
        a: At the left.
        b: At the right.
        flows: By the name of the weights.
        count: Flows of each plan, the largest.

    Returns:
        A ``matplotlib.figure.Figure``.
    """
    rows, numbered = [], []
    for weights, flow in flows.items():
        found = _links(flow, count, 0, 1)
        numbered.append(found)
        rows.append(
            [
                Photo(a.picture, f"{NAMES[weights]}: similarity {flow.similarity:.3f}\n{a.name}", a.boxes, flow.s),
                Photo(
                    b.picture,
                    f"{len(found)} largest flows: {shown_mass(found)} of it\n{b.name}",
                    b.boxes,
                    flow.d,
                ),
            ]
        )
    said = f"The mass of {a.name} finds its like in {b.name} at similarity {_found(flows)}"
    lines = [(listed(found, flow, NAMES[w]), INK) for found, (w, flow) in zip(numbered, flows.items(), strict=True)]
    figure, places = _rows(rows, said, lines, PAIR_GAP)
    for axes, photos, found in zip(places, rows, numbered, strict=True):
        draw_strip(axes, photos, found, gap=PAIR_GAP)
    return figure


def _found(flows: Mapping[str, Flow]) -> str:
    """Name the similarities under each kind of weights."""
    return " and ".join(f"{flow.similarity:.2f} by {NAMES[weights]}" for weights, flow in flows.items())


def _links(flow: Flow, count: int, start: int, end: int, first: int = 1, **style: Any) -> list[Link]:
    """Number the largest flows from the photo at one place of a row to that at another, from ``first``."""
    found = largest(flow.plan, flow.sim, count)
    return [Link(first + k, (start, i), (end, j), mass, **style) for k, (i, j, mass) in enumerate(found)]


def listed(found: Sequence[Link], flow: Flow, where: str) -> str:
    """Say how much mass the numbered flows carry, each and together, and at which similarity."""
    each = ",  ".join(
        f"{one.number}: {100 * one.mass:.1f} at {flow.sim[one.start[1], one.end[1]]:.2f}" for one in found
    )
    return f"{where}, together {shown_mass(found)}:  {each}"


def shown_mass(found: Sequence[Link]) -> str:
    """Say what share of all mass some flows carry."""
    return f"{100 * sum(one.mass for one in found):.0f} %"


def repaint(a: Scene, b: Scene, plan: Floats, *, best: bool = False) -> npt.NDArray[np.float32]:
    """Paint each node's part of ``a`` with the parts of ``b`` that flow into it (Figure 6 of the DeepEMD paper).

    Args:
        a: What is rebuilt.
        b: What it is rebuilt from.
        plan: (nodes of a, nodes of b).
        best: Take the part with the largest flow alone, as the paper does, instead of all parts weighted by the flow.

    Returns:
        (height, width, 3) float32 in [0, 1]; where boxes overlap, their mean.
    """
    total = np.zeros(a.picture.shape, np.float64)
    count = np.zeros(a.picture.shape[:2])
    sources = [part.astype(np.float32) / 255 for part in _parts(b)]
    for (x0, y0, x1, y1), row in zip(_pixels(a.boxes), plan, strict=True):
        flow = np.where(np.arange(len(row)) == row.argmax(), row, 0) if best else row
        if not flow.sum() > 0:
            continue
        for j in np.flatnonzero(flow):
            part = cv2.resize(sources[j], (int(x1 - x0), int(y1 - y0)), interpolation=cv2.INTER_AREA)
            total[y0:y1, x0:x1] += flow[j] / flow.sum() * part
        count[y0:y1, x0:x1] += 1
    return (total / np.maximum(count, 1)[..., None]).astype(np.float32)


def draw_reconstructions(a: Scene, b: Scene, flows: Mapping[str, Flow]) -> Any:
    """Figure 6: both images, and the first rebuilt from the second under each kind of weights.

    Returns:
        A ``matplotlib.figure.Figure``.
    """
    rows = []
    for weights, flow in flows.items():
        rebuilt = (_eight_bits(repaint(a, b, flow.plan, best=best)) for best in (True, False))
        rows.append(
            [
                Photo(a.picture, f"{a.name}\n{NAMES[weights]}", a.boxes, flow.s),
                Photo(b.picture, f"{b.name}\n{NAMES[weights]}", b.boxes, flow.d),
                Photo(next(rebuilt), "rebuilt, largest flow\neach cell by one cell", a.boxes, flow.s),
                Photo(next(rebuilt), "rebuilt, whole plan\nflows mixed by mass", a.boxes, flow.s),
            ]
        )
    said = f"{a.name} rebuilt from the cells of {b.name} that its mass moves to: similarity {_found(flows)}"
    figure, places = _rows(rows, said, (), 0.06)
    for axes, photos in zip(places, rows, strict=True):
        draw_strip(axes, photos, [], gap=0.06, size=8.5)
    return figure


def order(plan: Floats, s: Floats, d: Floats, count: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Choose the cells of the matrix: rows by weight, columns by where their mass comes from, so that it lies diagonal.

    Args:
        plan: (n, m).
        s: (n,) weights of the rows.
        d: (m,) weights of the columns.
        count: At most so many of each, the heaviest.

    Returns:
        Rows, the heaviest first, and columns, by the mean place of the rows that their mass comes from.
    """
    rows = np.argsort(-s, kind="stable")[:count]
    columns = np.argsort(-d, kind="stable")[:count]
    part = plan[rows][:, columns]
    place = (part * np.arange(len(rows))[:, None]).sum(0) / np.maximum(part.sum(0), 1e-12)
    # Columns that get nothing from these rows stand last.
    place = np.where(part.sum(0) > 0, place, len(rows))
    return rows, columns[np.argsort(place, kind="stable")]


def with_rest(plan: Floats, rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]) -> Floats:
    """Take some rows and columns of a plan, and add up what is left over into one more of each; the total stays."""
    across = np.concatenate([plan[rows], np.delete(plan, rows, 0).sum(0, keepdims=True)])
    return np.concatenate([across[:, columns], np.delete(across, columns, 1).sum(1, keepdims=True)], 1)


def draw_matrix(a: Scene, b: Scene, flow: Flow) -> Any:
    """Figure 7: the plan as a matrix, whose rows and columns are named by the parts of the images that they stand for.

    Returns:
        A ``matplotlib.figure.Figure``.
    """
    rows, columns = order(flow.plan, flow.s, flow.d, SHOWN)
    shown = 100 * with_rest(flow.plan, rows, columns)
    inner = shown[:-1, :-1]
    said = (
        f"{100 * flow.plan[rows][:, columns].sum():.0f} % of the mass of {a.name} moves between its {len(rows)} "
        f"heaviest cells and the {len(columns)} heaviest of {b.name}"
    )
    told = f"Rows: cells of {a.name}, the heaviest first. Columns: of {b.name}, by where their mass comes from."
    head = headline_height(said, told)
    figure = blank((WIDTH, head + 8.6))
    top = headline(figure, said, told)
    axes = add_axes(figure, 1.6, top + 1.0, 6.4, 6.4)
    scale = add_axes(figure, 1.6, top + 7.6, 6.4, 0.15)
    # What is left over is no cell, and has no colour.
    image = axes.imshow(np.pad(inner, ((0, 1), (0, 1)), constant_values=np.nan), cmap="Blues", vmin=0)
    for (i, j), value in np.ndenumerate(shown):
        if value >= 0.05:
            dark = max(i, j) < SHOWN and value > 0.6 * inner.max()
            axes.text(j, i, f"{value:.1f}", ha="center", va="center", fontsize=10, color="white" if dark else INK)
    _named(axes, a, rows, shown.sum(1), down=True)
    _named(axes, b, columns, shown.sum(0), down=False)
    axes.set_xticks(np.arange(-0.5, shown.shape[1]), minor=True)
    axes.set_yticks(np.arange(-0.5, shown.shape[0]), minor=True)
    axes.grid(which="minor", color="0.85", linewidth=0.6)
    axes.axhline(len(rows) - 0.5, color=INK, linewidth=1)
    axes.axvline(len(columns) - 0.5, color=INK, linewidth=1)
    axes.tick_params(which="both", length=0, labelbottom=False, labelleft=False)
    bar = figure.colorbar(image, cax=scale, orientation="horizontal")
    bar.set_label("% of all mass that moves from the row's cell to the column's")
    return figure


def region(box: npt.NDArray[np.float64], size: tuple[int, ...]) -> str:
    """Name the ninth of a picture that the middle of a box lies in: two words, such as "top left"."""
    x, y = (box[0] + box[2]) / 2 / size[1], (box[1] + box[3]) / 2 / size[0]
    rows, columns = ("top", "middle", "bottom"), ("left", "centre", "right")
    return f"{rows[min(2, int(3 * y))]} {columns[min(2, int(3 * x))]}"


def _named(axes: Any, scene: Scene, chosen: npt.NDArray[np.int64], totals: Floats, *, down: bool) -> None:
    """Put the parts of an image beside the rows of a matrix, or above its columns, each with its place and total."""
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage

    parts = _parts(scene)
    for k, total in enumerate(totals):
        place, shift = ((-0.5, k), (-42, 0)) if down else ((k, -0.5), (0, 42))
        text = "all others"
        if k < len(chosen):
            text = region(scene.boxes[chosen[k]], scene.picture.shape)
            part = OffsetImage(cv2.resize(parts[chosen[k]], (64, 64), interpolation=cv2.INTER_AREA), zoom=0.5)
            near = (-20, 0) if down else (0, 20)
            axes.add_artist(AnnotationBbox(part, place, xybox=near, boxcoords="offset points", frameon=False))
        axes.annotate(f"{text}\n{total:.1f} %" if down else f"{text.replace(' ', chr(10))}\n{total:.1f} %", place,
                      xytext=shift, textcoords="offset points", ha="right" if down else "center",
                      va="center" if down else "bottom", fontsize=9, color=INK, annotation_clip=False)  # fmt: skip


def _labelled(one: Candidate, which: str) -> Photo:
    title = f"{one.label}\n{which}, similarity {one.flow.similarity:.3f}"
    return Photo(one.scene.picture, title, one.scene.boxes, one.flow.d)


def _rows(
    rows: Sequence[Sequence[Photo]], title: str, lines: Sequence[tuple[str, str]], gap: float
) -> tuple[Any, list[Any]]:
    """Make a figure with axes for rows of photos, a title above, and below lines, each with its colour, and the key."""
    heights = [WIDTH / strip_width(photos, gap) for photos in rows]
    key = f"{_LINE}{_BAR}" if lines else _BAR
    below = [(part, colour) for line, colour in lines for part in wrapped(line, WIDTH, TEXT)]
    head, step = headline_height(title, key), 1.5 * TEXT / 72
    figure = blank((WIDTH, head + sum(heights) + _HEAD * len(rows) + step * len(below) + 0.1))
    top = headline(figure, title, key)
    places = []
    for high in heights:
        places.append(add_axes(figure, 0.0, top + _HEAD, WIDTH, high))
        top += _HEAD + high
    height = figure.get_size_inches()[1]
    for k, (line, colour) in enumerate(below):
        figure.text(0.0, 1 - (top + 0.08 + step * k) / height, caption(line), fontsize=TEXT, color=colour, va="top")
    return figure, places


def _parts(scene: Scene) -> list[Any]:
    """Cut out what each node stands for."""
    return [scene.picture[y0:y1, x0:x1] for x0, y0, x1, y1 in _pixels(scene.boxes)]


def _pixels(boxes: Boxes) -> npt.NDArray[np.int64]:
    """Round boxes to whole pixels, at least one each way."""
    whole = np.rint(boxes).astype(np.int64)
    whole[:, 2:] = np.maximum(whole[:, 2:], whole[:, :2] + 1)
    return whole


def _eight_bits(picture: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    return np.rint(255 * np.clip(picture, 0, 1)).astype(np.uint8)

"""Transport plans as pictures: lines between the nodes, the full flow of every node, an image rebuilt from another."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from otfew.data.base import Image
from otfew.experiments.show_flows.scenes import Scene
from otfew.nodes.boxes import Boxes
from otfew.reporting.canvas import COLOURS, make_figure, to_png

Floats = npt.NDArray[np.float64]
DIM = 0.25
"""Brightness of a node without weight."""
INSET_DIM = 0.45
"""Brightness of the inset of a node without weight."""
LEAST_SIDE = 240
"""Small pictures are enlarged to this height, pixels."""


@dataclass(frozen=True)
class Flow:
    """A plan between two scenes.

    Attributes:
        plan: (nodes of a, nodes of b), total 1.
        s: (nodes of a,) weights.
        d: (nodes of b,) weights.
        similarity: sum_ij plan_ij sim_ij.
    """

    plan: Floats
    s: Floats
    d: Floats
    similarity: float


def shade(picture: Image, boxes: Boxes, values: Floats) -> npt.NDArray[np.float32]:
    """Darken a picture where its nodes count little.

    A pixel's brightness is the mean of the values of the boxes that it lies in, relative to the largest such mean.

    Returns:
        (height, width, 3) float32 in [0, 1].
    """
    total, count = np.zeros(picture.shape[:2]), np.zeros(picture.shape[:2])
    for (x0, y0, x1, y1), value in zip(_pixels(boxes), values, strict=True):
        total[y0:y1, x0:x1] += value
        count[y0:y1, x0:x1] += 1
    mean = total / np.maximum(count, 1)
    light = DIM + (1 - DIM) * mean / max(mean.max(), 1e-12)
    return np.asarray(picture / 255 * light[..., None], np.float32)


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
    sources = [b.picture[y0:y1, x0:x1].astype(np.float32) / 255 for x0, y0, x1, y1 in _pixels(b.boxes)]
    for (x0, y0, x1, y1), row in zip(_pixels(a.boxes), plan, strict=True):
        flow = np.where(np.arange(len(row)) == row.argmax(), row, 0) if best else row
        if not flow.sum() > 0:
            continue
        for j in np.flatnonzero(flow):
            part = cv2.resize(sources[j], (int(x1 - x0), int(y1 - y0)), interpolation=cv2.INTER_AREA)
            total[y0:y1, x0:x1] += flow[j] / flow.sum() * part
        count[y0:y1, x0:x1] += 1
    return (total / np.maximum(count, 1)[..., None]).astype(np.float32)


def draw_reconstructions(a: Scene, b: Scene, flows: Mapping[str, Flow]) -> bytes:
    """Figure 6: both pictures, and ``a`` rebuilt from ``b`` under each kind of weights, darkened by the weights."""
    figure, panels = make_figure(len(flows), 4, (13, 3.5 * len(flows)))
    for axes, (weights, flow) in zip(panels, flows.items(), strict=True):
        shown = {
            f"A, shaded by {weights} weights": shade(a.picture, a.boxes, flow.s),
            "B, likewise": shade(b.picture, b.boxes, flow.d),
            "A from B, by the plan": _lit(repaint(a, b, flow.plan), a, flow),
            "A from B, largest flow only": _lit(repaint(a, b, flow.plan, best=True), a, flow),
        }
        for place, (title, picture) in zip(axes, shown.items(), strict=True):
            _show(place, picture, title)
    return to_png(figure, dpi=90)


def draw_lines(a: Scene, b: Scene, flows: Mapping[str, Flow]) -> bytes:
    """Draw the flows as lines between the nodes of the two pictures side by side; discs are the weights."""
    from matplotlib.patches import FancyArrowPatch

    figure, panels = make_figure(len(flows), 1, (9, 4.4 * len(flows)))
    height = max(LEAST_SIDE, a.picture.shape[0], b.picture.shape[0])
    for (axes,), (weights, flow) in zip(panels, flows.items(), strict=True):
        left, left_scale = _fit(shade(a.picture, a.boxes, flow.s), height)
        right, right_scale = _fit(shade(b.picture, b.boxes, flow.d), height)
        gap = np.ones((height, height // 3, 3), np.float32)
        axes.imshow(np.concatenate([left, gap, right], 1), interpolation="nearest")
        offset = left.shape[1] + gap.shape[1]
        starts = _centres(a.boxes) * left_scale
        ends = _centres(b.boxes) * right_scale + [offset, 0]
        most = flow.plan.max()
        for i, j in zip(*np.nonzero(flow.plan > 0.01 * most), strict=True):
            share = flow.plan[i, j] / most
            # Bent and coloured by query node, so that lines along a row of nodes can be told apart.
            line = FancyArrowPatch(
                starts[i],
                ends[j],
                arrowstyle="-",
                connectionstyle=f"arc3,rad={0.06 + 0.05 * (i % 3):.2f}",
                color=COLOURS[i % len(COLOURS)],
                linewidth=0.4 + 2.6 * share,
                alpha=0.3 + 0.65 * share,
            )
            axes.add_patch(line)
        for points, weight in ((starts, flow.s), (ends, flow.d)):
            axes.scatter(*points.T, s=140 * weight / weight.max(), color="white", edgecolors="black", linewidths=0.6,
                         zorder=3)  # fmt: skip
        axes.set_title(f"{weights} weights: similarity {flow.similarity:.3f}", fontsize=10)
        axes.set_axis_off()
    return to_png(figure, dpi=90)


def draw_full_flows(a: Scene, b: Scene, flow: Flow) -> bytes:
    """Figure 7: for every node of ``a``, in its place, ``b`` lit where the node's mass goes.

    An inset is as bright as its node has weight, relative to the largest.
    """
    rows, columns = a.grid or _nearly_square(len(a.nodes))
    figure, _ = make_figure(1, 1, (5 + 1.3 * columns, max(5.0, 1.3 * rows)))
    figure.clear()
    pair, insets = figure.add_gridspec(1, 2, width_ratios=(3.4, 1.3 * columns), wspace=0.05)
    pair, insets = pair.subgridspec(2, 1, hspace=0.15), insets.subgridspec(rows, columns, wspace=0.05, hspace=0.05)
    _show(figure.add_subplot(pair[0]), shade(a.picture, a.boxes, flow.s), "A, shaded by its weights")
    _show(figure.add_subplot(pair[1]), shade(b.picture, b.boxes, flow.d), "B, likewise")
    for i, row in enumerate(flow.plan):
        light = INSET_DIM + (1 - INSET_DIM) * flow.s[i] / flow.s.max()
        inset = light * shade(b.picture, b.boxes, row / max(row.max(), 1e-12))
        _show(figure.add_subplot(insets[i // columns, i % columns]), inset, "")
    return to_png(figure, dpi=90)


def _lit(picture: npt.NDArray[np.float32], a: Scene, flow: Flow) -> npt.NDArray[np.float32]:
    """Darken a rebuilt picture by the weights of what was rebuilt."""
    return shade((255 * picture).round().astype(np.uint8), a.boxes, flow.s)


def _fit(picture: npt.NDArray[np.float32], height: int) -> tuple[npt.NDArray[np.float32], float]:
    """Enlarge a picture to a height; also return the factor."""
    factor = height / picture.shape[0]
    width = max(1, round(picture.shape[1] * factor))
    enlarged = cv2.resize(picture, (width, height), interpolation=cv2.INTER_NEAREST)
    return np.asarray(enlarged, np.float32), factor


def _centres(boxes: Boxes) -> Floats:
    """Find the middles of boxes: (n, 2) x and y."""
    return (boxes[:, :2] + boxes[:, 2:]) / 2


def _pixels(boxes: Boxes) -> npt.NDArray[np.int64]:
    """Round boxes to whole pixels, at least one each way."""
    whole = np.rint(boxes).astype(np.int64)
    whole[:, 2:] = np.maximum(whole[:, 2:], whole[:, :2] + 1)
    return whole


def _nearly_square(count: int) -> tuple[int, int]:
    """Choose rows and columns for so many insets."""
    columns = math.ceil(math.sqrt(count))
    return math.ceil(count / columns), columns


def _show(axes: Any, picture: npt.NDArray[np.float32], title: str) -> None:
    """Put a picture up."""
    axes.imshow(np.clip(picture, 0, 1), interpolation="nearest")
    axes.set_title(title, fontsize=9)
    axes.set_axis_off()

"""The two halves of an SGD step of the structured FC around the transport solver, compiled by numba.

Shapes: E episodes, W classes, N nodes a class, B support images in the mini-batch, M nodes an image, L = all nodes of
all support images. A row r = w * N + j is node j of class w.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from otfew.transport.jit import jit

Array = npt.NDArray[np.floating]

_REORDER = {"nsz", "reassoc", "contract"}


class Support(NamedTuple):
    """What stays as it is; floats in the support's dtype.

    Attributes:
        gram: (E, L, L) products of the support's centred unit nodes.
        length: (E, L) norms of its centred nodes.
        mean: (E, L) means of its nodes over channels.
        channels: () how many.
    """

    gram: Array
    length: Array
    mean: Array
    channels: float


class Nodes(NamedTuple):
    """The fitted nodes, and by what each moved last ("step"), without a vector of channels.

    A node is v + mean * 1 with v = own * v_0 + sum_l share_l u_l, for u_l the support's centred unit nodes: gradients
    of cosines stay in this span.

    Attributes:
        dots: (E, W * N, L) products of v with u_l.
        dots_step: (E, W * N, L) products of v's step with u_l.
        share: (E, W * N, L).
        share_step: (E, W * N, L).
        own: (2, E, W * N) float64: own, its step.
        mean: (2, E, W * N) float64: mean, its step.
        square: (3, E, W * N) float64: v . v, v . step, step . step.
    """

    dots: Array
    dots_step: Array
    share: Array
    share_step: Array
    own: Array
    mean: Array
    square: Array


class Problems(NamedTuple):
    """The transport problems of a mini-batch; rows are the class's nodes, columns the image's.

    Attributes:
        cost: (E, B, W, N, M) in the support's dtype.
        d: (E, B, W, N) float64 weights of the class's nodes.
        s: (E, B, W, M) float64 weights of the image's nodes.
        d_slope: (E, B, W, N) float64 derivative of d before normalisation, over its total.
        s_slope: (E, B, W, M) float64, likewise.
    """

    cost: Array
    d: Array
    s: Array
    d_slope: Array
    s_slope: Array


@njit(error_model="numpy")
def _normalise(weights, slopes, eps):
    """Turn raw products into weights relu(x) + eps of total 1, in place, and write [x > 0] / total."""
    total = 0.0
    for k in range(len(weights)):
        positive = weights[k] > 0.0
        slopes[k] = 1.0 if positive else 0.0
        weights[k] = (weights[k] if positive else 0.0) + eps
        total += weights[k]
    for k in range(len(weights)):
        weights[k] /= total
        slopes[k] /= total


@jit(nogil=True, fastmath=_REORDER, error_model="numpy")
def pose(first, last, chosen, support, nodes, least, eps, problems):
    """Write the problems of episodes first..last-1.

    Args:
        first: First episode.
        last: One after the last episode.
        chosen: (B,) int64, the images of the mini-batch.
        support: See ``Support``.
        nodes: See ``Nodes``.
        least: Norm below which a node counts as having this one.
        eps: What is added to each weight.
        problems: Out.
    """
    _, _, way, n, m = problems.cost.shape
    for e in range(first, last):
        for b in range(len(chosen)):
            start = chosen[b] * m
            average = 0.0
            for i in range(m):
                average += support.mean[e, start + i]
            average *= support.channels / m
            for w in range(way):
                d, s = problems.d[e, b, w], problems.s[e, b, w]
                class_mean = 0.0
                for i in range(m):
                    s[i] = 0.0
                for j in range(n):
                    row = w * n + j
                    dots = nodes.dots[e, row, start : start + m]
                    cost = problems.cost[e, b, w, j]
                    scale = dots.dtype.type(1.0 / max(np.sqrt(max(nodes.square[0, e, row], 0.0)), least))
                    raw = 0.0
                    for i in range(m):
                        cost[i] = dots.dtype.type(1.0) - dots[i] * scale
                        raw += dots[i] * support.length[e, start + i]
                        s[i] += dots[i]
                    d[j] = raw / m + average * nodes.mean[0, e, row]
                    class_mean += nodes.mean[0, e, row]
                class_mean *= support.channels
                for i in range(m):
                    s[i] = (s[i] * support.length[e, start + i] + class_mean * support.mean[e, start + i]) / n
                _normalise(d, problems.d_slope[e, b, w], eps)
                _normalise(s, problems.s_slope[e, b, w], eps)


@njit(fastmath=_REORDER, error_model="numpy")
def _combine(gram, columns, values, count, out):
    """Write the sum of values[k] * gram[columns[k]], four rows at a time."""
    out[:] = 0
    whole = count // 4 * 4
    for k in range(0, whole, 4):
        g0, g1, g2, g3 = values[k], values[k + 1], values[k + 2], values[k + 3]
        r0, r1, r2, r3 = gram[columns[k]], gram[columns[k + 1]], gram[columns[k + 2]], gram[columns[k + 3]]
        for x in range(len(out)):
            out[x] += (g0 * r0[x] + g1 * r1[x]) + (g2 * r2[x] + g3 * r3[x])
    for k in range(whole, count):
        g0, r0 = values[k], gram[columns[k]]
        for x in range(len(out)):
            out[x] += g0 * r0[x]


@njit(error_model="numpy")
def _arcs(e, row, chosen, support, dots, plan, pull, by_class, by_image, weighted, scale, values, columns):
    """List what pulls a row: its gradient is sum_k values[k] * u_columns[k] - along * v.

    Returns:
        How many there are, along, and the gradient in the row's mean.
    """
    n, m = plan.shape[3:]
    w, j = row // n, row % n
    count = 0
    along = 0.0
    mean_gradient = 0.0
    for b in range(len(chosen)):
        start = chosen[b] * m
        slope = pull[e, b, w] * scale
        for i in range(m):
            value = slope * plan[e, b, w, j, i]
            along += value * dots[start + i]
            if weighted:
                raw = by_class[e, b, w, j] / m + by_image[e, b, w, i] / n
                value += raw * support.length[e, start + i]
                mean_gradient += raw * support.mean[e, start + i]
            if value != 0.0:
                values[count] = value
                columns[count] = start + i
                count += 1
    return count, along * scale * scale, mean_gradient


@jit(nogil=True, fastmath=_REORDER, error_model="numpy")
def move(first, last, chosen, support, plan, pull, by_class, by_image, weighted, least, lr, keep, take, nodes):
    """Move rows first..last-1, counted over episodes and rows, by SGD with momentum.

    The loss has slope pull * plan in the similarities, which are v . u_l / |v|, and by_class and by_image in the
    weights before they are normalised. A node without direction (norm up to ``least``) has no gradient in them.

    Args:
        first: First row.
        last: One after the last row.
        chosen: (B,) int64, the images of the mini-batch.
        support: See ``Support``.
        plan: (E, B, W, N, M) in the support's dtype.
        pull: (E, B, W) float64 slope of the loss in the score.
        by_class: (E, B, W, N) float64 slope in the class's raw weights.
        by_image: (E, B, W, M) float64 slope in the image's raw weights.
        weighted: Whether the two count.
        least: See above.
        lr: Step size.
        keep: Factor of the previous step.
        take: Factor of the gradient.
        nodes: Changed in place.
    """
    rows, size = nodes.dots.shape[1:]
    kind = nodes.dots.dtype.type
    most = len(chosen) * plan.shape[4]
    values, columns = np.empty(most, nodes.dots.dtype), np.empty(most, np.int64)
    gradient = np.empty(size, nodes.dots.dtype)
    for unit in range(first, last):
        e, row = unit // rows, unit % rows
        dots, dots_step = nodes.dots[e, row], nodes.dots_step[e, row]
        share, share_step = nodes.share[e, row], nodes.share_step[e, row]
        square, cross, step_square = nodes.square[0, e, row], nodes.square[1, e, row], nodes.square[2, e, row]
        scale = 1.0 / np.sqrt(square) if square > least * least else 0.0
        count, along, mean_gradient = _arcs(
            e, row, chosen, support, dots, plan, pull, by_class, by_image, weighted, scale, values, columns
        )
        _combine(support.gram[e], columns, values, count, gradient)
        with_node, with_step, with_self = 0.0, 0.0, 0.0
        for k in range(count):
            with_node += values[k] * dots[columns[k]]
            with_step += values[k] * dots_step[columns[k]]
            with_self += values[k] * gradient[columns[k]]
        with_self += along * (along * square - 2.0 * with_node)
        with_node -= along * square
        with_step -= along * cross
        cross = keep * cross + take * with_node
        step_square = keep * keep * step_square + 2.0 * keep * take * with_step + take * take * with_self
        nodes.square[0, e, row] = square - 2.0 * lr * cross + lr * lr * step_square
        nodes.square[1, e, row] = cross - lr * step_square
        nodes.square[2, e, row] = step_square

        nodes.own[1, e, row] = keep * nodes.own[1, e, row] - take * along * nodes.own[0, e, row]
        nodes.own[0, e, row] -= lr * nodes.own[1, e, row]
        nodes.mean[1, e, row] = keep * nodes.mean[1, e, row] + take * mean_gradient
        nodes.mean[0, e, row] -= lr * nodes.mean[1, e, row]
        kept, taken, shrunk, rate = kind(keep), kind(take), kind(take * along), kind(lr)
        for x in range(size):
            dots_step[x] = kept * dots_step[x] + taken * gradient[x] - shrunk * dots[x]
            dots[x] -= rate * dots_step[x]
            share_step[x] = kept * share_step[x] - shrunk * share[x]
            share[x] -= rate * share_step[x]
        for k in range(count):
            share_step[columns[k]] += taken * values[k]
            share[columns[k]] -= rate * taken * values[k]

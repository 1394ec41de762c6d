"""The structured FC's SGD with its gradient by hand, on the CPU, in products of nodes instead of their channels."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from otfew.scores.pairwise import NORM_EPS, WEIGHT_EPS
from otfew.transport import Exact, Solver, solve
from otfew.transport.compilation import announced
from otfew.transport.threads import share_out

if TYPE_CHECKING:
    from otfew.methods._sfc_kernel import Nodes, Problems, Support

Array = npt.NDArray[Any]

_BYTES = 8 << 20
"""About how much the episodes that are fitted in step may take: what exceeds the cache waits for memory."""


def descend(
    items: Tensor,
    labels: Tensor,
    start: Tensor,
    batches: Callable[[], Iterable[Array]],
    *,
    solver: Solver,
    cross_reference: bool,
    weight_gradient: bool,
    temperature: float,
    lr: float,
    momentum: float,
    dampening: float,
) -> Tensor:
    """Fit each episode's class nodes to its support images.

    The gradient of a similarity v . u / (|v| |u|) in v lies in the span of u and v, and the products of all support
    nodes with each other are known before the first step. So a step updates the products of the class nodes with the
    support nodes from the few arcs of the plans; only the result is formed in channels.

    Args:
        items: (E, images, M, C) the support.
        labels: (E, images) int64.
        start: (E, W, N, C) class nodes to start from.
        batches: Makes mini-batches of image numbers, alike for all episodes.
        solver: Of dense costs.
        cross_reference: Cross-reference weights; else uniform ones.
        weight_gradient: Differentiate in the weights; ``solver`` must be exact.
        temperature: Factor of the scores.
        lr: Step size.
        momentum: Factor of the previous step.
        dampening: 1 - dampening weighs each gradient but the first.

    Returns:
        (E, W, N, C), the fitted class nodes.
    """
    width, rows = items.shape[1] * items.shape[2], start.shape[1] * start.shape[2]
    together = _BYTES // (items.element_size() * width * (width + 4 * rows))
    exact = solver if isinstance(solver, Exact) else None
    threads = (exact.threads if exact else None) or torch.get_num_threads()
    together = max(1, min(together, -(-len(items) // threads)))
    parts = [torch.split(x, together) for x in (items, labels, start)]
    # A thread for some episodes each, or all threads for the problems of a step: neither changes a bit of the answer.
    outer = min(threads, len(parts[0])) if exact else 1
    inner = 1 if outer > 1 else threads
    inside = replace(exact, threads=inner) if exact else solver

    def fit(items: Tensor, labels: Tensor, start: Tensor) -> Tensor:
        state = _Fit(items, labels, start, inside, cross_reference, weight_gradient, temperature, inner)
        for count, chosen in enumerate(batches()):
            state.update(chosen, lr, momentum if count else 0.0, 1 - dampening if count else 1.0)
        return state.result()

    if outer == 1:
        return torch.cat([fit(*part) for part in zip(*parts, strict=True)])
    pool = ThreadPoolExecutor(outer, thread_name_prefix="otfew-sfc")
    try:
        return torch.cat(list(pool.map(fit, *parts)))
    finally:
        pool.shutdown(cancel_futures=True)


class _Fit:
    """A batch of episodes on their way."""

    def __init__(
        self,
        items: Tensor,
        labels: Tensor,
        start: Tensor,
        solver: Solver,
        cross_reference: bool,
        weight_gradient: bool,
        temperature: float,
        threads: int,
    ) -> None:
        self.threads = threads
        self.way, self.n = start.shape[1:3]
        self.m = items.shape[2]
        self.solver = solver
        self.cross_reference = cross_reference
        self.weighted = cross_reference and weight_gradient
        self.temperature = temperature
        self.targets = np.eye(self.way)[labels.numpy()]
        self.items, self.start = items, start
        self.support, self.nodes = _begin(items, start)
        self.pose, self.move = _kernels(self.support.gram.dtype.str)

    def update(self, chosen: Array, lr: float, keep: float, take: float) -> None:
        """Take one step of SGD on a mini-batch."""
        episodes, rows, _ = self.nodes.dots.shape
        problems = _empty((episodes, len(chosen), self.way, self.n, self.m), self.nodes.dots.dtype)

        def pose(first: int, last: int) -> None:
            self.pose(first, last, chosen, self.support, self.nodes, NORM_EPS, WEIGHT_EPS, problems)

        share_out(pose, episodes, self.threads)
        weights = (problems.d, problems.s) if self.cross_reference else (None, None)
        found = solve(problems.cost, *weights, solver=self.solver)
        logits = self.temperature * (1 - found.value_linear)
        odds = np.exp(logits - logits.max(-1, keepdims=True))
        residuals = odds / odds.sum(-1, keepdims=True) - self.targets[:, chosen]
        pull = residuals * (self.temperature / len(chosen))
        plan = np.ascontiguousarray(found.plan, problems.cost.dtype)
        by_class, by_image = problems.d_slope, problems.s_slope
        if self.weighted:
            f, g = found.potentials
            by_class, by_image = _through(f, problems.d, by_class, pull), _through(g, problems.s, by_image, pull)

        def move(first: int, last: int) -> None:
            self.move(
                first, last, chosen, self.support, plan, pull, by_class, by_image, self.weighted, NORM_EPS,
                float(lr), keep, take, self.nodes,
            )  # fmt: skip

        share_out(move, episodes * rows, self.threads)

    def result(self) -> Tensor:
        """Form the class nodes (E, W, N, C)."""
        out = torch.empty_like(self.start)
        for e, (items, start) in enumerate(zip(self.items, self.start, strict=True)):
            units, _, _ = _centred_units(items.flatten(0, 1))
            centred = (start - start.mean(-1, keepdim=True)).flatten(0, 1)
            own, mean = (torch.from_numpy(x[0, e])[:, None].to(units) for x in (self.nodes.own, self.nodes.mean))
            fitted = own * centred + torch.from_numpy(self.nodes.share[e]) @ units + mean
            out[e] = fitted.view_as(start)
        return out


def _through(potential: Array, weights: Array, slopes: Array, pull: Array) -> Array:
    """Turn potentials into slopes of the loss in the raw weights: the value falls out of the normalisation."""
    potential = potential.astype(np.float64)
    centred = potential - (potential * weights).sum(-1, keepdims=True)
    through: Array = -pull[..., None] * centred * slopes
    return through


def _centred_units(nodes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Split nodes (L, C) into centred unit vectors, their lengths (L,) and means (L,)."""
    mean = nodes.mean(-1)
    centred = nodes - mean[:, None]
    length = torch.linalg.vector_norm(centred, dim=-1)
    return centred / length.clamp_min(NORM_EPS)[:, None], length, mean


def _begin(items: Tensor, start: Tensor) -> tuple[Support, Nodes]:
    """Compute all products; one episode at a time, so that none depends on its batch-mates."""
    from otfew.methods._sfc_kernel import Nodes, Support

    gram, lengths, means, dots, squares, node_means = [], [], [], [], [], []
    for episode, maps in zip(items, start, strict=True):
        units, length, mean = _centred_units(episode.flatten(0, 1))
        class_nodes = maps.flatten(0, 1)
        node_mean = class_nodes.mean(-1)
        centred = class_nodes - node_mean[:, None]
        gram.append(units @ units.mT)
        dots.append(centred @ units.mT)
        lengths.append(length)
        means.append(mean)
        squares.append(centred.double().square().sum(-1))
        node_means.append(node_mean.double())
    products = torch.stack(dots).numpy()
    square = torch.stack(squares).numpy()
    zero = np.zeros_like(square)
    fixed = [torch.stack(x).numpy() for x in (gram, lengths, means)]
    support = Support(fixed[0], fixed[1], fixed[2], float(items.shape[-1]))
    nodes = Nodes(
        dots=products,
        dots_step=np.zeros_like(products),
        share=np.zeros_like(products),
        share_step=np.zeros_like(products),
        own=np.stack([np.ones_like(square), zero]),
        mean=np.stack([torch.stack(node_means).numpy(), zero]),
        square=np.stack([square, zero, zero]),
    )
    return support, nodes


def _empty(shape: tuple[int, ...], dtype: npt.DTypeLike) -> Problems:
    from otfew.methods._sfc_kernel import Problems

    *front, n, m = shape
    d, d_slope = np.empty((2, *front, n))
    s, s_slope = np.empty((2, *front, m))
    return Problems(np.empty(shape, dtype), d, s, d_slope, s_slope)


@functools.cache
def _kernels(dtype: str) -> tuple[Callable[..., None], Callable[..., None]]:
    """Load the compiled halves of a step for a dtype, or compile them and say so."""
    from otfew.methods._sfc_kernel import Nodes, Support, move, pose

    two, three = np.ones((1, 1), dtype), np.ones((1, 1, 1), dtype)
    support, state = Support(three, two, two, 1.0), np.ones((3, 1, 1))
    nodes = Nodes(three, three, three, three, state, state, state)
    problems, chosen = _empty((1, 1, 1, 1, 1), dtype), np.zeros(1, np.int64)
    with announced("the fit of the structured FC"):
        pose(0, 0, chosen, support, nodes, 1.0, 1.0, problems)
        move(
            0, 0, chosen, support, problems.cost, state, problems.d, problems.s, False, 1.0, 1.0, 1.0, 1.0, nodes
        )  # fmt: skip
    return pose, move

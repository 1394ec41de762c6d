"""Sliced transport along random directions that are a pure function of a seed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from otfew.random.draws import uniform_array
from otfew.transport.options import check_count
from otfew.transport.sliced import Reduction, Sliced, sliced_along


def sliced_distance(
    x: Any,
    y: Any,
    a: Any = None,
    b: Any = None,
    *,
    p: float = 2.0,
    projections: int = 128,
    seed: int = 0,
    directions: Any = None,
    reduce: Reduction = "mean",
    validate: bool = True,
) -> Sliced:
    """Transport point clouds by their projections onto lines: exact on each, then the mean, or the largest.

    SW(x, y) = mean over unit vectors u of min <P, |<u, x_i> - <u, y_j>|^p> (Rabin et al. 2011; Bonneel et al. 2015),
    here over ``projections`` random ones, the same for all problems; with ``reduce="max"`` the largest of them, a lower
    bound of the max-sliced distance (Deshpande et al. 2019). Values are costs, the p-th powers of distances: between a
    cloud and its translate by t the mean over all directions is |t|^2 / d for p = 2.

    Args:
        x: (*batch, n, d) float32 or float64 points, torch on any device with float64, or numpy. Half precision is
            computed as float32; projections and costs are float64.
        y: (*batch, m, d) points of the same dtype and device.
        a: (*batch, n) non-negative weights of x, or None: uniform with the total of b, 1 if both are None.
        b: (*batch, m) non-negative weights of y, or None: uniform with the total of a; rescaled to the total of a.
        p: Exponent of the cost on the lines, at least 1.
        projections: How many random directions; more of them with one seed begin with the fewer ones.
        seed: Of the directions, which depend on nothing else but d.
        directions: (directions, d) vectors to project on instead, not zero; they are divided by their lengths, and
            constants for autograd. ``projections`` and ``seed`` are then not used.
        reduce: "mean" or "max".
        validate: Check what the tensors hold; turn off only for inputs known to be sound.

    Returns:
        A ``Sliced`` with ``value`` (*batch,), ``each`` (*batch, directions) and ``directions``; the first two are
        differentiable in x, y, a and b (at ties by one subgradient).

    Raises:
        ValueError: Wrong shape or dtype, NaN or infinity, a negative weight, a zero total, totals that disagree, an
            option out of range; the message names the argument and the batch index.
        RuntimeError: Under torch.vmap, torch.func or forward-mode differentiation.

    Examples:
        >>> import numpy as np
        >>> x = np.zeros((1, 2))
        >>> sliced_distance(x, x + np.array([3.0, 4.0]), directions=np.array([[0.6, 0.8], [1.0, 0.0]])).each.round(9)
        array([25.,  9.])
    """
    if directions is None:
        check_count("sliced_distance", "projections", projections)
        if not isinstance(seed, int) or isinstance(seed, bool):
            raise ValueError(f"sliced_distance: seed must be an integer, got {seed!r}")
        dim = getattr(x, "shape", (0,))[-1:]
        return sliced_along(random_directions(projections, dim[0] if dim else 0, seed), x, y, a, b, p, reduce, validate)
    return sliced_along(_unit(directions), x, y, a, b, p, reduce, validate)


def random_directions(count: int, dim: int, seed: int) -> Tensor:
    """Draw unit vectors (count, dim), uniform on the sphere, float64: a function of the seed, their place and ``dim``.

    Normal numbers come from uniform ones by Box and Muller's transform.
    """
    pairs = (dim + 1) // 2
    uniform = uniform_array(count * pairs * 2, "sliced_distance", seed, dim).reshape(count, 2, pairs)
    first, second = uniform[:, 0], uniform[:, 1]
    radius, angle = np.sqrt(-2 * np.log1p(-first)), 2 * math.pi * second
    normal = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], 1)[:, :dim]
    return torch.from_numpy(normal / np.linalg.norm(normal, axis=1, keepdims=True).clip(1e-300))


def _unit(directions: Any) -> Tensor:
    if not isinstance(directions, Tensor | np.ndarray):
        raise ValueError(f"directions must be a torch tensor or a numpy array, got {type(directions).__name__}")
    given = torch.as_tensor(directions).detach().double()
    lengths = torch.linalg.vector_norm(given, dim=-1, keepdim=True)
    if not bool(((lengths > 0) & torch.isfinite(lengths)).all()):
        raise ValueError("directions must be finite and not zero")
    unit: Tensor = given / lengths
    return unit

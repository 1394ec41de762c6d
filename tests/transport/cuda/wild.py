"""Problems near the ends of the floating range: what each solver must end with, and honestly.

Run as a program it solves all of them: ``python -m tests.transport.cuda.wild``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np

SHAPES = (
    (1, 1), (1, 5), (4, 1), (2, 2), (7, 3), (16, 16), (25, 25), (33, 40), (64, 64), (60, 7), (20, 50), (3, 130),
)  # fmt: skip
LARGEST = {"float32": float(np.finfo(np.float32).max), "float64": float(np.finfo(np.float64).max)}
LEAST = {"float32": 1e-45, "float64": 5e-324}
COSTS = ("signed", "ends", "most", "lowest", "nearly", "mixed", "one", "denormal")
WEIGHTS = ("random", "uniform", "zeros", "denormal", "largest", "least")


def costs(rng: np.random.Generator, kind: str, size: int, n: int, m: int, dtype: str) -> np.ndarray:
    """Draw finite costs whose sums, differences or products may not be."""
    top, drawn = LARGEST[dtype], rng.random((size, n, m))
    made = {
        "signed": lambda: (2 * drawn - 1) * top,
        "ends": lambda: np.where(drawn < 0.5, top, -top),
        "most": lambda: np.full_like(drawn, top),
        "lowest": lambda: np.where(drawn < 0.5, -top, 0.0),
        "nearly": lambda: drawn * (top / 64),
        "mixed": lambda: np.where(drawn < 0.3, top, drawn),
        "one": lambda: np.where(np.arange(n * m).reshape(n, m) == 0, -top, drawn),
        "denormal": lambda: np.floor(4 * drawn) * LEAST[dtype],
    }[kind]()
    return made.astype(dtype)


def weights(rng: np.random.Generator, kind: str, size: int, k: int) -> np.ndarray:
    """Draw weights (size, k) whose totals are those of their kind."""
    if kind == "uniform":
        return np.full((size, k), 1.0 / k)
    drawn = rng.random((size, k)) + 1e-3
    if kind == "zeros":
        drawn *= rng.random((size, k)) < 0.5
        drawn[:, 0] = 1.0
    elif kind == "denormal":
        drawn[:, 1:] = np.where(rng.random((size, k - 1)) < 0.7, 5e-324, drawn[:, 1:])
    drawn /= drawn.sum(-1, keepdims=True)
    return drawn * {"largest": 9e289, "least": 2e-290}.get(kind, 1.0)


def problems(size: int, shapes: tuple[tuple[int, int], ...] = SHAPES) -> Iterator[tuple[str, tuple[np.ndarray, ...]]]:
    """Run through costs of every shape and kind, with every kind of weights in turn."""
    for turn, (shape, kind, dtype) in enumerate(itertools.product(shapes, COSTS, LARGEST)):
        rng = np.random.default_rng(turn)
        mass = WEIGHTS[(turn + turn // len(WEIGHTS)) % len(WEIGHTS)]
        cost = costs(rng, kind, size, *shape, dtype)
        yield f"{shape} {kind} {mass} {dtype}", (cost, *(weights(rng, mass, size, k) for k in shape))


def prove(
    note: str, cost: np.ndarray, a: np.ndarray, b: np.ndarray, plan: np.ndarray, f: np.ndarray, g: np.ndarray
) -> None:
    """Hold a plan that is called optimal against its potentials, in units that do not overflow."""
    unit = max(float(np.abs(cost).max()), LEAST["float64"])
    cost, f, g = (x.astype(np.float64) / unit for x in (cost, f, g))
    plan, a, b = (x / x.sum() for x in (plan, a, b))
    assert np.abs(plan.sum(1) - a).max() + np.abs(plan.sum(0) - b).max() <= 1e-12, note
    assert (f[:, None] + g - cost).max() <= 1e-12, note
    assert abs(f @ a + g @ b - (plan * cost).sum()) <= 1e-9, note


def judge(note: str, cost: np.ndarray, a: np.ndarray, b: np.ndarray) -> list[int]:
    """Solve with ``Exact``; returns the statuses, of which those that say optimal are proven."""
    import otfew

    found = otfew.solve(cost.astype(np.float64), a, b, on_fail="ignore")
    if cost.dtype == np.float32:
        narrow = otfew.solve(cost, a, b, on_fail="ignore")
        assert (narrow.status == found.status).all(), note
    for k, status in enumerate(found.status.tolist()):
        assert status in {otfew.Status.OPTIMAL, otfew.Status.FAILED}, note
        if status == otfew.Status.OPTIMAL:
            assert math.isfinite(found.value[k]), note
            assert math.isfinite(found.gap[k]), note
            prove(note, cost[k], a[k], b[k], found.plan[k], *(x[k] for x in found.potentials))
    return [int(status) for status in found.status]


if __name__ == "__main__":
    import warnings

    warnings.simplefilter("error")
    print(sum(len(judge(note, *problem)) for note, problem in problems(2)), "ended")

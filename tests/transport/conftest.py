"""Oracles that share no code with the solvers, and certificates recomputed from what a solver hands back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import fsum
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st
from scipy import sparse
from scipy.optimize import linprog

Array = np.ndarray


@dataclass(frozen=True)
class Example:
    """One problem with its kind for the failure report."""

    cost: Array
    a: Array
    b: Array
    kind: str

    @property
    def mass(self) -> float:
        return float(self.a.sum())

    @property
    def spread(self) -> float:
        return float(self.cost.max() - self.cost.min())

    def tolerance(self, relative: float = 1e-9) -> float:
        """Allow ``relative * mass * range``, and the rounding of sums of costs that are large beside their range."""
        return self.mass * (relative * self.spread + 1e-14 * float(np.abs(self.cost).max()))


def _sqeuclidean(x: Array, y: Array) -> Array:
    return ((x[:, None] - y[None]) ** 2).sum(-1)


def _cost(rng: np.random.Generator, kind: str, n: int, m: int) -> Array:
    uniform = rng.random((n, m))
    if kind == "signed":
        return rng.standard_normal((n, m))
    if kind == "ties":
        return rng.integers(0, 4, (n, m)).astype(float)
    if kind == "constant":
        return np.full((n, m), rng.standard_normal())
    if kind == "huge":
        return 1e12 * uniform
    if kind == "tiny":
        return 1e-12 * uniform
    if kind == "offset":
        return 1e3 + uniform
    if kind == "points":
        return _sqeuclidean(rng.standard_normal((n, 3)), rng.standard_normal((m, 3)))
    if kind == "duplicates":
        centres = rng.standard_normal((2, 3))
        x, y = (centres[rng.integers(0, 2, k)] + 1e-9 * rng.standard_normal((k, 3)) for k in (n, m))
        return _sqeuclidean(x, y)
    if kind == "sum":
        return rng.random((n, 1)) + rng.random((1, m))
    if kind == "outlier":
        uniform[rng.integers(n), rng.integers(m)] = 1e9
        return uniform
    assert kind == "uniform"
    return uniform


COSTS = ("uniform", "signed", "ties", "constant", "huge", "tiny", "offset", "points", "duplicates", "sum", "outlier")


def _weights(rng: np.random.Generator, kind: str, k: int) -> Array:
    if kind == "uniform":
        return np.full(k, 1 / k)
    if kind == "integer":
        return rng.integers(1, 4, k).astype(float)
    if kind == "ratios":
        return 10.0 ** rng.uniform(-12, 0, k)
    if kind == "zeros":
        weights = rng.random(k) * (rng.random(k) < 0.6)
        weights[rng.integers(k)] = 1.0
        return weights
    assert kind == "random"
    return rng.random(k) + 1e-3


WEIGHTS = ("random", "uniform", "integer", "ratios", "zeros")
SIZES = st.one_of(st.integers(1, 12), st.integers(1, 12), st.integers(13, 40))


def _example(seed: int, n: int, m: int, cost: str, a: str, b: str, mass: float) -> Example:
    rng = np.random.default_rng(seed)
    weights_a, weights_b = _weights(rng, a, n), _weights(rng, b, m)
    return Example(
        _cost(rng, cost, n, m),
        weights_a * (mass / weights_a.sum()),
        weights_b * (mass / weights_b.sum()),
        f"{n}x{m} cost={cost} a={a} b={b} mass={mass} seed={seed}",
    )


@pytest.fixture(scope="session")
def examples() -> st.SearchStrategy[Example]:
    """Strategy over single problems: sizes, kinds of cost and of weights, total mass."""
    return st.builds(
        _example,
        st.integers(0, 2**20),
        SIZES,
        SIZES,
        st.sampled_from(COSTS),
        st.sampled_from(WEIGHTS),
        st.sampled_from(WEIGHTS),
        st.sampled_from((1.0, 7.5, 1e-3, 1e6)),
    )


@pytest.fixture(scope="session")
def highs() -> Callable[[Array, Array, Array], float]:
    """Optimal value by HiGHS, called directly on unit range and mass.

    One redundant sum is left out, that of the heaviest column: in place of a light one, rounding errors of the others
    would read as a contradiction.
    """

    def value(cost: Array, a: Array, b: Array) -> float:
        n, m = cost.shape
        low, mass = cost.min(), a.sum()
        spread = float(np.ptp(cost)) or 1.0
        sums = sparse.vstack(
            [sparse.kron(sparse.eye(n), np.ones((1, m))), sparse.kron(np.ones((1, n)), sparse.eye(m))]
        ).tocsr()
        kept = np.delete(np.arange(n + m), n + int(np.argmax(b)))
        tight = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
        found = linprog(
            ((cost - low) / spread).ravel(),
            A_eq=sums[kept],
            b_eq=np.concatenate([a / mass, b / b.sum()])[kept],
            method="highs-ds",
            options=tight,
        )
        assert found.status == 0, found.message
        return float(mass * (low + spread * found.fun))

    return value


@pytest.fixture(scope="session")
def prove() -> Callable[..., None]:
    """Prove one solution optimal from its plan and potentials alone, and its certificate honest."""

    def check(result: Any, example: Example, index: tuple[int, ...] = (), relative: float = 1e-9) -> None:
        cost, a, b = example.cost, example.a, example.b * (example.mass / example.b.sum())
        plan = np.asarray(result.plan)[index]
        f, g = (np.asarray(p)[index] for p in result.potentials)
        value, gap, error = (float(np.asarray(x)[index]) for x in (result.value, result.gap, result.marginal_error))
        allowed, mass, size = example.tolerance(relative), example.mass, float(np.abs(cost).max())
        note = f"{result.solver} {example.kind}"
        assert plan.shape == cost.shape
        assert (plan >= 0).all(), note
        worst = max(np.abs(plan.sum(1) - a).max(), np.abs(plan.sum(0) - b).max()) / mass
        assert worst <= 1e-9, note
        assert abs(worst - error) <= 1e-12, note
        assert abs(fsum((plan * cost).ravel()) - value) <= 1e-13 * mass * size, note
        assert (f[:, None] + g <= cost + 1e-12 * example.spread + 4e-16 * size).all(), note
        assert abs(fsum(g * b)) <= 1e-12 * mass * max(float(np.abs(g).max()), size), note
        dual = fsum(f * a) + fsum(g * b)
        assert abs(value - dual - gap) <= 1e-13 * mass * (size + float(np.abs(f).max()) + float(np.abs(g).max())), note
        # A plan that misses the weights can miss the optimum by as much, on either side.
        missed = sum(cost.shape) * worst * mass * float(np.abs(f).max() + np.abs(g).max())
        assert -(1e-13 * mass * (size + example.spread) + missed) <= gap <= allowed + missed, note

    return check


@pytest.fixture
def batch() -> Callable[..., tuple[Array, Array, Array]]:
    """Draw a batch of problems in general position: cost (size, n, m), a (size, n), b (size, m), both of one total."""

    def draw(size: int = 6, n: int = 7, m: int = 5, mass: float = 1.0, seed: int = 0) -> tuple[Array, Array, Array]:
        rng = np.random.default_rng(seed)
        cost, a, b = rng.random((size, n, m)), rng.random((size, n)) + 0.05, rng.random((size, m)) + 0.05
        return cost, a * (mass / a.sum(-1, keepdims=True)), b * (mass / b.sum(-1, keepdims=True))

    return draw

"""GeomLoss behind the interface: the same meaning as every entropic solver, whatever its own conventions."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

import otfew
from otfew.transport.backends.keops_reductions import obstacle
from otfew.transport.costs import pairwise

pytest.importorskip("geomloss")

# GeomLoss tests nothing: where reg is of the size of the costs, its one iteration per temperature is enough.
REG = 2.0


@pytest.fixture
def problem():
    """Draw point clouds in the unit cube and weights of one total, as float64 tensors."""

    def draw(size=3, n=8, m=6, mass=1.0, seed=0):
        rng = np.random.default_rng(seed)
        x, y, a, b = rng.random((size, n, 3)), rng.random((size, m, 3)), rng.random((size, n)), rng.random((size, m))
        a, b = a + 0.05, b + 0.05
        a, b = a * (mass / a.sum(-1, keepdims=True)), b * (mass / b.sum(-1, keepdims=True))
        return tuple(torch.from_numpy(z) for z in (x, y, a, b))

    return draw


def geomloss(**options):
    return otfew.GeomLoss(**{"reg": REG, "scaling": 0.95, "backend": "tensorized", **options})


@pytest.mark.parametrize("cost", ["sqeuclidean", "euclidean", "cosine"])
@pytest.mark.parametrize("mass", [1.0, 3.5])
def test_against_sinkhorn(cost, mass, problem):
    x, y, a, b = problem(mass=mass)
    found = otfew.solve_points(x, y, a, b, cost=cost, solver=geomloss())
    expected = otfew.solve(pairwise(cost, x, y), a, b, solver=otfew.POTSinkhorn(reg=REG, tol=1e-13))
    assert found.solver == "geomloss[tensorized]"
    assert (found.status == 0).all()
    torch.testing.assert_close(found.value, expected.value, rtol=1e-5, atol=0)
    torch.testing.assert_close(found.value_linear, expected.value_linear, rtol=1e-3, atol=0)
    torch.testing.assert_close(found.plan.dense(), expected.plan, rtol=0, atol=1e-3 * mass)
    for x, y in zip(found.potentials, expected.potentials, strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=5e-3)


def test_the_certificate_is_recomputed(problem):
    x, y, a, b = problem(mass=2.0)
    result = otfew.solve_points(x, y, a, b, solver=geomloss(reg=0.05), on_fail="ignore")
    plan = result.plan.dense()
    torch.testing.assert_close(plan.sum(2), a)
    torch.testing.assert_close((plan.sum(1) - b).abs().amax(-1) / 2, result.marginal_error)
    best = otfew.solve_points(x, y, a, b, solver=otfew.KeOps(reg=0.05, tol=1e-10, backend="torch")).value
    assert (best - result.value >= -1e-12).all()
    assert (best - result.value <= result.gap).all()


def test_gradients_are_not_doubled(problem):
    """Those of ``geomloss.ot`` in points are twice what they should be; these are made here."""
    inputs = tuple(z.requires_grad_() for z in problem(size=1, n=4, m=3, mass=1.5))
    loose = {"atol": 1e-3, "rtol": 1e-2}
    assert gradcheck(lambda *z: otfew.solve_points(*z, solver=geomloss(scaling=0.99)).value, inputs, **loose)
    assert gradcheck(lambda *z: otfew.solve_points(*z, solver=geomloss(scaling=0.99)).value_linear, inputs, **loose)


def test_an_answer_does_not_depend_on_batch_mates(problem):
    """GeomLoss's temperatures start at the diameter of the whole batch, so it gets one problem at a time."""
    x, y, a, b = problem()
    x[1] *= 10
    together = otfew.solve_points(x, y, a, b, solver=geomloss(), on_fail="ignore")
    alone = otfew.solve_points(x[0], y[0], a[0], b[0], solver=geomloss(), on_fail="ignore")
    torch.testing.assert_close(together.value[0], alone.value, rtol=1e-14, atol=0)


def test_what_is_not_solved_is_reported(problem):
    with pytest.warns(otfew.ConvergenceWarning, match=r"geomloss did not reach .*MAX_ITER.*scaling nearer to 1"):
        result = otfew.solve_points(*problem(), solver=geomloss(reg=0.005, scaling=0.5, tol=1e-6))
    assert (result.status == otfew.Status.MAX_ITER).all()


def test_autograd_stays_off_where_it_was_off(problem):
    """GeomLoss switches it on."""
    with torch.no_grad():
        otfew.solve_points(*problem(), solver=geomloss())
        assert not torch.is_grad_enabled()


def test_a_cost_that_geomloss_lacks(problem):
    with pytest.raises(ValueError, match="'geomloss' has no cost 'lp:3'; use solver 'keops'"):
        otfew.solve_points(*problem(), cost="lp:3", solver=geomloss())


@pytest.mark.skipif(obstacle("cpu") is not None, reason=str(obstacle("cpu")))
def test_online(problem):
    x, y, a, b = problem(size=1)
    dense = otfew.solve_points(x, y, a, b, solver=geomloss())
    online = otfew.solve_points(x, y, a, b, solver=geomloss(backend="online"))
    assert online.solver == "geomloss[online]"
    torch.testing.assert_close(online.value, dense.value, rtol=1e-9, atol=0)


@pytest.mark.parametrize("backend", ["online", "multiscale"])
def test_without_keops(backend, problem, monkeypatch):
    monkeypatch.setattr("otfew.transport.backends.geomloss.obstacle", lambda device: "KeOps is away")
    with pytest.raises(ImportError, match=f"backend '{backend}' of solver 'geomloss' cannot run: KeOps is away"):
        otfew.solve_points(*problem(), solver=geomloss(backend=backend))
    assert otfew.solve_points(*problem(), solver=geomloss(backend="auto")).solver == "geomloss[tensorized]"


def test_nothing_is_printed():
    code = """
import numpy, otfew
x = numpy.random.default_rng(0).random((5, 3))
otfew.solve_points(x, x, solver=otfew.GeomLoss(reg=2.0))
otfew.solve_points(x, x, solver=otfew.KeOps(reg=2.0, backend="torch"))
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert (ran.stdout, ran.stderr) == ("", "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reg": -1.0}, "reg must be positive"),
        ({"tol": 1.0}, "tol must be between"),
        ({"scaling": 0.0}, "scaling must be between"),
        ({"backend": "dense"}, "backend must be one of auto, tensorized, online, multiscale"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=f"^GeomLoss: {message}"):
        otfew.GeomLoss(**options)

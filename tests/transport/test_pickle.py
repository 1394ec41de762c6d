"""Results go to other processes, into files and through deepcopy: the numbers, without the graph."""

from __future__ import annotations

import copy
import io
import pickle

import numpy as np
import pytest
import torch

import otfew
from otfew.transport.registry import SOLVERS, installed, lookup

DENSE = {name: lookup(name)() for name in SOLVERS if lookup(name).input == "dense cost" and installed(lookup(name))}
DENSE |= {"rounded": otfew.Sinkhorn(round=True), "unrolled": otfew.Sinkhorn(gradient="unrolled")}
DENSE |= {"unbalanced": otfew.Sinkhorn(unbalanced=1.0), "partial": otfew.Exact(mass="min")}
POINTS = {"exact": otfew.Exact(), "sinkhorn": otfew.Sinkhorn(), "keops": otfew.KeOps(backend="torch")}
FIELDS = ["value", "value_linear", "gap", "marginal_error", "status", "n_iter"]


def saved(result):
    file = io.BytesIO()
    torch.save(result, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES = {
    "pickle": lambda result: pickle.loads(pickle.dumps(result)),
    "old pickle": lambda result: pickle.loads(pickle.dumps(result, protocol=2)),
    "twice": lambda result: pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(result)))),
    "deepcopy": copy.deepcopy,
    "torch.save": saved,
}
every_way = pytest.mark.parametrize("way", COPIES)


def alike(found, expected):
    if isinstance(expected, np.ndarray):
        assert type(found) is np.ndarray
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == expected.dtype
        return
    assert not found.requires_grad
    torch.testing.assert_close(found, expected.detach(), rtol=0, atol=0)


def check(found, expected, dense=lambda plan: plan):
    for field in FIELDS:
        alike(getattr(found, field), getattr(expected, field))
    for one, other in zip(found.potentials, expected.potentials, strict=True):
        alike(one, other)
    alike(dense(found.plan), dense(expected.plan))
    assert repr(found) == repr(expected)


@every_way
@pytest.mark.parametrize("name", DENSE)
def test_results(name, way, batch):
    cost, a, b = (torch.from_numpy(x[:4].reshape(2, 2, *x.shape[1:])).requires_grad_() for x in batch())
    result = otfew.solve(cost, a, b, solver=DENSE[name], on_fail="ignore")
    check(COPIES[way](result), result)
    # What was copied is as it was.
    result.value.sum().backward()
    assert cost.grad.abs().sum() > 0


@every_way
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("solver", ["exact", "sinkhorn"])
def test_results_of_arrays(solver, dtype, way, batch):
    result = otfew.solve(*(x.astype(dtype) for x in batch()), solver=solver)
    check(COPIES[way](result), result)
    one = otfew.solve(np.eye(2, dtype=dtype), solver=solver)
    check(COPIES[way](one), one)


@every_way
@pytest.mark.parametrize("numpy", [False, True])
@pytest.mark.parametrize("name", POINTS)
def test_results_of_points(name, numpy, way):
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.rand(2, n, 3, generator=generator).requires_grad_() for n in (5, 4))
    if numpy:
        x, y = x.detach().numpy(), y.detach().numpy()
    result = otfew.solve_points(x, y, solver=POINTS[name])
    found = COPIES[way](result)
    check(found, result, dense=lambda plan: plan.dense())
    v = np.ones(4, np.float32)[None] if numpy else torch.ones(1, 4)
    alike(found.plan @ v, result.plan @ v)
    alike(found.plan.T @ (found.plan @ v), result.plan.T @ (result.plan @ v))


@every_way
@pytest.mark.parametrize("solver", ["exact", "sinkhorn", "pot"])
def test_a_plan_out_of_range_keeps_nobody_from_the_rest(solver, way):
    if solver == "pot":
        pytest.importorskip("ot")
    a = np.full(4, 2.5e-40)
    result = otfew.solve(np.eye(4, dtype=np.float32) + 1, a, a, solver=solver)
    found = COPIES[way](result)
    for field in FIELDS:
        alike(getattr(found, field), getattr(result, field))
    for one in (result, found):
        with pytest.raises(ValueError, match=r"does not fit torch\.float32"):
            _ = one.plan


def test_sparse_plans_stay_sparse():
    """1,000 x 1,000 flows take 8 MB; their arcs take 32 kB, also the second time."""
    cost = np.random.default_rng(0).random((1000, 1000))
    result = otfew.solve(cost)
    for kept in (result, otfew.solve_points(cost[:, :2], cost[:, 2:4], solver="exact")):
        assert len(pickle.dumps(kept)) < 100_000
        assert len(pickle.dumps(pickle.loads(pickle.dumps(kept)))) < 100_000
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(result)).plan, result.plan)


def test_a_shallow_copy_keeps_the_graph(batch):
    cost = torch.from_numpy(batch()[0]).requires_grad_()
    other = copy.copy(otfew.solve(cost))
    (gradient,) = torch.autograd.grad(other.value.sum(), cost)
    alike(gradient, other.plan)


def test_files_without_code(batch):
    """``weights_only`` takes a result where its class is named."""
    file = io.BytesIO()
    result = otfew.solve(*batch())
    torch.save({"epoch": 1, "result": result, "entropic": otfew.solve(*batch(), solver="sinkhorn")}, file)
    file.seek(0)
    with torch.serialization.safe_globals([otfew.OTResult]):
        found = torch.load(file, weights_only=True)
    check(found["result"], result)
    file.seek(0)
    with pytest.raises(pickle.UnpicklingError, match="OTResult"):
        torch.load(file, weights_only=True)


def _solved(seed):
    return otfew.solve(np.random.default_rng(seed).random((5, 4)))


class _Solving(torch.utils.data.Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        return otfew.solve(torch.from_numpy(np.random.default_rng(index).random((5, 4))))


def test_results_come_back_from_other_processes():
    joblib = pytest.importorskip("joblib")
    for found, seed in zip(
        joblib.Parallel(n_jobs=2)(joblib.delayed(_solved)(seed) for seed in (0, 1)), (0, 1), strict=True
    ):
        check(found, _solved(seed))


def test_results_come_back_from_workers_of_a_loader():
    loader = torch.utils.data.DataLoader(_Solving(), batch_size=None, num_workers=1)
    for index, found in enumerate(loader):
        np.testing.assert_array_equal(found.plan.numpy(), _solved(index).plan)

"""What a type checker infers of results; read by mypy, never run."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from typing_extensions import assert_type

import otfew

Arrays = npt.NDArray[Any]


def of_tensors(cost: Tensor, a: Tensor) -> otfew.OTResult[Tensor]:
    result = otfew.solve(cost, a, dtype=torch.float32)
    assert_type(result, otfew.OTResult[Tensor])
    assert_type(result.value, Tensor)
    assert_type(result.plan, Tensor)
    assert_type(result.potentials, tuple[Tensor, Tensor])
    assert_type(result.status, Tensor)
    assert_type(result.plan_sparse.rows, Tensor)
    assert_type(result[3].gap, Tensor)
    assert_type(result.to("cpu", torch.float64).detach().cpu().n_iter, Tensor)
    assert_type([each.marginal_error for each in result], list[Tensor])
    return otfew.solve(cost, a, warm=result)


def of_arrays(cost: npt.NDArray[np.float32], a: npt.NDArray[np.float64]) -> npt.NDArray[Any]:
    result = otfew.solve(cost, a, solver="sinkhorn", dtype=np.float32)
    assert_type(result, otfew.OTResult[Arrays])
    assert_type(result.value, Arrays)
    assert_type(result.plan, Arrays)
    assert_type(result.potentials, tuple[Arrays, Arrays])
    assert_type(result[result.status != 0].value_linear, Arrays)
    _, _, mass = result.plan_sparse
    return mass


def of_points(x: Tensor, y: Tensor, v: Tensor, u: npt.NDArray[np.float64]) -> None:
    result = otfew.solve_points(x, y, solver=otfew.KeOps())
    assert_type(result.value, Tensor)
    assert_type(result.plan @ v, Tensor)
    assert_type(result.plan.T @ u, Arrays)
    assert_type(result.plan.dense(), Tensor)
    assert_type(otfew.solve_points(u, u).plan.dense(), Arrays)


def of_plans(plan: Tensor, cost: Tensor) -> None:
    assert_type(otfew.certify(plan, cost).gap, Tensor)
    assert_type(otfew.certify(plan.numpy(), cost.numpy()).potentials, tuple[Arrays, Arrays])


def of_anything(cost: Any, either: Tensor | npt.NDArray[np.float64]) -> float:
    assert_type(otfew.solve(cost).value, Any)
    total = sum(float(otfew.solve(one).value) for one in [cost])
    plain: otfew.OTResult = otfew.solve(either)
    return total + float(plain.value)

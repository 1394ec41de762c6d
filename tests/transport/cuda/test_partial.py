"""Dummies made by torch's operations are those that numpy makes for the CPU."""

from __future__ import annotations

import pytest
import torch

from otfew.transport.cuda.launches import Batch
from otfew.transport.cuda.partial import Dummies
from otfew.transport.partial import with_dummies
from otfew.transport.problem import build

GENERATOR = torch.Generator().manual_seed(0)
COST, A, B = (
    torch.rand(*shape, generator=GENERATOR, dtype=torch.float64) for shape in ((2, 3, 4, 5), (3, 4), (2, 1, 5))
)


@pytest.mark.parametrize("mass", [0.3, "min"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "cost", [COST, -COST, 0 * COST, 0 * COST + 7, COST[0, 0]], ids=["any", "negative", "zero", "constant", "shared"]
)
@pytest.mark.parametrize("sides", [(A, B), (A, None), (None, B), (None, None)], ids=["both", "rows", "columns", "none"])
def test_costs_and_weights_with_dummies(cost, dtype, sides, mass):
    batch, cost = torch.Size([2, 3]), cost.to(dtype)
    wanted, _ = with_dummies(build(cost, *sides, batch), mass)
    made = Dummies(Batch(cost, *sides, batch), mass).extended[:3]
    assert made[0].dtype == dtype
    for found, pool, index in zip(
        made, (wanted.cost, wanted.a, wanted.b), (wanted.cost_index, wanted.a_index, wanted.b_index), strict=True
    ):
        each = torch.from_numpy(pool[index]).reshape(*batch, *pool.shape[1:])
        torch.testing.assert_close(found.expand_as(each), each, rtol=1e-15, atol=1e-15)

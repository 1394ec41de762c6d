"""Forbidden pairs on a device: costs of +inf become finite ones, and what then still needs a pair goes to the CPU.

As ``otfew.transport.simplex.forbidding``, in torch's operations, but for two things: problems whose plans use forbidden
pairs, few if any, are settled on the CPU, which knows which of them are infeasible; and where forbidden pairs alone
join parts of a problem, potentials stay as the kernel found them, one subgradient of several.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from otfew.transport.arguments import flat_batch, flat_weights
from otfew.transport.cuda.launches import Batch, Found
from otfew.transport.problem import UNSURE
from otfew.transport.simplex.scales import NEAR, RESOLUTION, SAME


def filled(batch: Batch) -> Batch:
    """Put a cost a little above the others in place of +inf."""
    cost = batch.cost.detach()
    finite = cost < math.inf
    low, high = cost.amin((-2, -1), keepdim=True), cost.masked_fill(~finite, -math.inf).amax((-2, -1), keepdim=True)
    low, high = torch.where(low < math.inf, low, 0), torch.where(high > -math.inf, high, 0)
    size = torch.maximum(low.abs(), high.abs())
    size = torch.where(size > 0, size, 1)
    room = torch.maximum(NEAR * (high - low), SAME * size)
    return batch._replace(cost=torch.where(finite, cost, low + room))


def judge(found: Found, batch: Batch) -> Tensor:
    """Mark problems whose plans use forbidden pairs as ``UNSURE``, and mend potentials of nodes without mass, in place.

    Args:
        found: What was found for the costs that were filled.
        batch: The problems.

    Returns:
        Whether any is marked, one number on the device.
    """
    problems, n, m = found.shape
    a, b = flat_weights(n, m, batch.a, batch.b, batch.shape, batch.cost.device)
    cost = flat_batch(batch.cost.detach(), batch.shape, 2).double()
    tensor = found.outputs.tensor
    arcs = tensor("rows").long() * m + tensor("cols")
    astray = ((cost.reshape(problems, n * m).gather(1, arcs) == math.inf) & (tensor("flow") > 0)).any(1)
    status = tensor("status")
    status.copy_(torch.where(astray, UNSURE, status))
    f, g = found.duals()
    held_a, held_b = (w > RESOLUTION / 2 * w.sum(-1, keepdim=True) for w in (a, b))
    least = (cost - g[:, None]).masked_fill(~held_b[:, None], math.inf).amin(2)
    f.copy_(torch.where(held_a, f, torch.where(least < math.inf, least, 0)))
    least = (cost - f[:, :, None]).amin(1)
    g.copy_(torch.where(held_b, g, torch.where(least < math.inf, least, 0)))
    return astray.any()

"""Transport of only part of the mass on a device, by dummy nodes: ``otfew.transport.partial`` in torch's operations.

Nothing here waits for the device; the sums of a plan are taken densely, since adding arc by arc is not reproducible.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from otfew.transport.arguments import flat_weights
from otfew.transport.certificate import EPS
from otfew.transport.cuda.launches import Batch, Found, laid_out
from otfew.transport.cuda.machines import Machine
from otfew.transport.cuda.outputs import Loose
from otfew.transport.partial import Mass, transported
from otfew.transport.problem import TOTALS_RANGE, Status


class Dummies:
    """Problems with a dummy row and a dummy column.

    Args:
        batch: The problems.
        mass: How much to transport.
        forbids: Whether pairs are forbidden.

    Attributes:
        extended: Problems with dummies.
    """

    def __init__(self, batch: Batch, mass: Mass, forbids: bool = False) -> None:
        cost, a, b, shape = batch
        n, m = cost.shape[-2:]
        self._cost, self._shape, self._mass, self._forbids = cost.detach(), shape, mass, forbids
        self._a, self._b = flat_weights(n, m, a, b, shape, cost.device, equal_totals=False)
        self._totals = torch.stack([self._a.sum(-1), self._b.sum(-1)], -1)
        self._least = self._totals.amin(-1, keepdim=True)
        self._moved = self._least if mass == "min" else self._least.clamp(max=mass)
        kept = (self._totals - self._moved).clamp(min=0)
        self.extended = Batch(
            self._padded(),
            torch.cat([self._a, kept[:, 1:]], -1).reshape(*shape, n + 1),
            torch.cat([self._b, kept[:, :1]], -1).reshape(*shape, m + 1),
            shape,
        )

    def _padded(self) -> Tensor:
        """Costs whose dummies cost the least, but for the arc between them."""
        cost = self._cost
        low, high = cost.amin((-2, -1)), cost.amax((-2, -1))
        if self._forbids:
            high = cost.masked_fill(cost == math.inf, -math.inf).amax((-2, -1))
            low, high = (x.masked_fill(low == math.inf, 0) for x in (low, high))
        padded = torch.nn.functional.pad(cost, (0, 1, 0, 1))
        padded[..., -1, :] = low[..., None]
        padded[..., :, -1] = low[..., None]
        padded[..., -1, -1] = torch.where(high > low, high + (high - low), low + low.abs().clamp(min=1))
        return padded

    @property
    def _short(self) -> Tensor:
        """Tell which problems (problems, 1) hold less than is to be transported."""
        if self._mass == "min":
            return torch.zeros_like(self._least, dtype=torch.bool)
        return self._mass > self._least * (1 + 1e-9)

    def unsound(self, checked: bool) -> Tensor:
        """Tell, on the device, whether any problem is (one number).

        Args:
            checked: Whether costs and weights are to be looked at as ``check_values`` does, beside the mass.
        """
        bad = self._short.any()
        if not checked:
            return bad
        # Comparisons with NaN are false, and a NaN weight makes its total NaN.
        sound = torch.cat([self._a, self._b], -1).min() >= 0
        sound &= (self._least.min() >= TOTALS_RANGE[0]) & (self._totals.max() <= TOTALS_RANGE[1])
        return bad | ~(sound & torch.isfinite(self._cost.sum()))

    def complain(self) -> None:
        """Raise where a problem holds less than is to be transported.

        Raises:
            ValueError: See ``otfew.transport.partial``.
        """
        transported(self._a.cpu().numpy(), self._b.cpu().numpy(), self._mass, tuple(self._shape))

    def removed(self, machine: Machine, found: Found) -> Found:
        """Take the dummies out of what was found and certify what is left; see ``otfew.transport.partial``."""
        problems, n, m = len(self._a), *self._cost.shape[-2:]
        moved, tensor = self._moved, found.outputs.tensor
        cost = self._cost.expand(*self._shape, n, m).reshape(problems, n, m).double()
        rows, cols, flow = tensor("rows"), tensor("cols"), tensor("flow")
        real = (rows < n) & (cols < m)
        rows, cols, flow = (torch.where(real, x, 0) for x in (rows, cols, flow))
        free = cost.amin((1, 2))[:, None]
        if self._forbids:
            free = free.masked_fill(free == math.inf, 0)
        f, g = tensor("f"), tensor("g")
        level = 2 * free - f[:, n:] - g[:, m:]
        # Both sides in one piece, as many operations.
        ab = torch.cat([self._a, self._b], -1)
        fg = torch.cat([f[:, :n] + g[:, m:], g[:, :m] + f[:, n:]], -1) - free

        def paid(potentials: Tensor) -> Tensor:
            return (potentials * ab).sum(-1, keepdim=True)

        dual = paid(fg) + level * moved
        # Potentials above zero count for no more than the weights that they could be paid for.
        hidden = paid(fg.clamp(min=0)) + EPS * (n + m + 16) * (paid(fg.abs()) + level.abs() * moved)
        f, g = fg[:, :n], fg[:, n:]
        above = f + level
        hidden += _rounding(cost, self._a, self._b, above, g)
        if self._mass == "min":
            smaller = self._totals[:, :1] <= self._totals[:, 1:]
            f, g = torch.where(smaller, above, f), torch.where(smaller, g, g + level)
        outputs = {"rows": rows, "cols": cols, "flow": flow, "f": f, "g": g, "n_iter": tensor("n_iter")}
        shape, arcs = (problems, n, m), flow.shape[1]
        plan = laid_out(machine, Loose(machine, outputs), shape, cost.device, torch.float64, arcs=arcs)
        value = (plan * (cost.masked_fill(cost == math.inf, 0) if self._forbids else cost)).sum((1, 2))
        over = (torch.cat([plan.sum(2), plan.sum(1)], -1) - ab).amax(-1, keepdim=True).clamp(min=0)
        gap = value[:, None] - dual + hidden
        failed = self._short | ~torch.isfinite(gap)
        error = torch.maximum(over, (flow.sum(-1, keepdim=True) - moved).abs()) / moved
        if self._forbids:
            unserved = tensor("status")[:, None] == Status.INFEASIBLE
            outputs |= {"f": f.masked_fill(unserved, 0), "g": g.masked_fill(unserved, 0)}
            gap, error = gap.masked_fill(unserved, math.nan), error.masked_fill(unserved, math.nan)
            value = value.masked_fill(unserved[:, 0], math.inf)
            failed &= ~unserved
        outputs |= {
            "gap": gap[:, 0],
            "marginal_error": error[:, 0],
            "status": torch.where(failed[:, 0], int(Status.FAILED), tensor("status")),
        }
        rest = Found(machine, Loose(machine, outputs), value.reshape(self._shape), shape, balanced=False, arcs=arcs)
        rest.forbids = found.forbids
        rest.cut = None if found.cut is None else (found.cut[0][:, :n], found.cut[1][:, :m])
        return rest


def _rounding(cost: Tensor, a: Tensor, b: Tensor, f: Tensor, g: Tensor) -> Tensor:
    """Bound what the dual value may hide (problems, 1); see ``otfew.transport.certificate.rounding``."""
    over = (f[:, :, None] + g[:, None] - cost).masked_fill((b <= 0)[:, None], 0).amax(-1).clamp(min=0)
    terms = min(max(cost.shape[-2:]), 48) + 8
    size = (f.abs() * a).sum(-1, keepdim=True) + (g.abs() * b).sum(-1, keepdim=True)
    return (over * a).sum(-1, keepdim=True) + EPS * terms * size

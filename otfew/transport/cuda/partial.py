"""Transport of only part of the mass on a device, by dummy nodes: ``otfew.transport.partial`` in torch's operations.

Nothing here waits for the device; the sums of a plan are taken densely, since adding arc by arc is not reproducible.
"""

from __future__ import annotations

import torch
from torch import Tensor

from otfew.transport.arguments import flat_weights
from otfew.transport.certificate import EPS
from otfew.transport.cuda.launches import Found, laid_out
from otfew.transport.cuda.machines import Machine
from otfew.transport.cuda.outputs import Loose
from otfew.transport.partial import Mass, transported
from otfew.transport.problem import TOTALS_RANGE, Status


class Dummies:
    """Problems with a dummy row and a dummy column.

    Args:
        cost: (*batch, n, m), or what broadcasts to it.
        a: (*batch, n) float64 on its device, likewise, or None.
        b: (*batch, m), likewise, or None.
        batch: Its shape.
        mass: How much to transport.

    Attributes:
        extended: Costs, a and b with dummies, which broadcast to the batch.
    """

    def __init__(self, cost: Tensor, a: Tensor | None, b: Tensor | None, batch: torch.Size, mass: Mass) -> None:
        n, m = cost.shape[-2:]
        self._cost, self._batch, self._mass = cost.detach(), batch, mass
        self._a, self._b = flat_weights(n, m, a, b, batch, cost.device, equal_totals=False)
        totals = self._a.sum(-1), self._b.sum(-1)
        self._totals = totals
        self._least = torch.minimum(*totals)
        self._moved = self._least if mass == "min" else self._least.clamp(max=mass)
        lacking, kept = ((total - self._moved).clamp(min=0) for total in reversed(totals))
        self.extended = (
            self._padded(),
            torch.cat([self._a, lacking[:, None]], -1).reshape(*batch, n + 1),
            torch.cat([self._b, kept[:, None]], -1).reshape(*batch, m + 1),
        )

    def _padded(self) -> Tensor:
        """Costs whose dummies cost the least, but for the arc between them."""
        cost = self._cost
        low, high = cost.amin((-2, -1)), cost.amax((-2, -1))
        padded = torch.nn.functional.pad(cost, (0, 1, 0, 1))
        padded[..., -1, :] = low[..., None]
        padded[..., :, -1] = low[..., None]
        padded[..., -1, -1] = torch.where(high > low, high + (high - low), low + low.abs().clamp(min=1))
        return padded

    @property
    def _short(self) -> Tensor:
        """Tell which problems (problems,) hold less than is to be transported."""
        if self._mass == "min":
            return torch.zeros_like(self._least, dtype=torch.bool)
        return self._mass > self._least * (1 + 1e-9)

    def unsound(self, checked: bool) -> Tensor:
        """Tell, on the device, whether any problem is (1,).

        Args:
            checked: Whether costs and weights are to be looked at as ``check_values`` does, beside the mass.
        """
        bad = self._short.any()
        if checked:
            for weights, total in zip((self._a, self._b), self._totals, strict=True):
                least, largest = torch.aminmax(total)
                # Comparisons with NaN are false, and a NaN weight makes its total NaN.
                bad = bad | ~((weights.min() >= 0) & (least >= TOTALS_RANGE[0]) & (largest <= TOTALS_RANGE[1]))
            bad = bad | ~torch.isfinite(self._cost.sum())
        return bad.reshape(1)

    def complain(self) -> None:
        """Raise where a problem holds less than is to be transported.

        Raises:
            ValueError: See ``otfew.transport.partial``.
        """
        transported(self._a.cpu().numpy(), self._b.cpu().numpy(), self._mass, tuple(self._batch))

    def removed(self, machine: Machine, found: Found) -> Found:
        """Take the dummies out of what was found and certify what is left; see ``otfew.transport.partial``."""
        problems, n, m = len(self._a), *self._cost.shape[-2:]
        a, b, moved, tensor = self._a, self._b, self._moved, found.outputs.tensor
        cost = self._cost.expand(*self._batch, n, m).reshape(problems, n, m).double()
        rows, cols, flow = tensor("rows"), tensor("cols"), tensor("flow")
        real = (rows < n) & (cols < m)
        rows, cols, flow = (torch.where(real, x, 0) for x in (rows, cols, flow))
        free = cost.flatten(1).amin(1, keepdim=True)
        last_f, last_g = tensor("f")[:, n:], tensor("g")[:, m:]
        f = tensor("f")[:, :n] + last_g - free
        g = tensor("g")[:, :m] + last_f - free
        level = 2 * free - last_f - last_g

        def paid(x: Tensor, y: Tensor) -> Tensor:
            return (x * a).sum(-1) + (y * b).sum(-1)

        dual = paid(f, g) + level[:, 0] * moved
        # Potentials above zero count for no more than the weights that they could be paid for.
        above = paid(f.clamp(min=0), g.clamp(min=0))
        sizes = paid(f.abs(), g.abs()) + level[:, 0].abs() * moved
        hidden = above + _rounding(cost, a, b, f + level, g) + EPS * (n + m + 16) * sizes
        if self._mass == "min":
            smaller = (self._totals[0] <= self._totals[1])[:, None]
            f, g = f + torch.where(smaller, level, 0), g + torch.where(smaller, 0, level)
        outputs = {"rows": rows, "cols": cols, "flow": flow, "f": f, "g": g, "n_iter": tensor("n_iter")}
        shape, arcs = (problems, n, m), flow.shape[1]
        plan = laid_out(machine, Loose(machine, outputs), shape, cost.device, torch.float64, arcs=arcs)
        value = (plan * cost).sum((1, 2))
        over = torch.cat([plan.sum(2) - a, plan.sum(1) - b], -1).clamp(min=0).amax(-1)
        gap = value - dual + hidden
        outputs |= {
            "gap": gap,
            "marginal_error": torch.maximum(over, (flow.sum(-1) - moved).abs()) / moved,
            "status": torch.where(self._short | ~torch.isfinite(gap), int(Status.FAILED), tensor("status")),
        }
        return Found(machine, Loose(machine, outputs), value.reshape(self._batch), shape, balanced=False, arcs=arcs)


def _rounding(cost: Tensor, a: Tensor, b: Tensor, f: Tensor, g: Tensor) -> Tensor:
    """Bound what the dual value may hide; see ``otfew.transport.certificate.rounding``."""
    over = (f[:, :, None] + g[:, None] - cost).masked_fill((b <= 0)[:, None], 0).amax(-1).clamp(min=0)
    size = (f.abs() * a).sum(-1) + (g.abs() * b).sum(-1)
    terms = min(max(cost.shape[-2:]), 48) + 8
    return (over * a).sum(-1) + EPS * terms * size

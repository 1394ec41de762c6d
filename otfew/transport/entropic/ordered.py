"""Point clouds in an order in which neighbours follow each other, and what was found for them back in the caller's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from otfew.transport.plan_operator import FlatPlan
from otfew.transport.result import Parts


def neighbours(points: npt.NDArray[np.floating], cell: int) -> npt.NDArray[np.int64]:
    """Order points (n, d) so that each ``cell`` of consecutive ones lie together: halved across their widest side."""
    order = np.arange(len(points))
    waiting = [(0, len(points))]
    while waiting:
        first, last = waiting.pop()
        size = last - first
        if size <= cell:
            continue
        here = order[first:last]
        own = points[here]
        # Whole cells on the left: only the last cell of all is not full.
        half = -(-size // (2 * cell)) * cell
        if half < size:
            order[first:last] = here[np.argpartition(own[:, np.ptp(own, 0).argmax()], half)]
            waiting += [(first, first + half), (first + half, last)]
    return order


@dataclass(frozen=True)
class Order:
    """Where the points of a flat batch of clouds stand.

    Attributes:
        forward: (problems, n), positions in the caller's clouds.
        back: (problems, n), positions in the ordered clouds.
    """

    forward: Tensor
    back: Tensor

    def sort(self, values: Tensor) -> Tensor:
        """Put values (problems, n) or (problems, n, k) into order; differentiable."""
        return _taken(values, self.forward)

    def restore(self, values: Tensor) -> Tensor:
        """Put values back into the caller's order; differentiable."""
        return _taken(values, self.back)


def order_clouds(points: Tensor, cell: int) -> Order:
    """Order every cloud of a flat batch (problems, n, d) by itself."""
    clouds = points.detach().numpy()
    found = [neighbours(cloud, cell) for cloud in clouds]
    forward = torch.from_numpy(np.stack(found)) if found else torch.empty(points.shape[:2], dtype=torch.int64)
    return Order(forward, forward.argsort(1))


def _taken(values: Tensor, index: Tensor) -> Tensor:
    return values.gather(1, index if values.ndim == 2 else index[..., None].expand(values.shape))


class OrderedPlan(FlatPlan):
    """Plans of ordered clouds, as the caller sees them."""

    def __init__(self, plan: FlatPlan, rows: Order, columns: Order) -> None:
        self._plan, self._rows, self._columns = plan, rows, columns
        self.shape, self.dtype, self.device = plan.shape, plan.dtype, plan.device

    def apply(self, v: Tensor) -> Tensor:
        """Multiply in the order of the clouds."""
        return self._rows.restore(self._plan.apply(self._columns.sort(v)))

    def transposed(self) -> FlatPlan:
        """Swap the sides."""
        return OrderedPlan(self._plan.transposed(), self._columns, self._rows)

    def dense(self) -> Tensor:
        """Make the matrices."""
        return self._columns.restore(self._rows.restore(self._plan.dense()).mT).mT

    def mapped(self, each: Callable[[Tensor], Tensor]) -> FlatPlan:
        """See ``FlatPlan``."""
        rows, columns = (Order(each(order.forward), each(order.back)) for order in (self._rows, self._columns))
        return OrderedPlan(self._plan.mapped(each), rows, columns)


def in_callers_order(parts: Parts, rows: Order, columns: Order) -> Parts:
    """Put what was found for ordered clouds into the caller's order."""

    def potentials() -> tuple[Tensor, Tensor]:
        f, g = parts.potentials()
        return rows.restore(f), columns.restore(g)

    return replace(parts, plan=lambda: OrderedPlan(parts.plan(), rows, columns), potentials=potentials)

"""Entropic plans of large point clouds on the CPU: ordered, annealed, truncated, one problem after another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

import torch
from torch import Tensor

from otfew.transport.entropic.cells import CellSums, left_out
from otfew.transport.entropic.ordered import in_callers_order, order_clouds
from otfew.transport.entropic.point_clouds import Clouds, entropic_parts
from otfew.transport.entropic.points import Potentials
from otfew.transport.result import Parts

LARGE = 2**20
"""Costs of a problem from which it is solved in this way."""


Find = Callable[[CellSums, Tensor, Tensor, Tensor, Tensor], Potentials]
"""Solves one problem, a flat batch of one, of which neighbouring points follow each other: sums, x, y, a, b."""


def large_parts(cloud: Clouds, a: Tensor, b: Tensor, reg: float, find: Find, solver: str) -> Parts:
    """Solve a flat batch, each problem by itself; arguments as of ``point_clouds.entropic_parts``.

    What sums leave out is a part ``left_out`` of them at most. So potentials are off by as much of ``reg``, and the
    dual value by no more than that for either side: the gap has both.
    """
    from otfew.transport.entropic.cell_kernel import CELL

    sums = CellSums(cloud.metric)
    rows, columns = order_clouds(cloud.x, CELL), order_clouds(cloud.y, CELL)
    cloud = replace(
        cloud,
        x=rows.sort(cloud.x),
        y=columns.sort(cloud.y),
        row=rows.sort(cloud.row),
        column=columns.sort(cloud.column),
    )
    a, b = rows.sort(a), columns.sort(b)
    given = [z.detach() for z in (cloud.x, cloud.y, a, b)]
    found = []
    for k in range(len(a)):
        one_x, one_y, one_a, one_b = (z[k : k + 1] for z in given)
        found.append(find(sums, one_x, one_y, one_a, one_b))
    joined = Potentials(*(torch.cat([getattr(one, part.name) for one in found]) for part in fields(Potentials)))
    parts = entropic_parts(cloud, a, b, joined, reg, sums, solver)
    total, compiled = given[2].sum(-1), sums.suits(cloud.x.shape[-1])
    slack = 2 * reg * total * left_out(cloud.dtype) if compiled else torch.zeros_like(total)
    return in_callers_order(replace(parts, gap=lambda: parts.gap() + slack), rows, columns)

"""Which jobs are worth most in the time that there is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from otfew.experiments.reproduce.device.jobs import Job

UNITS = 4000
"""Parts that the time is divided into; what a job takes is rounded up to whole ones."""


def pack(jobs: Sequence[Job], seconds: Mapping[str, float], budget: float) -> list[Job]:
    """Choose the jobs of the largest total value that end in a time.

    No job is chosen without the one that it needs. As every job needs one other at most, they are forests, and the
    best choice is found exactly: in the order of a tree, a job is either taken, or left out with all that need it.
    Of equal values the choice that takes less time wins.

    Args:
        jobs: To choose from; what a job needs stands before it, or is not among them and so no matter.
        seconds: Name -> what it takes.
        budget: Seconds that there are.

    Returns:
        In the order of the list.
    """
    if not budget > 0:
        return []
    unit = budget / UNITS
    order, after = _tree(jobs)
    costs = [min(UNITS + 1, math.ceil(seconds[job.name] / unit - 1e-9)) for job in order]
    # best[i][t]: value, and minus the units used, of the best choice among order[i:] in t units.
    best = [[(0.0, 0)] * (UNITS + 1) for _ in range(len(order) + 1)]
    for place in range(len(order) - 1, -1, -1):
        cost, value, left, taken = costs[place], order[place].value, best[after[place]], best[place + 1]
        row = best[place]
        for units in range(UNITS + 1):
            row[units] = left[units]
            if cost <= units:
                with_it = taken[units - cost]
                row[units] = max(row[units], (with_it[0] + value, with_it[1] - cost))
    chosen, place, units = set(), 0, UNITS
    while place < len(order):
        if best[place][units] == best[after[place]][units]:
            place = after[place]
        else:
            chosen.add(order[place].name)
            units -= costs[place]
            place += 1
    return [job for job in jobs if job.name in chosen]


def _tree(jobs: Sequence[Job]) -> tuple[list[Job], list[int]]:
    """Put every job before those that need it, one tree after another.

    Returns:
        The jobs, and for each the place behind all that need it, directly or not.
    """
    names = {job.name for job in jobs}
    needing: dict[str, list[Job]] = {}
    for job in jobs:
        needing.setdefault(job.needs if job.needs in names else "", []).append(job)
    order: list[Job] = []
    after: dict[str, int] = {}

    def visit(job: Job) -> None:
        order.append(job)
        for each in needing.get(job.name, ()):
            visit(each)
        after[job.name] = len(order)

    for root in needing.get("", ()):
        visit(root)
    return order, [after[job.name] for job in order]

"""Flows through the allowed pairs of one problem, in whole numbers, and the pairs that no flow uses.

Rows and columns are the nodes of a graph: an allowed pair leads from its row to its column and carries as much as one
likes, and back as much as already flows there. A flow that serves every row and column shows by the strongly connected
components of this graph which pairs any such flow uses: those within a component, and no other.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from otfew.transport.jit import jit

UNITS = 2**52
"""Whole numbers in which weights of total 1 are counted."""


@jit(nogil=True)
def complete(allowed: Any, rows: Any, columns: Any, flow: Any) -> None:
    """Add to a flow until it serves as much of all rows and columns as can be (Dinic 1970), in place.

    Args:
        allowed: (n, m) bool.
        rows: (n,) int64, what each row is to send.
        columns: (m,) int64, what each column is to receive.
        flow: (n, m) int64, within the allowed pairs, whose sums are at most ``rows`` and ``columns``.
    """
    n, m = flow.shape
    left, wanted = rows.copy(), columns.copy()
    for i in range(n):
        for j in range(m):
            left[i] -= flow[i, j]
            wanted[j] -= flow[i, j]
    level, at = np.empty(n + m, np.int64), np.empty(n + m, np.int64)
    path, queue = np.empty(n + m, np.int64), np.empty(n + m, np.int64)
    while True:
        # Distances from the rows that have something left; nodes are the rows and then the columns.
        level[:] = -1
        at[:] = 0
        head, tail = 0, 0
        for i in range(n):
            if left[i] > 0:
                level[i] = 0
                queue[tail] = i
                tail += 1
        reached = False
        while head < tail:
            x = queue[head]
            head += 1
            if x < n:
                for j in range(m):
                    if allowed[x, j] and level[n + j] < 0:
                        level[n + j] = level[x] + 1
                        queue[tail] = n + j
                        tail += 1
                        reached = reached or wanted[j] > 0
            else:
                for i in range(n):
                    if flow[i, x - n] > 0 and level[i] < 0:
                        level[i] = level[x] + 1
                        queue[tail] = i
                        tail += 1
        if not reached:
            return
        for start in range(n):
            depth = 0
            path[0] = start
            while left[start] > 0:
                x = path[depth]
                if x >= n and wanted[x - n] > 0:
                    amount = min(left[start], wanted[x - n])
                    for k in range(1, depth, 2):
                        amount = min(amount, flow[path[k + 1], path[k] - n])
                    for k in range(0, depth, 2):
                        flow[path[k], path[k + 1] - n] += amount
                    for k in range(1, depth, 2):
                        flow[path[k + 1], path[k] - n] -= amount
                    left[start] -= amount
                    wanted[x - n] -= amount
                    depth = 0
                    continue
                if x < n:
                    while at[x] < m and not (allowed[x, at[x]] and level[n + at[x]] == level[x] + 1):
                        at[x] += 1
                    further = n + at[x] if at[x] < m else -1
                else:
                    while at[x] < n and not (flow[at[x], x - n] > 0 and level[at[x]] == level[x] + 1):
                        at[x] += 1
                    further = at[x] if at[x] < n else -1
                if further >= 0:
                    depth += 1
                    path[depth] = further
                elif depth == 0:
                    break
                else:
                    depth -= 1
                    at[path[depth]] += 1


@jit(nogil=True)
def components(allowed: Any, back: Any, part: Any) -> int:
    """Number the strongly connected components (Tarjan 1972), each after all that can be reached from it.

    Args:
        allowed: (n, m) bool, pairs that lead from rows to columns.
        back: (n, m) bool, pairs that also lead back.
        part: (n + m,) int64, out: the component of each row and column.

    Returns:
        How many there are.
    """
    n, m = allowed.shape
    order, low, at = np.zeros(n + m, np.int64), np.zeros(n + m, np.int64), np.zeros(n + m, np.int64)
    calls, held = np.zeros(n + m, np.int64), np.zeros(n + m, np.int64)
    part[:] = -1
    found, seen, kept = 0, 0, 0
    for root in range(n + m):
        if order[root] > 0:
            continue
        depth = 0
        calls[0] = root
        while depth >= 0:
            x = calls[depth]
            if order[x] == 0:
                seen += 1
                order[x] = low[x] = seen
                held[kept] = x
                kept += 1
            further = -1
            size = m if x < n else n
            while at[x] < size:
                y = n + at[x] if x < n else at[x]
                if allowed[x, at[x]] if x < n else back[at[x], x - n]:
                    if order[y] == 0:
                        further = y
                        break
                    if part[y] < 0:
                        low[x] = min(low[x], low[y])
                at[x] += 1
            if further >= 0:
                depth += 1
                calls[depth] = further
                continue
            if low[x] == order[x]:
                while True:
                    kept -= 1
                    part[held[kept]] = found
                    if held[kept] == x:
                        break
                found += 1
            depth -= 1
    return found


@jit(nogil=True)
def survey(allowed: Any, rows: Any, columns: Any, slack: int, live: Any, part: Any, parts: Any) -> None:
    """Find the pairs that flows use, problem by problem, where some flow serves all but rounding errors of the weights.

    A flow of no more than such errors is not taken to be one, unless it is the largest of its row or column.

    Args:
        allowed: (problems, n, m) bool.
        rows: (problems, n) int64, what each row sends.
        columns: (problems, m) int64, what each column receives.
        slack: Largest rounding error.
        live: (problems, n, m) bool, out: allowed pairs that some flow uses. Those of nodes that nothing flows to or
            from all count.
        part: (problems, n + m) int64, out: components, see ``components``; -1 for such nodes.
        parts: (problems,) int64, out: how many there are.
    """
    size, n, m = allowed.shape
    for k in range(size):
        flow, back = np.zeros((n, m), np.int64), np.zeros((n, m), np.bool_)
        complete(allowed[k], rows[k], columns[k], flow)
        for i in range(n):
            most = flow[i].argmax()
            back[i, most] = flow[i, most] > 0
            for j in range(m):
                back[i, j] = back[i, j] or flow[i, j] > slack
        for j in range(m):
            most = flow[:, j].argmax()
            back[most, j] = back[most, j] or flow[most, j] > 0
        numbers = np.full(components(allowed[k], back, part[k]), -1, np.int64)
        for x in range(n + m):
            used = flow[x].any() if x < n else flow[:, x - n].any()
            if used:
                numbers[part[k, x]] = 0
            else:
                part[k, x] = -1
        count = 0
        for x in range(len(numbers)):
            if numbers[x] == 0:
                numbers[x] = count
                count += 1
        for x in range(n + m):
            if part[k, x] >= 0:
                part[k, x] = numbers[part[k, x]]
        parts[k] = count
        for i in range(n):
            for j in range(m):
                loose = part[k, i] < 0 or part[k, n + j] < 0
                live[k, i, j] = allowed[k, i, j] and (loose or part[k, i] == part[k, n + j])

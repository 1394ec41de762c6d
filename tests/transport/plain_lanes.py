"""What the vector operations of ``otfew.transport.simplex.lanes`` do, in numpy: to read, and to run uncompiled."""

import numpy as np

from otfew.transport.simplex.lanes import GROUP, LANES, LOWEST


def _bits(lanes):
    return sum(1 << k for k, lane in enumerate(lanes) if lane)


def _signed(bits):
    """A word as numba holds it."""
    bits = int(bits) & (2**64 - 1)
    return bits - 2**64 if bits >= 2**63 else bits


def _truths(bits, count=LANES):
    return np.array([(int(bits) >> k) & 1 for k in range(count)], bool)


def _columns(whole, start, n):
    return whole[start : start + n * LANES].reshape(n, LANES).astype(np.int64)


def best_rows(whole, start, n, tag, v, row, net, excess, at):
    here = slice(at, at + LANES)
    keys = _columns(whole, start, n) + tag[:n, None]
    # Within 32 rows the key tells them apart; of equal keys the first group's.
    best = keys.argmax(0)
    row[here] = best
    net[here] = keys.max(0) - tag[best]
    excess[here] = keys.max(0) + v[here]
    return int(excess[here].max())


def excess_now(tag, v, row, net, excess, at):
    here = slice(at, at + LANES)
    excess[here] = tag[row[here]] + net[here] + v[here]
    return int(excess[here].max())


def excess_after(row, excess, at, moved, columns, shift):
    here = slice(at, at + LANES)
    up = np.array([(int(moved) >> int(i)) & 1 for i in row[here]])
    excess[here] += int(shift) * (up - _truths(columns))
    return int(excess[here].max())


def two_best_rows(whole, start, n, bits, best, second, at):
    limit = (GROUP << bits) - 1
    keys = (_columns(whole, start, n) << bits) + (limit - np.arange(n))[:, None]
    keys = np.sort(np.vstack([keys, np.full((2, LANES), LOWEST)]), 0)
    best[at : at + LANES], second[at : at + LANES] = keys[-1], keys[-2]


def best_open(whole, at, open_bits):
    keys = whole[at : at + LANES] | np.arange(LANES - 1, -1, -1, dtype=np.int32)
    return int(np.where(_truths(open_bits), keys, LOWEST).max())


def lanes_equal(x, at, number):
    return _bits(x[at : at + LANES] == number)


def lanes_above(x, at, number):
    return _bits(x[at : at + LANES] > number)


def shift_lanes(x, at, bits, amount):
    x[at : at + LANES] += np.where(_truths(bits), int(amount), 0).astype(np.int32)


def row_sum(cost, start, m):
    return float(cost[start : start + m].sum())


def centre_columns(given, n, m, mean, cost, width, low, high, column):
    for j in range(column, column + LANES):
        centred = given[j : j + n * m : m][:n] - mean[:n] if j < m else np.zeros(n)
        cost[j : j + n * width : width][:n] = centred
        low[j], high[j] = centred.min(), centred.max()


def least_net(cost, start, v, m):
    padded = -(-m // LANES) * LANES
    return float((cost[start : start + padded] - v[:padded]).min())


def ancestors(mask, nodes, i, j):
    return tuple(_signed(_bits((int(held) >> int(k)) & 1 for held in mask[:nodes])) for k in (i, j))


def least_flow(flow, nodes, chosen):
    held = _truths(chosen, nodes)
    least = flow[:nodes][held].min()
    return least, _signed(_bits(held & (flow[:nodes] == least)))


def send_around(flow, mask, nodes, theta, less, more, moved, gains, loses):
    turned = _signed(moved)
    flow[:nodes] += theta * (_truths(more, nodes).astype(float) - _truths(less, nodes))
    mask[:nodes][_truths(gains, nodes)] |= turned
    mask[:nodes][_truths(loses, nodes)] &= ~turned


def to_whole(cost, at, low, at_low, scale, whole, at_whole):
    cost[at : at + LANES] -= low[at_low : at_low + LANES]
    whole[at_whole : at_whole + LANES] = -GROUP * np.trunc(cost[at : at + LANES] * scale)


OPERATIONS = (
    best_rows, excess_now, excess_after, two_best_rows, best_open, lanes_equal, lanes_above, shift_lanes, row_sum,
    centre_columns, least_net, ancestors, least_flow, send_around, to_whole,
)  # fmt: skip

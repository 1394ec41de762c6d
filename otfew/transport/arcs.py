"""Plans that are kept as their few arcs, laid out dense where asked for."""

from __future__ import annotations

from numba import njit, types

_INDEX = types.Array(types.int32, 2, "C", readonly=True)
_FLOW = types.Array(types.float64, 2, "C", readonly=True)
_SCALE = types.Array(types.float64, 1, "C", readonly=True)


@njit(
    [
        types.void(_INDEX, _INDEX, _FLOW, _SCALE, types.Array(element, 3, "C"))
        for element in (types.float32, types.float64)
    ],
    nogil=True,
    cache=True,
)
def lay_out(rows, cols, flow, scale, out):
    """Write ``scale[k] * flow[k, arc]`` at (rows[k, arc], cols[k, arc]) of ``out[k]`` and zero elsewhere.

    One problem at a time stays in the cache, and no thread of torch's wakes to spin beside those of the next solve.

    Args:
        rows: (problems, arcs) int32.
        cols: (problems, arcs) int32.
        flow: (problems, arcs) float64; unused arcs hold zero.
        scale: (problems,) float64.
        out: (problems, n, m) float32 or float64, overwritten.
    """
    for k in range(out.shape[0]):
        out[k] = 0.0
        for arc in range(rows.shape[1]):
            out[k, rows[k, arc], cols[k, arc]] += scale[k] * flow[k, arc]

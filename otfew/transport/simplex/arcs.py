"""Plans that are kept as their few arcs, laid out dense where asked for."""

from __future__ import annotations

from otfew.transport.jit import jit


@jit(nogil=True)
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

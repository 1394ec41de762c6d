"""Arguments of the entropic kernels as ``ctypes`` lays them out: a mirror of the struct in entropic_arguments.h."""

from __future__ import annotations

import ctypes

_POINTERS, _LONGS, _DOUBLES, _INTS = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double, ctypes.c_int32


class EntropicProblems(ctypes.Structure):
    """A batch of entropic problems, read in place; see the header for what each field is."""

    _fields_ = (
        *((name, _POINTERS) for name in ("cost", "a", "b")),
        *((name, _LONGS) for name in ("cost_problem", "cost_row", "cost_col")),
        *((name, _LONGS) for name in ("a_problem", "a_step", "b_problem", "b_step")),
        *((name, _DOUBLES) for name in ("reg", "inverse", "reach", "tol", "rho_a", "rho_b")),
        *((name, _DOUBLES) for name in ("totals_rtol", "least", "most")),
        *((name, _LONGS) for name in ("plain", "max_iter")),
        *((name, _INTS) for name in ("problems", "n", "m", "unused")),
        *((name, _POINTERS) for name in ("row_part", "column_part")),
        *((name, _POINTERS) for name in ("plan", "unit_a", "unit_b", "phi", "psi")),
        *((name, _POINTERS) for name in ("mass", "value", "offset", "error", "n_iter", "status", "flag")),
    )

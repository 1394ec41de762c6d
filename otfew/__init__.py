"""Optimal transport for few-shot and transfer learning."""

from otfew.transport import (
    POT,
    ConvergenceError,
    ConvergenceWarning,
    Exact,
    OTResult,
    SciPy,
    Solver,
    Status,
    solve,
    solvers,
)

__all__ = [
    "POT",
    "ConvergenceError",
    "ConvergenceWarning",
    "Exact",
    "OTResult",
    "SciPy",
    "Solver",
    "Status",
    "solve",
    "solvers",
]

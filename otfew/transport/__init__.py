"""The OT core: one differentiable, certified interface to every solver. Imports nothing else of otfew."""

from otfew.transport.api import solve
from otfew.transport.errors import ConvergenceError, ConvergenceWarning
from otfew.transport.exact import Exact
from otfew.transport.pot import POT
from otfew.transport.problem import Status
from otfew.transport.registry import SOLVERS, Solver, solvers
from otfew.transport.result import OTResult
from otfew.transport.scipy import SciPy

__all__ = [
    "POT",
    "SOLVERS",
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

"""The OT core: one differentiable, certified interface to every solver. Imports nothing else of otfew."""

from otfew.transport.api import solve
from otfew.transport.certificate import Certificate, certify
from otfew.transport.errors import ConvergenceError, ConvergenceWarning
from otfew.transport.exact import Exact
from otfew.transport.opencv import OpenCV
from otfew.transport.pot import POT
from otfew.transport.pot_sinkhorn import POTSinkhorn
from otfew.transport.problem import Status
from otfew.transport.qpth import QPTH
from otfew.transport.registry import SOLVERS, Solver, solvers
from otfew.transport.result import OTResult
from otfew.transport.scipy import SciPy

__all__ = [
    "POT",
    "QPTH",
    "SOLVERS",
    "Certificate",
    "ConvergenceError",
    "ConvergenceWarning",
    "Exact",
    "OTResult",
    "OpenCV",
    "POTSinkhorn",
    "SciPy",
    "Solver",
    "Status",
    "certify",
    "solve",
    "solvers",
]

"""The OT core: one differentiable, certified interface to every solver. Imports nothing else of otfew."""

from otfew.transport.api import solve
from otfew.transport.backends.geomloss import GeomLoss
from otfew.transport.backends.keops import KeOps
from otfew.transport.backends.opencv import OpenCV
from otfew.transport.backends.pot import POT
from otfew.transport.backends.pot_sinkhorn import POTSinkhorn
from otfew.transport.backends.qpth import QPTH
from otfew.transport.backends.scipy import SciPy
from otfew.transport.certificate import Certificate, certify
from otfew.transport.entropic.sinkhorn import Sinkhorn
from otfew.transport.errors import ConvergenceError, ConvergenceWarning
from otfew.transport.points import solve_points
from otfew.transport.problem import Status
from otfew.transport.registry import SOLVERS, Solver, solvers
from otfew.transport.result import OTResult
from otfew.transport.simplex.exact import Exact

__all__ = [
    "POT",
    "QPTH",
    "SOLVERS",
    "Certificate",
    "ConvergenceError",
    "ConvergenceWarning",
    "Exact",
    "GeomLoss",
    "KeOps",
    "OTResult",
    "OpenCV",
    "POTSinkhorn",
    "SciPy",
    "Sinkhorn",
    "Solver",
    "Status",
    "certify",
    "solve",
    "solve_points",
    "solvers",
]

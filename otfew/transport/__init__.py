"""The OT core: one differentiable, certified interface to every solver. Imports nothing else of otfew."""

from otfew.transport.api import solve
from otfew.transport.certificate import Certificate, certify
from otfew.transport.errors import ConvergenceError, ConvergenceWarning
from otfew.transport.exact import Exact
from otfew.transport.geomloss import GeomLoss
from otfew.transport.keops import KeOps
from otfew.transport.opencv import OpenCV
from otfew.transport.points import solve_points
from otfew.transport.pot import POT
from otfew.transport.pot_sinkhorn import POTSinkhorn
from otfew.transport.problem import Status
from otfew.transport.qpth import QPTH
from otfew.transport.registry import SOLVERS, Solver, solvers
from otfew.transport.result import OTResult
from otfew.transport.scipy import SciPy
from otfew.transport.sinkhorn import Sinkhorn

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

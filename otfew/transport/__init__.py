"""The OT core: one differentiable, certified interface to every solver. Imports nothing else of otfew.

What it offers is imported when it is first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from otfew.transport.api import solve
    from otfew.transport.backends.geomloss import GeomLoss
    from otfew.transport.backends.keops import KeOps
    from otfew.transport.backends.opencv import OpenCV
    from otfew.transport.backends.pot import POT
    from otfew.transport.backends.pot_sinkhorn import POTSinkhorn
    from otfew.transport.backends.qpth import QPTH
    from otfew.transport.backends.scipy import SciPy
    from otfew.transport.barycenter_api import Barycenter, barycenter
    from otfew.transport.divergence import Divergence, sinkhorn_divergence, sinkhorn_divergence_points
    from otfew.transport.entropic.sinkhorn import Sinkhorn
    from otfew.transport.errors import ConvergenceError, ConvergenceWarning
    from otfew.transport.mapping import Movement, movement, transport_map
    from otfew.transport.one_dimension import solve_1d
    from otfew.transport.padding import Padded, pad
    from otfew.transport.points import solve_points
    from otfew.transport.problem import Status
    from otfew.transport.proofs import Certificate, certify
    from otfew.transport.registry import SOLVERS, Solver, solvers
    from otfew.transport.result import OTResult
    from otfew.transport.simplex.exact import Exact
    from otfew.transport.sliced import Sliced

__all__ = [
    "POT",
    "QPTH",
    "SOLVERS",
    "Barycenter",
    "Certificate",
    "ConvergenceError",
    "ConvergenceWarning",
    "Divergence",
    "Exact",
    "GeomLoss",
    "KeOps",
    "Movement",
    "OTResult",
    "OpenCV",
    "POTSinkhorn",
    "Padded",
    "SciPy",
    "Sinkhorn",
    "Sliced",
    "Solver",
    "Status",
    "barycenter",
    "certify",
    "movement",
    "pad",
    "sinkhorn_divergence",
    "sinkhorn_divergence_points",
    "solve",
    "solve_1d",
    "solve_points",
    "solvers",
    "transport_map",
]

_PLACES = {
    "solve": "otfew.transport.api",
    "GeomLoss": "otfew.transport.backends.geomloss",
    "KeOps": "otfew.transport.backends.keops",
    "OpenCV": "otfew.transport.backends.opencv",
    "POT": "otfew.transport.backends.pot",
    "POTSinkhorn": "otfew.transport.backends.pot_sinkhorn",
    "QPTH": "otfew.transport.backends.qpth",
    "SciPy": "otfew.transport.backends.scipy",
    "Barycenter": "otfew.transport.barycenter_api",
    "barycenter": "otfew.transport.barycenter_api",
    "Sinkhorn": "otfew.transport.entropic.sinkhorn",
    "ConvergenceError": "otfew.transport.errors",
    "ConvergenceWarning": "otfew.transport.errors",
    "Padded": "otfew.transport.padding",
    "pad": "otfew.transport.padding",
    "solve_points": "otfew.transport.points",
    "Status": "otfew.transport.problem",
    "Certificate": "otfew.transport.proofs",
    "certify": "otfew.transport.proofs",
    "SOLVERS": "otfew.transport.registry",
    "Solver": "otfew.transport.registry",
    "solvers": "otfew.transport.registry",
    "OTResult": "otfew.transport.result",
    "Exact": "otfew.transport.simplex.exact",
    "Divergence": "otfew.transport.divergence",
    "sinkhorn_divergence": "otfew.transport.divergence",
    "sinkhorn_divergence_points": "otfew.transport.divergence",
    "solve_1d": "otfew.transport.one_dimension",
    "Sliced": "otfew.transport.sliced",
    "Movement": "otfew.transport.mapping",
    "movement": "otfew.transport.mapping",
    "transport_map": "otfew.transport.mapping",
}
"""Public name -> the module that has it."""


def __getattr__(name: str) -> Any:
    """Import what is asked for, once."""
    if name not in _PLACES:
        raise AttributeError(f"module 'otfew.transport' has no attribute {name!r}")
    value = getattr(importlib.import_module(_PLACES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List what there is to ask for."""
    return sorted({*globals(), *__all__})

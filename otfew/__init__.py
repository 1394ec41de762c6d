"""Optimal transport for few-shot and transfer learning.

``import otfew`` costs nothing: what it offers is imported when it is first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from otfew.api import compare, compare_over
    from otfew.classifier.few_shot import FewShotClassifier
    from otfew.classifier.rejection import UNKNOWN
    from otfew.compat.pot import emd, emd2
    from otfew.reporting.joined import Joined, load_joined
    from otfew.reporting.result import Comparison, load
    from otfew.slices import sliced_distance
    from otfew.transport import (
        POT,
        QPTH,
        Barycenter,
        Certificate,
        ConvergenceError,
        ConvergenceWarning,
        Divergence,
        Exact,
        GeomLoss,
        KeOps,
        OpenCV,
        OTResult,
        Padded,
        POTSinkhorn,
        SciPy,
        Sinkhorn,
        Sliced,
        Solver,
        Status,
        barycenter,
        certify,
        pad,
        sinkhorn_divergence,
        sinkhorn_divergence_points,
        solve,
        solve_1d,
        solve_points,
        solvers,
        transport_map,
    )

__all__ = [
    "POT",
    "QPTH",
    "UNKNOWN",
    "Barycenter",
    "Certificate",
    "Comparison",
    "ConvergenceError",
    "ConvergenceWarning",
    "Divergence",
    "Exact",
    "FewShotClassifier",
    "GeomLoss",
    "Joined",
    "KeOps",
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
    "compare",
    "compare_over",
    "emd",
    "emd2",
    "load",
    "load_joined",
    "pad",
    "sinkhorn_divergence",
    "sinkhorn_divergence_points",
    "sliced_distance",
    "solve",
    "solve_1d",
    "solve_points",
    "solvers",
    "transport_map",
]

_PLACES = {
    "compare": "otfew.api",
    "compare_over": "otfew.api",
    "Comparison": "otfew.reporting.result",
    "load": "otfew.reporting.result",
    "Joined": "otfew.reporting.joined",
    "load_joined": "otfew.reporting.joined",
    "FewShotClassifier": "otfew.classifier.few_shot",
    "UNKNOWN": "otfew.classifier.rejection",
    "emd": "otfew.compat.pot",
    "emd2": "otfew.compat.pot",
    "POT": "otfew.transport",
    "QPTH": "otfew.transport",
    "Barycenter": "otfew.transport",
    "barycenter": "otfew.transport",
    "Certificate": "otfew.transport",
    "ConvergenceError": "otfew.transport",
    "ConvergenceWarning": "otfew.transport",
    "Exact": "otfew.transport",
    "GeomLoss": "otfew.transport",
    "KeOps": "otfew.transport",
    "OTResult": "otfew.transport",
    "OpenCV": "otfew.transport",
    "Padded": "otfew.transport",
    "POTSinkhorn": "otfew.transport",
    "SciPy": "otfew.transport",
    "Sinkhorn": "otfew.transport",
    "Solver": "otfew.transport",
    "Status": "otfew.transport",
    "certify": "otfew.transport",
    "pad": "otfew.transport",
    "solve": "otfew.transport",
    "solve_points": "otfew.transport",
    "solvers": "otfew.transport",
    "Divergence": "otfew.transport",
    "sinkhorn_divergence": "otfew.transport",
    "sinkhorn_divergence_points": "otfew.transport",
    "solve_1d": "otfew.transport",
    "Sliced": "otfew.transport",
    "sliced_distance": "otfew.slices",
    "transport_map": "otfew.transport",
}
"""Public name -> the module that has it, which is imported when the name is first asked for."""

_MODULES = ("costs", "node_weights", "transport")
"""Modules that are attributes of ``otfew`` without an import of their own."""


def __getattr__(name: str) -> Any:
    """Import what is asked for, once."""
    if name in _PLACES:
        value: Any = getattr(importlib.import_module(_PLACES[name]), name)
    elif name in _MODULES:
        value = importlib.import_module(f"otfew.{name}")
    elif name == "__version__":
        from importlib import metadata

        try:
            value = metadata.version("otfew")
        except metadata.PackageNotFoundError:
            # Found by PYTHONPATH, as on a borrowed machine.
            value = "0.0+uninstalled"
    else:
        raise AttributeError(f"module 'otfew' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List what there is to ask for."""
    return sorted({*globals(), *__all__, *_MODULES, "__version__"})

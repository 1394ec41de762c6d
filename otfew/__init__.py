"""Optimal transport for few-shot and transfer learning."""

import importlib
from typing import TYPE_CHECKING, Any

from otfew.transport import (
    POT,
    QPTH,
    Certificate,
    ConvergenceError,
    ConvergenceWarning,
    Exact,
    GeomLoss,
    KeOps,
    OpenCV,
    OTResult,
    POTSinkhorn,
    SciPy,
    Sinkhorn,
    Solver,
    Status,
    certify,
    solve,
    solve_points,
    solvers,
)

if TYPE_CHECKING:
    from otfew.classifier.few_shot import FewShotClassifier

__all__ = [
    "POT",
    "QPTH",
    "Certificate",
    "ConvergenceError",
    "ConvergenceWarning",
    "Exact",
    "FewShotClassifier",
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


def __getattr__(name: str) -> Any:
    """Import on first use what the solvers do without: scikit-learn and OpenCV stay out of ``import otfew``."""
    if name == "FewShotClassifier":
        from otfew.classifier.few_shot import FewShotClassifier

        return FewShotClassifier
    if name in {"costs", "node_weights"}:
        return importlib.import_module(f"otfew.{name}")
    raise AttributeError(f"module 'otfew' has no attribute {name!r}")

"""OpenCV's transport simplex, one problem after another, in float32: the solver of DeepEMD's published evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from otfew.transport.dense import solve_each
from otfew.transport.problem import Array, Problem, Solution, Status
from otfew.transport.registry import ArraySolver
from otfew.transport.simplex.scales import Rule

_ROUNDING = 1e-5
"""What float32 arithmetic explains of a gap, relative to mass times the largest cost used, and of missed sums."""


@dataclass(frozen=True)
class OpenCV(ArraySolver):
    """LP by ``cv2.EMD`` in float32, whatever the dtype of the inputs: sums and value hold to about 1e-7.

    It stops after 500 pivots and says nothing, so on problems of more than about 125 nodes its plan may be far from
    the optimum. It has no potentials either: here they are recovered from its plan (see ``otfew.certify``), and a plan
    that they do not prove optimal up to the rounding of float32 has status ``MAX_ITER``.
    """

    name: ClassVar[str] = "opencv"
    kind: ClassVar[Literal["exact", "entropic"]] = "exact"
    requires: ClassVar[str] = "cv2"
    install: ClassVar[str] = "pip install opencv-python-headless"
    dtypes: ClassVar[tuple[str, ...]] = ("float32",)
    forbids: ClassVar[bool] = True
    remedy: ClassVar[str] = "its 500 pivots cannot be raised: take solver='exact'"

    def solve(self, problem: Problem) -> Solution:
        """Solve every problem of the batch."""
        import cv2

        def solve_one(cost: Array, a: Array, b: Array) -> tuple[Array, None, Status, int]:
            # Costs from zero to one: float32 then loses as little as it can, and none is negative.
            low = cost.min()
            unit = ((cost - low) / (float(cost.max() - low) or 1.0)).astype(np.float32)
            try:
                flow = cv2.EMD(_signature(a), _signature(b), cv2.DIST_USER, unit)[2]
            except cv2.error:
                flow = None
            if flow is None:
                return np.outer(a, b), None, Status.FAILED, 0
            # Its rounding errors can be negative flows.
            return np.maximum(flow.astype(np.float64), 0), None, Status.OPTIMAL, 0

        rule = Rule(reach=_ROUNDING, short=Status.MAX_ITER)
        return solve_each(
            problem, solve_one, self.name, tol=_ROUNDING / 100, rule=rule, trifle=_ROUNDING / 10, missed=_ROUNDING
        )


def _signature(weights: Array) -> npt.NDArray[np.float32]:
    return weights.astype(np.float32)[:, None]

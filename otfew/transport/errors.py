"""Errors and warnings of the OT core."""

from __future__ import annotations


class ConvergenceError(RuntimeError):
    """An exact solver stopped before it reached the optimum; the message counts and names the problems."""


class ConvergenceWarning(RuntimeWarning):
    """An iterative solver stopped before it reached its tolerance."""


class DeviceError(RuntimeError):
    """A kernel of otfew cannot be compiled, loaded or launched; the message says why."""

"""Warnings that point at the caller's line, however many of our own functions lie between."""

from __future__ import annotations

import sys
import warnings

_BETWEEN = ("otfew", "torch", "contextlib", "functools", "pytorch_metric_learning")
"""Packages whose frames are passed over: ours, and those of what calls ours: decorators, modules, losses."""


def warn(message: str, category: type[Warning]) -> None:
    """Warn as if the line that called into otfew had."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _BETWEEN:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


def warn_once(message: str, category: type[Warning]) -> None:
    """Warn as ``warn`` does, but say the same only once a process, whatever the filters."""
    if message not in _said:
        _said.add(message)
        warn(message, category)


_said: set[str] = set()

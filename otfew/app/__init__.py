"""The local page for one's own photos: drop them, see why, correct, save."""

from __future__ import annotations

from otfew.app.limits import Limits
from otfew.app.session import Session

__all__ = ["Limits", "Session"]

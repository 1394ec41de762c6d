"""The options of serve."""

from __future__ import annotations

from dataclasses import dataclass

from otfew.experiments.common.photo_options import WithClassifier


@dataclass(kw_only=True)
class Config(WithClassifier):
    """Show a page for your own photos, on this machine alone: drop some, see why, correct answers, save.

    LABELLED is a folder with a folder of photos for each class. Nothing leaves this machine, and the page reads none of
    its files but LABELLED: what is corrected is kept when you save it. Stop with Ctrl-C.
    """

    port: int = 8420
    """Of this machine; 0 takes any that is free."""
    open: bool = True
    """Open the page in the browser."""

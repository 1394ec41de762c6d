"""Why a photo got its answer, in words, as a picture and as a page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from otfew.classifier.explanation_figure import draw
from otfew.classifier.explanation_page import page
from otfew.classifier.reasons import Reasons


@dataclass(frozen=True)
class Explanation(Reasons):
    """What ``FewShotClassifier.explain`` answers: the reasons, and ways to show them."""

    def figure(self) -> Any:
        """Return it as a picture, a ``matplotlib.figure.Figure`` 13 inches wide."""
        return draw(self)

    def to_html(self) -> str:
        """Return it as an HTML page that needs nothing else: pictures are inside, names are escaped."""
        return page(self)

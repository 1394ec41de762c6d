"""An explanation as a page: one file, pictures inside, nothing asked of the network."""

from __future__ import annotations

from otfew.classifier.explanation_figure import panels
from otfew.classifier.reasons import Reasons
from otfew.reporting.pages import Grid, Panel, panel, render

_PHOTOS = ("photo", "label", "lead")
_FLOWS = ("number", "share of\nall mass", "similarity to\nthe answer's", "to the\nrunner-up's")


def page(told: Reasons) -> str:
    """Write an explanation as HTML: see ``Explanation.to_html``."""
    headline, *sentences = told.sentences()
    photos = [
        [one.name, str(one.label), "the only one of its class" if one.effect is None else f"{one.effect:+.3f}"]
        for one in told.evidence
    ]
    flows = [
        [str(one.number), f"{one.share:.3f}", f"{one.similarity:.3f}", f"{one.rival_similarity:.3f}"]
        for one in told.flows
    ]
    return render(
        "explanation.html",
        headline,
        sentences=sentences,
        panels=shown(told),
        photos=Grid(_PHOTOS, photos, frozenset({1})),
        flows=Grid(_FLOWS, flows),
    )


def shown(told: Reasons) -> list[Panel]:
    """Prepare an explanation's six pictures for a page."""
    return [panel(caption, picture, marks) for caption, picture, marks in panels(told)]

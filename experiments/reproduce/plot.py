"""Differences with their intervals, beside the published ones, as a picture for each table."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence

from otfew.experiments.reproduce.claims import Claim
from otfew.experiments.reproduce.figures import Figure
from otfew.experiments.reproduce.verdict import CONFIRMED, CONTRADICTED, EQUIVALENT, Verdict, basis

COLOURS = {CONFIRMED: "#2a7f3f", CONTRADICTED: "#b3261e", EQUIVALENT.split()[0]: "#31688e"}
OTHER = "#555555"


def forest(rows: Sequence[tuple[Claim, Figure, Verdict]]) -> bytes:
    """Draw one row a claim: the difference found with its intervals, and the published difference as a diamond.

    Figures of another unit than points are drawn as they are, with a line at the level that is claimed. The thick bar
    is the narrowest interval, the thin one what decides; the grey band is the margin of the first claim.

    Returns:
        A PNG file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    height = 0.42 * len(rows) + 1.3
    canvas = Canvas(figsize=(10, height))
    FigureCanvasAgg(canvas)
    axes = canvas.add_subplot()
    canvas.subplots_adjust(left=0.5, right=0.97, top=1 - 0.3 / height, bottom=0.8 / height)
    first = rows[0][0]
    points = first.unit == "points"
    axes.axvspan(-first.delta, first.delta, color="#eeeeee", zorder=0)
    axes.axvline(0 if points else first.level or 0, color="#999999", linewidth=1, zorder=1)
    for place, (claim, figure, verdict) in enumerate(rows):
        colour = COLOURS.get(verdict.text.split(",")[0].split()[0], OTHER)
        mean = figure.mean - claim.reference
        decides = basis(figure).half_width
        widths = sorted([*figure.intervals.values(), *([] if decides is None else [decides])])
        for width, line in zip(widths[-1:] + widths[:1], (1.2, 3.5), strict=False):
            axes.plot([mean - width, mean + width], [place, place], color=colour, linewidth=line, zorder=2)
        axes.plot(mean, place, "o", color=colour, markersize=6, zorder=3)
        if len(claim.paper) == (2 if points else 1):
            published = claim.paper[0] - sum(claim.paper[1:])
            axes.plot(published, place, "D", color="none", markeredgecolor="black", zorder=3)
    axes.set_yticks(range(len(rows)), [_label(claim) for claim, _, _ in rows], fontsize=7)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    if not points:
        what = f"{first.unit}; line: the claim; diamond: published"
    elif first.level is None:
        what = "points, left - right; diamond: published; grey: margin"
    else:
        what = "points above the published level; grey: margin"
    axes.set_xlabel(what, fontsize=8)
    axes.tick_params(axis="x", labelsize=8)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    buffer = io.BytesIO()
    canvas.savefig(buffer, format="png", dpi=110, metadata={"Software": ""})
    return buffer.getvalue()


def _label(claim: Claim) -> str:
    """Wrap the claim, whole."""
    return textwrap.fill(f"{claim.says} ({claim.data})", 72)

"""Differences with their intervals, beside the published ones, as a forest plot for each table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from otfew.experiments.reproduce.claims import Claim
from otfew.experiments.reproduce.figures import Figure
from otfew.experiments.reproduce.labels import shorten
from otfew.experiments.reproduce.verdict import CONFIRMED, CONTRADICTED, INCONCLUSIVE, Basis, Verdict, basis
from otfew.reporting import canvas, forest_plot
from otfew.reporting.canvas import PUBLISHED_ROLE, Role, caption, to_png
from otfew.reporting.forest_plot import Column, Heading, Mark, Row

EQUIVALENT = "equivalent"
ROLES = {
    CONFIRMED: Role(CONFIRMED, "#009e73", "o"),
    EQUIVALENT: Role(EQUIVALENT, "#56b4e9", "s"),
    INCONCLUSIVE: Role(INCONCLUSIVE, "#6e6e6e", "^"),
    CONTRADICTED: Role(CONTRADICTED, "#882255", "X"),
}
"""First word of a verdict -> how it is drawn; hollow where it rests on fewer than three networks."""

Line = tuple[Claim, Figure | None, Verdict]


def forest(table: str, rows: Sequence[Line]) -> bytes:
    """Draw ``figure`` as a PNG file."""
    return to_png(figure(table, rows))


def figure(table: str, rows: Sequence[Line]) -> Any:
    """Draw one row a claim: the difference found with its intervals; the published one apart, on its own scale.

    Published figures are of other networks and mostly of other data: on one axis, they would be compared as levels.
    Figures of another unit than points are drawn as they are, with a line at the level that is claimed. The
    thick bar is the narrowest interval, the thin one what decides; the grey band is the margin. On what published
    figures were measured, and what was not run, is said in small letters.

    Args:
        table: Its name.
        rows: Claims with what was found of them, None where there is nothing, and the verdict; one at least has a
            figure.
    """
    found = [(claim, found, verdict) for claim, found, verdict in rows if found is not None]
    first = found[0][0]
    points = first.unit == "points"
    band = (-first.delta, first.delta) if points else None
    zero = 0.0 if points else first.level or 0.0
    columns = [Column(_axis(first), zero, band, head="± what decides")]
    if any(_published(claim) is not None for claim, _, _ in rows):
        what = "published, points" if points else "published"
        columns.append(Column(what, zero, role=PUBLISHED_ROLE, share=0.32))
    short, template = shorten([claim.says for claim, _, _ in rows if not claim.untestable])
    lines = _rows(found, short, len(columns))
    data = list(dict.fromkeys(claim.data for claim, _, _ in found))
    told = [template] if template else []
    told += data if len(data) == 1 else []
    key = _key(found, columns, first)
    return forest_plot.draw(
        _title(table, found), "; ".join(told), lines, columns, key, [*_sources(found, short), *_missing(rows, short)]
    )


def _axis(claim: Claim) -> str:
    """Name the axis of what was found."""
    if claim.unit != "points":
        return f"found here, {claim.unit}; line: the claim"
    return "found here, points: left minus right" if claim.level is None else "found here, points above the level"


def _title(table: str, found: Sequence[tuple[Claim, Figure, Verdict]]) -> str:
    """Count verdicts, and say how far the differences reach."""
    counts = Counter(_kind(verdict) for _, _, verdict in found)
    said = [f"{counts[kind]} {kind}" for kind in ROLES if counts[kind]]
    said[0] = said[0].replace(" ", f" of {len(found)} ", 1) if len(found) > 1 else said[0].partition(" ")[2]
    ranked = sorted(found, key=lambda row: row[1].mean)
    ends = list(dict.fromkeys(_text(claim, one) for claim, one, _ in (ranked[0], ranked[-1])))
    unit = found[0][0].unit
    unit = unit.replace(" ", "\N{NO-BREAK SPACE}")
    return f"{table}: {', '.join(said)} ({' to '.join(ends)}\N{NO-BREAK SPACE}{unit})"


def _kind(verdict: Verdict) -> str:
    return next(kind for kind in ROLES if verdict.text.startswith(kind))


def _rows(
    found: Sequence[tuple[Claim, Figure, Verdict]], short: Mapping[str, str], columns: int
) -> list[Row | Heading]:
    """Lay the rows out in groups, sorted by what was found."""
    data = list(dict.fromkeys(claim.data for claim, _, _ in found))
    says = list(dict.fromkeys(claim.says for claim, _, _ in found))
    # Headings hold what changes less often; what never changes stands in the subtitle.
    by_data = len(data) <= len(says)
    lines: list[Row | Heading] = []
    for group in data if by_data else says:
        mine = [row for row in found if group == (row[0].data if by_data else row[0].says)]
        if len(data) > 1 and len(says) > 1:
            lines.append(Heading(group if by_data else short[group]))
        for claim, one, verdict in sorted(mine, key=lambda row: -row[1].mean):
            label = short[claim.says] if by_data and (len(short) > 1 or not claim.data) else claim.data
            lines.append(_row(label, claim, one, verdict, columns))
    return lines


def _sources(found: Sequence[tuple[Claim, Figure, Verdict]], short: Mapping[str, str]) -> list[str]:
    """Say on what the published figures were measured; rows that differ from most are named."""
    claims = [claim for claim, _, _ in found if claim.on and _published(claim) is not None]
    if not claims:
        return []
    usual = Counter(claim.on for claim in claims).most_common(1)[0][0]
    told = [usual]
    for on in dict.fromkeys(claim.on for claim in claims if claim.on != usual):
        mine, rest = [c for c in claims if c.on == on], [c for c in claims if c.on != on]
        if not {c.data for c in mine} & {c.data for c in rest}:
            names = [c.data for c in mine]
        elif not {c.says for c in mine} & {c.says for c in rest}:
            names = [short.get(c.says, c.says) for c in mine]
        else:
            names = [_named(short.get(c.says, c.says), [c.data]) for c in mine]
        told.append(f"{', '.join(dict.fromkeys(names))}: {on}")
    return [f"published: {'; '.join(told)}"]


def _missing(rows: Sequence[Line], short: Mapping[str, str]) -> list[str]:
    """Name the claims without a figure, in one sentence for each reason."""
    reasons: dict[str, dict[str, list[str]]] = {}
    for claim, one, verdict in rows:
        if one is None:
            reasons.setdefault(verdict.text, {}).setdefault(short.get(claim.says, claim.says), []).append(claim.data)
    told = []
    for reason, claims in reasons.items():
        # The one claim of a table stands above: what is missing are data.
        alone = len(short) == 1 and all(says in short for says in claims)
        named = [_named("" if alone else says, data) for says, data in claims.items()]
        told.append(f"{reason}: {'; '.join(named)}")
    return told


def _named(says: str, data: Sequence[str]) -> str:
    on = ", ".join(filter(None, data))
    return f"{says} ({on})" if says and on else says or on


def _row(label: str, claim: Claim, one: Figure, verdict: Verdict, columns: int) -> Row:
    role = ROLES[_kind(verdict)]
    role = Role(role.words, role.colour, role.marker, filled=not verdict.few)
    decides = basis(one)
    widths = [*one.intervals.values(), *([] if decides.half_width is None else [decides.half_width])]
    wide = decides.half_width if decides.half_width is not None else max(widths, default=None)
    narrow = min(widths, default=None)
    marks: list[Mark | None] = [
        Mark(one.mean - claim.reference, None if narrow == wide else narrow, wide, _text(claim, one))
    ]
    if columns > 1:
        published = _published(claim)
        marks.append(None if published is None else Mark(published, text=_figure(claim, published)))
    return Row(label, role, tuple(marks))


def _published(claim: Claim) -> float | None:
    """Return the published difference, or the published ratio."""
    if len(claim.paper) != (2 if claim.unit == "points" else 1):
        return None
    return claim.paper[0] - sum(claim.paper[1:])


def _text(claim: Claim, one: Figure) -> str:
    """Print what was found, with the interval that decides."""
    decides: Basis = basis(one)
    value = one.mean - claim.reference
    digits = 2 if abs(value) < 100 else 0
    return forest_plot.with_half(_figure(claim, value), decides.half_width, digits)


def _figure(claim: Claim, value: float) -> str:
    return forest_plot.signed(value) if claim.unit == "points" else _plain(value)


def _plain(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 100 else f"{value:,.0f}"


def _key(found: Sequence[tuple[Claim, Figure, Verdict]], columns: Sequence[Column], first: Claim) -> list[Any]:
    """Say what colours, bars, the band and diamonds are."""
    from matplotlib.patches import Patch

    kinds = [kind for kind in ROLES if any(_kind(verdict) == kind for _, _, verdict in found)]
    roles = [ROLES[kind] for kind in kinds]
    if any(verdict.few for _, _, verdict in found):
        roles.append(Role("hollow: fewer than three networks", ROLES[kinds[0]].colour, "o", filled=False))
    if len(columns) > 1:
        roles.append(PUBLISHED_ROLE)
    several = [one for _, one, _ in found if len({*one.intervals.values(), basis(one).half_width}) > 1]
    narrow = dict.fromkeys(min(one.intervals, key=lambda name: one.intervals[name]) for one in several)
    over = dict.fromkeys(" and ".join(basis(one).over) for _, one, _ in found if basis(one).over)
    thin = f"95 % over {' or '.join(over)}: it decides" if over else ""
    key = [*canvas.role_key(roles), *canvas.bar_key(f"95 % over {' or '.join(narrow)}" if narrow else "", thin)]
    if columns[0].band is not None:
        key.append(
            Patch(
                color=forest_plot.BAND, label=caption(f"margin: {first.delta:g} point{'' if first.delta == 1 else 's'}")
            )
        )
    return key

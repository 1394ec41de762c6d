"""The ledger as a page and as a record: every claim with what was published, what was found, and a verdict."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from otfew.experiments.reproduce import tallies
from otfew.experiments.reproduce.budget import NO, YES, Bearing
from otfew.experiments.reproduce.claims import PLACE, Claim, Elsewhere, Ledger
from otfew.experiments.reproduce.evidence import Figures
from otfew.experiments.reproduce.figures import DIGITS, Figure
from otfew.experiments.reproduce.runs_of_page import Kept, runs_section
from otfew.experiments.reproduce.verdict import Basis, Verdict, basis, judge, surviving
from otfew.experiments.reproduce.words import INTRODUCTION, SHORT
from otfew.reporting.tables import Markdown, Table, markdown

PICTURES = "reproduction"
"""Folder of the pictures, beside the page."""
SOURCES = ("episodes", "queries", "images", "classes", "networks", "seeds", "runs")
"""What intervals are over, in the order of the page."""
ANSWERS = ("question", "found", "budget", "`python -m experiments.`...")
"""Head of the README's table."""
HEAD = (
    "claim", "on", "published", "found", "difference", "networks, seeds", "Holm's p", "again", "found here",
    "bears on the paper's claim", "spent, of what the paper spent",
)  # fmt: skip


def verdicts(ledger: Ledger, full: Figures, quick: Figures) -> dict[str, Verdict]:
    """Judge every claim, by the figures of the full suite or, where there are none, of the quick one."""
    found: dict[str, Verdict] = {}
    for _, claims in ledger.tables():
        found |= judge(claims, {c.id: figure for c in claims if (figure := _best(c, full, quick)) is not None})
    return found


def records(ledger: Ledger, full: Figures, quick: Figures, bears: Mapping[str, Bearing]) -> dict[str, Any]:
    """Return what claims.json holds: a record for each claim.

    Args:
        ledger: The claims.
        full: Figures of the full suite.
        quick: Figures of the quick suite.
        bears: Whether each claim's row bears on the paper's claim.

    Returns:
        Id -> what claims.toml says, "verdict", "p_holm", "decides" (the interval and p that the verdict rests on, and
        over what), "seeds", "survives" (one correction over all claims), "bears" (null for questions of ours), "spent",
        "missing", "networks", "evidence" (files, relative to the folder of claims.json), and by suite "figure", "left"
        and "right".
    """
    judged = verdicts(ledger, full, quick)
    survivors = survivors_of(ledger, full, quick, judged)
    made = {}
    for claim in ledger.claims.values():
        suites = {suite: found[claim.id] for suite, found in (("full", full), ("quick", quick)) if claim.id in found}
        best = _best(claim, full, quick)
        decides = basis(best) if best else None
        made[claim.id] = {
            "table": claim.table,
            "source": ledger.sources[claim.table],
            **{n: getattr(claim, n) for n in ("says", "data", "arms", "on", "reruns", "delta", "ours", "untestable")},
            "paper": list(claim.paper),
            "level": claim.level,
            "verdict": judged[claim.id].text,
            "p_holm": None if judged[claim.id].p_holm is None else float(f"{judged[claim.id].p_holm:.4g}"),
            "decides": decides and _rounded(decides),
            "seeds": best.seeds if best else 0,
            "survives": claim.id in survivors,
            "bears": bears[claim.id].bears if bears[claim.id].applies else None,
            "spent": list(bears[claim.id].budget),
            "missing": list(bears[claim.id].missing),
            "networks": sorted(tallies.networks(bears[claim.id], best)),
            "evidence": [
                f"{'' if suite == 'full' else 'quick/'}{run}.json"
                for suite, sides in suites.items()
                for run in claim.first(sides["figure"].seeds).runs
            ],
            **{s: {name: figure.to_json() for name, figure in sides.items()} for s, sides in suites.items()},
        }
    return made


def page(
    ledger: Ledger,
    full: Figures,
    quick: Figures,
    bears: Mapping[str, Bearing],
    kept: Kept,
    before: tuple[str, Mapping[str, str]] = ("", {}),
    history: Sequence[str] = (),
) -> bytes:
    """Write docs/reproduction.md.

    Args:
        ledger: The claims.
        full: Figures of the full suite.
        quick: Figures of the quick suite.
        bears: Whether each claim's row bears on the paper's claim.
        kept: The runs whose answers are kept.
        before: When verdicts were others, and which, by id.
        history: Lines on what was fixed and what was changed.
    """
    judged = verdicts(ledger, full, quick)
    figures, survivors = best_figures(ledger, full, quick), survivors_of(ledger, full, quick, judged)
    pieces = [INTRODUCTION, "", kept.sentence(ledger), "", *tallies.counts(ledger, judged, bears, figures, survivors)]
    if ledger.summary:
        pieces += ["", "## In short", "", SHORT, "", *summary(ledger, full, quick)]
    for table, claims in ledger.tables():
        source = ledger.sources[table]
        pieces += ["", f"## {table}", "", f"Questions of ours about {source}." if claims[0].ours else f"{source}.", ""]
        if table in ledger.notes:
            pieces += [ledger.notes[table], ""]
        rows = [_row(claim, judged[claim.id], bears[claim.id], full, quick) for claim in claims]
        rows += [_row_of_page(row) for row in ledger.elsewhere[table]]
        pieces.append(markdown(Table(table, HEAD, rows)).rstrip())
        if any(claim.id in full or claim.id in quick for claim in claims):
            pieces += ["", f"![{table}: published and found differences]({PICTURES}/{slug(table)}.png)"]
        notes = dict.fromkeys(
            [
                *(f"{claim.says}: not testable here, since {claim.untestable}" for claim in claims if claim.untestable),
                *(f"measured by others: {claim.reruns}" for claim in claims if claim.reruns),
            ]
        )
        pieces += ["", *(f"- {note}" for note in notes)] if notes else []
    if before[1]:
        lines = tallies.changes(ledger, judged, bears, figures, survivors, before[1])
        pieces += ["", *tallies.section(before[0], lines)]
    if history:
        pieces += ["", *history]
    pieces += ["", *runs_section(ledger, kept)]
    return ("\n".join(pieces) + "\n").encode()


def survivors_of(ledger: Ledger, full: Figures, quick: Figures, judged: Mapping[str, Verdict]) -> set[str]:
    """Name what stands after one correction over all claims."""
    return surviving(ledger.claims.values(), best_figures(ledger, full, quick), judged)


def best_figures(ledger: Ledger, full: Figures, quick: Figures) -> dict[str, Figure]:
    """Take each claim's figure of the full suite or, where there is none, of the quick one."""
    return {id_: figure for id_, claim in ledger.claims.items() if (figure := _best(claim, full, quick)) is not None}


def summary(ledger: Ledger, full: Figures, quick: Figures) -> list[str]:
    """Fill the lines of the page: {ID} becomes a claim's figure and verdict."""
    return _filled(ledger.summary, ledger, full, quick)


def answers(ledger: Ledger, full: Figures, quick: Figures) -> str:
    """Write the README's table."""
    found = _filled([answer.finding for answer in ledger.answers], ledger, full, quick)
    rows = [
        [*map(Markdown, (answer.question, finding, answer.budget, f"`{answer.command}`"))]
        for answer, finding in zip(ledger.answers, found, strict=True)
    ]
    return markdown(Table("", [*map(Markdown, ANSWERS)], rows), ("---", "---")).rstrip()


def _filled(lines: Sequence[str], ledger: Ledger, full: Figures, quick: Figures) -> list[str]:
    judged = verdicts(ledger, full, quick)

    def fill(match: re.Match[str]) -> str:
        claim = ledger.claims[match.group(1)]
        figure = _best(claim, full, quick)
        if figure is None:
            return judged[claim.id].text
        mean, width = figure.mean - claim.reference, _width(figure) or 0.0
        return f"{mean:+.1f} ± {width:.1f} ({_verdict(claim, judged[claim.id], full)})"

    return [re.sub(PLACE, fill, line) for line in lines]


def slug(table: str) -> str:
    """Name a table's picture."""
    return re.sub(r"[^a-z0-9]+", "-", table.lower()).strip("-")


def _best(claim: Claim, full: Figures, quick: Figures) -> Figure | None:
    sides = full.get(claim.id) or quick.get(claim.id)
    return sides["figure"] if sides else None


def _row(claim: Claim, verdict: Verdict, bearing: Bearing, full: Figures, quick: Figures) -> list[str]:
    sides = full.get(claim.id) or quick.get(claim.id) or {}
    found = [_level(sides[name]) for name in ("left", "right") if name in sides]
    reached = [] if claim.ours or claim.level is None else [claim.level]
    published = [f"{value:.2f}" for value in claim.paper or reached]
    again = quick.get(claim.id)
    p = verdict.p_holm
    return [
        claim.says,
        claim.data,
        " - ".join(published) + (f" ({claim.on})" if published and claim.on else ""),
        " against ".join(found),
        _difference(claim, _best(claim, full, quick)) if sides else "",
        _networks(claim, sides["figure"]) if sides else "",
        "" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}",
        _difference(claim, again["figure"]) if again and claim.id in full else "",
        _verdict(claim, verdict, full) if sides else verdict.text,
        "a question of ours" if claim.ours else "" if not bearing.applies else YES if bearing.bears else NO,
        Markdown(_spent(bearing)),
    ]


def _networks(claim: Claim, figure: Figure) -> str:
    """Count networks or seeds, beside how many the claim is about where the others have not run yet."""
    return f"{figure.seeds} of {len(claim.left)}" if figure.seeds < len(claim.left) else str(figure.seeds)


def _spent(bearing: Bearing) -> str:
    """List what was spent; what keeps a row from bearing is bold."""
    phrases = dict.fromkeys((*bearing.budget, *bearing.missing))
    return ", ".join(f"**{phrase}**" if phrase in bearing.missing else phrase for phrase in phrases)


def _row_of_page(row: Elsewhere) -> list[str]:
    """Lay out a row that no run of the suites measured."""
    levels = [float(side.split()[0]) for side in (row.left, row.right)]
    difference = row.difference or f"{levels[0] - levels[1]:+.2f}"
    found = f"{row.left} against {row.right}"
    return [
        row.says,
        row.data,
        "",
        found,
        difference,
        "",
        "",
        "",
        Markdown(f"no claim: [{row.page}]({row.page})"),
        "",
        "",
    ]


def _verdict(claim: Claim, verdict: Verdict, full: Figures) -> str:
    """Say where the quick suite alone has run."""
    return verdict.text + ("" if claim.id in full else "; few episodes")


def _level(figure: Figure) -> str:
    width = _width(figure)
    return f"{figure.mean:.2f}" + ("" if width is None else f" (± {width:.2f})")


def _width(figure: Figure) -> float | None:
    """Say what a figure is shown with: the interval that decides or, where none does, the widest."""
    decides = basis(figure).half_width
    return max(figure.intervals.values(), default=None) if decides is None else decides


def _rounded(found: Basis) -> dict[str, Any]:
    """Put what decides into JSON."""
    return {
        "over": list(found.over),
        "half_width": None if found.half_width is None else round(found.half_width, DIGITS),
        "p": None if found.p is None else float(f"{found.p:.4g}"),
    }


def _difference(claim: Claim, figure: Figure | None) -> str:
    """Format a difference, or how far a level in points is from the published one, with what varies."""
    if figure is None:
        return "not run yet"
    named = sorted(figure.intervals.items(), key=lambda pair: SOURCES.index(pair[0]))
    parts = [f" ± {value:.2f} {name}" for name, value in named]
    found = basis(figure)
    if len(found.over) > 1:
        parts.append(f" ± {found.half_width:.2f} both at once")
    return f"{figure.mean - claim.reference:+.2f}" + "".join(parts)

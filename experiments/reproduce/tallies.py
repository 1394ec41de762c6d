"""Counts of verdicts beside what they rest on, and what became of verdicts under other rules."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from otfew.errors import UserError
from otfew.experiments.reproduce.budget import NO, YES, Bearing
from otfew.experiments.reproduce.claims import Claim, Ledger
from otfew.experiments.reproduce.figures import Figure
from otfew.experiments.reproduce.verdict import CONFIRMED, CONTRADICTED, FEW, KINDS, Verdict, basis, kind_of
from otfew.reporting.tables import Table, markdown

BEFORE = "verdicts-before.json"
"""File below docs/results: what the verdicts were before there were two columns, by id."""
DECIDED = (CONFIRMED, CONTRADICTED)


def networks(bearing: Bearing, figure: Figure | None) -> frozenset[str]:
    """Name the independent networks behind a row: seeds of one training count each."""
    if figure is None or "seeds" not in figure.intervals:
        return bearing.bases
    return frozenset(f"{base}, seed {seed}" for base in bearing.bases for seed in range(1, figure.seeds + 1))


def counts(
    ledger: Ledger,
    judged: Mapping[str, Verdict],
    bears: Mapping[str, Bearing],
    figures: Mapping[str, Figure],
    survivors: Iterable[str],
) -> list[str]:
    """Count verdicts, beside what bears on papers, what survives one correction, and the networks behind all of it.

    Args:
        ledger: The claims.
        judged: By id.
        bears: By id.
        figures: By id, of claims that have one.
        survivors: Ids of what survives one correction over all claims.
    """
    kept = set(survivors)
    behind = {id_: networks(bears[id_], figures.get(id_)) for id_ in ledger.claims}
    rows = []
    for kind in KINDS:
        mine = [claim for claim in ledger.claims.values() if judged[claim.id].kind == kind]
        if mine:
            decided = kind.startswith(DECIDED)
            # Runs of before may be there, without the arm.
            run = [claim for claim in mine if claim.id in figures]
            rows.append(
                (
                    kind,
                    sum(not claim.ours for claim in mine),
                    sum(bears[claim.id].bears for claim in run),
                    sum(claim.ours for claim in mine),
                    sum(claim.id in kept for claim in mine) if decided else "",
                    len(frozenset().union(*(behind[claim.id] for claim in run))) or "",
                )
            )
    head = (
        "found here",
        "claims of papers",
        "of them, bearing on the paper's",
        "questions of ours",
        "survive together",
        "independent networks behind them",
    )
    every = sorted(frozenset().union(*(behind[id_] for id_ in figures)))
    stored = [name for name in every if " on " not in name]
    return [
        markdown(Table("", head, rows)).rstrip(),
        "",
        f'"Survive together": differences that are decided after one correction (Holm) over all claims at once. Behind '
        f"all {len(figures)} rows with a figure stand {len(every)} independent networks: {len(stored)} pre-trained "
        f"ones ({', '.join(stored)}), {sum('-lt' in name for name in every)} first stages of long tails, and "
        f"{sum(' on ' in name and '-lt' not in name for name in every)} seeds of metric learning. Those that only "
        "meta-training tells apart count once.",
    ]


def changes(
    ledger: Ledger,
    judged: Mapping[str, Verdict],
    bears: Mapping[str, Bearing],
    figures: Mapping[str, Figure],
    survivors: Iterable[str],
    before: Mapping[str, str],
) -> list[str]:
    """Write the table of verdicts before and after, and the rows whose verdict is another.

    Args:
        ledger: The claims.
        judged: By id.
        bears: By id.
        figures: By id.
        survivors: As in ``counts``.
        before: Id -> verdict.
    """
    there = [claim for claim in ledger.claims.values() if claim.id in before]
    was = {claim.id: kind_of(before[claim.id]) for claim in there}
    now = {claim.id: judged[claim.id].kind for claim in there}
    kinds = [kind for kind in KINDS if kind in {*was.values(), *now.values()}]
    rows = []
    for kind in kinds:
        mine = [claim for claim in there if was[claim.id] == kind]
        found = Counter(now[claim.id] for claim in mine)
        bearing = sum(bears[claim.id].bears for claim in mine)
        rows.append([kind, str(len(mine)), *(str(found[k] or "") for k in kinds), str(bearing or "")])
    head = ("before", "rows", *(f"now {kind}" for kind in kinds), "now bearing on the paper's claim")
    kept = set(survivors)
    listed = [
        [
            claim.says,
            claim.data,
            before[claim.id],
            judged[claim.id].text,
            _bears(claim, bears[claim.id]),
            _decides(figures.get(claim.id)),
            "yes" if claim.id in kept else "no",
            str(len(networks(bears[claim.id], figures.get(claim.id)))),
        ]
        for claim in there
        if before[claim.id] != judged[claim.id].text
    ]
    return [
        markdown(Table("", head, rows)).rstrip(),
        "",
        f"Rows whose verdict found here is another now ({len(listed)} of {len(there)}):",
        "",
        markdown(Table("", _LISTED, listed)).rstrip(),
    ]


def load(results: Path) -> tuple[str, dict[str, str]]:
    """Read what the verdicts were, and when; nothing where that was not kept.

    Raises:
        UserError: The file is damaged.
    """
    path = results / BEFORE
    if not path.exists():
        return "", {}
    try:
        found = json.loads(path.read_bytes())
        return str(found["on"]), {id_: str(text) for id_, text in found["verdicts"].items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({error}): restore it from the repository.") from None


def section(on: str, lines: Sequence[str]) -> list[str]:
    """Write the part of the page that holds the lines of ``changes``."""
    return ["## Before and after", "", _SECTION.replace("{on}", on), "", *lines]


def _bears(claim: Claim, bearing: Bearing) -> str:
    if claim.ours:
        return "a question of ours"
    return "" if not bearing.applies else YES if bearing.bears else NO


def _decides(figure: Figure | None) -> str:
    """Write what a verdict rests on, with p before any correction."""
    if figure is None:
        return ""
    found = basis(figure)
    if found.half_width is None:
        return ""
    p = "" if found.p is None else f", p {found.p:.2g}"
    return f"{figure.mean:+.2f} ± {found.half_width:.2f} over {' and '.join(found.over)}{p}"


_LISTED = (
    "claim", "on", "before", "found here", "bears on the paper's claim", "decided by", "survives one correction",
    "independent networks",
)  # fmt: skip

_SECTION = f"""The verdicts of {{on}}, when there was one column and each verdict of a paper's claim was read as one
about the paper, beside those of today's rules: two columns; repetitions of a timing are no networks; the classes of
long tails are fixed; classes and networks are crossed. Rows that came since are left out. "{FEW.strip()[1:-1]}": fewer
than three."""

"""The ledger as a page and as a record: every claim with what was published, what was found, and a verdict."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from otfew.experiments._ledger_claims import Claim, Ledger
from otfew.experiments._ledger_evidence import Figures
from otfew.experiments._ledger_figures import Figure
from otfew.experiments._ledger_verdict import KINDS, Verdict, judge
from otfew.report import markdown

PICTURES = "reproduction"
"""Folder of the pictures, beside the page."""
HEAD = ("claim", "on", "published", "found", "difference", "Holm's p", "again, few episodes", "verdict")


def verdicts(ledger: Ledger, full: Figures, quick: Figures) -> dict[str, Verdict]:
    """Judge every claim, by the figures of the full suite or, where there are none, of the quick one."""
    found: dict[str, Verdict] = {}
    for _, claims in ledger.tables():
        found |= judge(claims, {claim.id: _best(claim, full, quick) for claim in claims if _best(claim, full, quick)})  # type: ignore[misc]
    return found


def records(ledger: Ledger, full: Figures, quick: Figures) -> dict[str, Any]:
    """Return what claims.json holds: a record for each claim.

    Returns:
        Id -> "table", "source", "says", "data", "paper", "on", "reruns", "delta", "verdict", "p_holm", "seeds",
        "evidence" (files, relative to the folder of claims.json), and by suite "figure", "left" and "right".
    """
    judged = verdicts(ledger, full, quick)
    made = {}
    for claim in ledger.claims.values():
        suites = {suite: found[claim.id] for suite, found in (("full", full), ("quick", quick)) if claim.id in found}
        best = _best(claim, full, quick)
        made[claim.id] = {
            "table": claim.table,
            "source": ledger.sources[claim.table],
            **{name: getattr(claim, name) for name in ("says", "data", "on", "reruns", "delta", "untestable")},
            "paper": list(claim.paper),
            "level": claim.level,
            "verdict": judged[claim.id].text,
            "p_holm": None if judged[claim.id].p_holm is None else float(f"{judged[claim.id].p_holm:.4g}"),
            "seeds": best.seeds if best else 0,
            "evidence": [f"{'' if suite == 'full' else 'quick/'}{run}.json" for suite in suites for run in claim.runs],
            **{s: {name: figure.to_json() for name, figure in sides.items()} for s, sides in suites.items()},
        }
    return made


def page(ledger: Ledger, full: Figures, quick: Figures, commands: Mapping[str, str]) -> bytes:
    """Write docs/reproduction.md.

    Args:
        ledger: The claims.
        full: Figures of the full suite.
        quick: Figures of the quick suite.
        commands: Run -> the command that it is.
    """
    judged = verdicts(ledger, full, quick)
    counts = Counter(verdict.kind for verdict in judged.values())
    pieces = [_INTRODUCTION, "", "| verdict | claims |", "|---|---:|"]
    pieces += [f"| {kind} | {counts[kind]} |" for kind in KINDS if counts[kind]]
    for table, claims in ledger.tables():
        pieces += ["", f"## {table}", "", f"{ledger.sources[table]}.", ""]
        pieces.append(markdown(HEAD, [_row(claim, judged[claim.id], full, quick) for claim in claims], []).rstrip())
        if any(claim.id in full or claim.id in quick for claim in claims):
            pieces += ["", f"![{table}: published and found differences]({PICTURES}/{slug(table)}.png)"]
        notes = dict.fromkeys(
            [
                *(f"{claim.says}: not testable here, since {claim.untestable}" for claim in claims if claim.untestable),
                *(f"measured by others: {claim.reruns}" for claim in claims if claim.reruns),
            ]
        )
        pieces += ["", *(f"- {note}" for note in notes)] if notes else []
    pieces += ["", "## Runs", "", _RUNS, "", *(f"    # {run}\n    {commands[run]}" for run in commands)]
    return ("\n".join(pieces) + "\n").encode()


def summary(ledger: Ledger, full: Figures, quick: Figures) -> str:
    """Fill the README's lines: {ID} becomes a claim's figure and verdict."""
    judged = verdicts(ledger, full, quick)

    def fill(match: re.Match[str]) -> str:
        claim = ledger.claims[match.group(1)]
        return f"{_difference(claim, _best(claim, full, quick))}, {judged[claim.id].text}"

    return "\n".join(re.sub(r"\{([\w-]+)\}", fill, line) for line in ledger.summary)


def slug(table: str) -> str:
    """Name a table's picture."""
    return re.sub(r"[^a-z0-9]+", "-", table.lower()).strip("-")


def _best(claim: Claim, full: Figures, quick: Figures) -> Figure | None:
    sides = full.get(claim.id) or quick.get(claim.id)
    return sides["figure"] if sides else None


def _row(claim: Claim, verdict: Verdict, full: Figures, quick: Figures) -> list[str]:
    sides = full.get(claim.id) or quick.get(claim.id) or {}
    found = [f"{sides[name].mean:.2f}" for name in ("left", "right") if name in sides]
    published = [f"{value:.2f}" for value in claim.paper or ([claim.level] if claim.level is not None else [])]
    again = quick.get(claim.id)
    p = verdict.p_holm
    return [
        claim.says,
        claim.data,
        " - ".join(published) + (f" ({claim.on})" if published and claim.on else ""),
        " - ".join(found),
        _difference(claim, _best(claim, full, quick)) if sides else "",
        "" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}",
        _difference(claim, again["figure"]) if again and claim.id in full else "",
        verdict.text,
    ]


def _difference(claim: Claim, figure: Figure | None) -> str:
    """Format a difference, or how far a level is from the published one, with what varies."""
    if figure is None:
        return "not run yet"
    mean = figure.mean - (claim.level or 0.0)
    return f"{mean:+.2f}" + "".join(f" ± {value:.2f} {name}" for name, value in figure.intervals.items())


_RUNS = """The full suite; the quick one takes fewer episodes and leaves out what needs training, many crops or many
methods (`quick` in `experiments/claims.toml`). What each found lies in `results/RUN.json` and in
`results/quick/RUN.json`."""

_INTRODUCTION = """# Reproduction

What four papers on optimal transport in few-shot and transfer learning claim, tested on real images with small
networks. Written by a command, from the files in [results](results); no figure is typed by hand:

    python -m experiments.reproduce --suite quick     # minutes: committed checkpoints again, with few episodes
    python -m experiments.reproduce --suite full      # hours: every run, trained anew where a checkpoint is missing

The claims, what would confirm them and the margins stand in `experiments/claims.toml`, which was committed before the
runs; the first tables of birds and CIFAR-FS, and those with an ImageNet network, had been seen by then.

How to read it:

- Differences are points of accuracy (retrieval: MAP@R; metric learning: mAP), left minus right, on the same episodes,
  queries or images. Each ± is half of a 95 % interval over what stands behind it: episodes, classes (a jackknife), and
  networks or seeds (Student's t). A verdict takes the widest of them, and Holm's correction over the claims of its
  table.
- **confirmed** and **contradicted**: the difference stands and has the sign that the paper claims, or the other one.
  **equivalent**: the interval lies within the margin. **inconclusive**: neither.
- "on this checkpoint": fewer than three networks; nothing is said of others.
- Published figures are of larger networks, and mostly of other data: compare signs and order, not levels.
- "again": the quick suite's figure, where both have run.
- Data: 22 of 50 test species of CUB, cropped near the bird, 84 px; CIFAR-FS and FC100 at 32 px; CIFAR-10 as a JPEG
  copy."""

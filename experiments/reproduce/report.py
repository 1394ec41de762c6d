"""The ledger as a page and as a record: every claim with what was published, what was found, and a verdict."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from otfew.experiments.reproduce.budget import NO, YES, Bearing
from otfew.experiments.reproduce.claims import PLACE, Claim, Elsewhere, Ledger
from otfew.experiments.reproduce.evidence import Figures
from otfew.experiments.reproduce.figures import Figure
from otfew.experiments.reproduce.verdict import CONFIRMED, CONTRADICTED, KINDS, Verdict, judge, surviving
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
        Id -> what claims.toml says, "verdict", "p_holm", "seeds", "survives" (one
        correction over all claims), "bears" (null
        for questions of ours), "spent", "missing", "networks", "evidence" (files, relative to the folder of
        claims.json), and by suite "figure", "left" and "right".
    """
    judged = verdicts(ledger, full, quick)
    survivors = _survivors(ledger, full, quick, judged)
    made = {}
    for claim in ledger.claims.values():
        suites = {suite: found[claim.id] for suite, found in (("full", full), ("quick", quick)) if claim.id in found}
        best = _best(claim, full, quick)
        made[claim.id] = {
            "table": claim.table,
            "source": ledger.sources[claim.table],
            **{n: getattr(claim, n) for n in ("says", "data", "arms", "on", "reruns", "delta", "ours", "untestable")},
            "paper": list(claim.paper),
            "level": claim.level,
            "verdict": judged[claim.id].text,
            "p_holm": None if judged[claim.id].p_holm is None else float(f"{judged[claim.id].p_holm:.4g}"),
            "seeds": best.seeds if best else 0,
            "survives": claim.id in survivors,
            "bears": bears[claim.id].bears if bears[claim.id].applies else None,
            "spent": list(bears[claim.id].budget),
            "missing": list(bears[claim.id].missing),
            "networks": sorted(bears[claim.id].bases),
            "evidence": [f"{'' if suite == 'full' else 'quick/'}{run}.json" for suite in suites for run in claim.runs],
            **{s: {name: figure.to_json() for name, figure in sides.items()} for s, sides in suites.items()},
        }
    return made


def page(
    ledger: Ledger,
    full: Figures,
    quick: Figures,
    bears: Mapping[str, Bearing],
    commands: Mapping[str, str],
    history: Sequence[str] = (),
) -> bytes:
    """Write docs/reproduction.md.

    Args:
        ledger: The claims.
        full: Figures of the full suite.
        quick: Figures of the quick suite.
        bears: Whether each claim's row bears on the paper's claim.
        commands: Run -> the command that it is.
        history: Lines on what was fixed and what was changed.
    """
    judged = verdicts(ledger, full, quick)
    pieces = [_INTRODUCTION, "", *_counts(ledger, full, quick, bears, judged)]
    if ledger.summary:
        pieces += ["", "## In short", "", _SHORT, "", *summary(ledger, full, quick)]
    for table, claims in ledger.tables():
        source = ledger.sources[table]
        pieces += ["", f"## {table}", "", f"Questions of ours about {source}." if claims[0].ours else f"{source}.", ""]
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
    if history:
        pieces += ["", *history]
    pieces += ["", "## Runs", "", _RUNS, "", *(f"    # {run}\n    {commands[run]}" for run in commands)]
    return ("\n".join(pieces) + "\n").encode()


def _counts(
    ledger: Ledger, full: Figures, quick: Figures, bears: Mapping[str, Bearing], judged: Mapping[str, Verdict]
) -> list[str]:
    """Count verdicts, beside what bears on papers, what survives one correction, and the networks behind all of it."""
    survivors = _survivors(ledger, full, quick, judged)
    rows = []
    for kind in KINDS:
        mine = [claim for claim in ledger.claims.values() if judged[claim.id].kind == kind]
        if mine:
            decided = kind.startswith((CONFIRMED, CONTRADICTED))
            rows.append(
                (
                    kind,
                    sum(not claim.ours for claim in mine),
                    sum(bears[claim.id].bears for claim in mine),
                    sum(claim.ours for claim in mine),
                    sum(claim.id in survivors for claim in mine) if decided else "",
                )
            )
    head = (
        "found here",
        "claims of papers",
        "of them, bearing on the paper's",
        "questions of ours",
        "survive together",
    )
    names = sorted({name for claim in ledger.claims.values() for name in bears[claim.id].bases})
    return [
        markdown(Table("", head, rows)).rstrip(),
        "",
        f'"Survive together": differences that are decided after one correction (Holm) over all claims at once. Behind '
        f"all rows but those of metric learning and long tails, which train their own, stand {len(names)} networks: "
        f"{', '.join(names)}.",
    ]


def _survivors(ledger: Ledger, full: Figures, quick: Figures, judged: Mapping[str, Verdict]) -> set[str]:
    claims = ledger.claims.values()
    figures = {claim.id: figure for claim in claims if (figure := _best(claim, full, quick)) is not None}
    return surviving(claims, figures, judged)


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
        mean, width = figure.mean - claim.reference, max(figure.intervals.values(), default=0.0)
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
        str(sides["figure"].seeds) if sides else "",
        "" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}",
        _difference(claim, again["figure"]) if again and claim.id in full else "",
        _verdict(claim, verdict, full) if sides else verdict.text,
        "a question of ours" if claim.ours else "" if not bearing.applies else YES if bearing.bears else NO,
        Markdown(_spent(bearing)),
    ]


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
    widest = max(figure.intervals.values(), default=None)
    return f"{figure.mean:.2f}" + ("" if widest is None else f" (± {widest:.2f})")


def _difference(claim: Claim, figure: Figure | None) -> str:
    """Format a difference, or how far a level in points is from the published one, with what varies."""
    if figure is None:
        return "not run yet"
    named = sorted(figure.intervals.items(), key=lambda pair: SOURCES.index(pair[0]))
    return f"{figure.mean - claim.reference:+.2f}" + "".join(f" ± {value:.2f} {name}" for name, value in named)


_RUNS = """The full suite; the quick one takes fewer episodes and only what committed checkpoints allow in minutes
(`quick` in `experiments/claims.toml`). What each found, with its protocol, lies in `results/RUN.json` and
`results/quick/RUN.json`."""

_SHORT = """Points of accuracy (MAP@R, mAP) ± the widest of the 95 % intervals, and the verdict. Networks are of
quarter width; those of birds had 60 epochs of 120, those of CIFAR-FS 15 of 120, end-to-end training 500 episodes of
5,000, metric learning 10 epochs, long tails at factor 100 all 200 epochs."""

_INTRODUCTION = """# Reproduction

What four papers on optimal transport in few-shot and transfer learning claim, and questions of ours beside it, tested
on real images with the networks that two cores can train. Written by a command from the files in [results](results);
no figure is typed by hand:

    python -m experiments.reproduce --suite quick     # minutes: committed checkpoints again, with few episodes
    python -m experiments.reproduce --suite full      # hours: every run, trained anew where a checkpoint is missing

The claims, the margins and the arms stand in `experiments/claims.toml`, first committed before most of the runs. Which
figures were known by then, and what was changed since, with or without its figure known:
[Fixed before the figures, and changed since](#fixed-before-the-figures-and-changed-since). Not listed there are
wordings and the published figures beside MatchingNet, which changed with figures known.

How to read it:

- Differences are points of accuracy (retrieval: MAP@R; metric learning: mAP), left minus right, on the same episodes,
  queries or images; beside a published level, what is found beyond it; in Table 6, times as long. Each ± is half of a
  95 % interval over what stands behind it: episodes, queries or images from these very classes; classes (a jackknife);
  networks, seeds or runs (Student's t). Pairing takes out what both sides share: two levels with wide intervals can
  have a difference with a narrow one. Levels of metric learning are over all seeds of a loss, differences over those
  that both have.
- Two columns. "Found here" is the verdict on our data and networks. "Bears on the paper's claim" follows one rule for
  all rows, in `experiments/claims.lock`, written down after one look at its outcome: the last two sentences came from
  that look, and the last decides a row. Each network behind the row is of the paper's kind; its width, epochs,
  episodes of meta-training, training images and resolution are at least half the paper's; its validation curve was
  kept and rises by at most 0.5 points in its last tenth; it was trained on the kind of nodes that it is tested on;
  the data set, whole, is one of the paper's. Else "not at this budget", and what is missing is bold in the last
  column. An arm without meta-training beside one with it is what the claim starts from. Ratios of times rest on none
  of this.
- A verdict takes the widest interval, and Holm's correction of p over classes (over seeds where only those are known)
  for the claims of its table; other pages correct for other families, so that verdicts at the edge differ. Intervals
  are not corrected, and each holds the other sources fixed: the widest is too narrow for other classes and other
  networks at once.
- **confirmed** and **contradicted**: the difference stands, and left is better, as claimed, or worse. **equivalent**:
  the interval lies within the margin. **inconclusive**: neither. Margins (1 point; LST and retrieval 0.5) say what
  would matter to a user: where the published gain is smaller, "equivalent" does not contradict it.
- "on this checkpoint", "on these checkpoints", "with 2 seeds": fewer than three; nothing is said of others. Counted
  apart, as "few networks". A claim about a way of training needs three networks or seeds: with fewer it is
  inconclusive ("1 of 3 networks"), whatever its figure. "On one machine": repetitions of a timing are no networks,
  and it is counted among these. Rows share networks and arms: their number is no number of independent findings.
- Published figures are of larger networks, mostly of other data, and trained end to end where ours, unless a claim says
  so, are only pre-trained, on whole images: compare signs and order, not levels. Beside a question of ours there are
  none.
- "no claim": the same question with another network or size, from the page that is named, with what is known there; a
  difference without an interval is that of the two levels. They are rows so that no variant is left out.
- "again": the quick suite's figure, where both have run.
- Birds: 22 of the 50 test species of CUB's FEAT split, cropped near the bird, 84 px (for retrieval with an ImageNet
  network 50 of the 100 species present, 224 px). CIFAR-FS and FC100 at 32 px. Omniglot: characters as drawn, where the
  papers add rotated ones as classes. CIFAR-10 is a JPEG copy.
- The committed pre-trained networks kept the epoch at which `deepemd-fcn` was best on validation classes, which leans
  towards DeepEMD if towards any; new ones keep their last epoch. The ImageNet network (efficientnet-lite0) is external
  data: some test classes bear names of its classes."""

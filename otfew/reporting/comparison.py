"""A comparison as a table, as a report in Markdown, and episode by episode as CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from otfew.evaluation.episodes import Indices
from otfew.evaluation.estimates import Floats
from otfew.reporting import tables
from otfew.reporting.sentences import (
    contrast_lines,
    mark,
    milliseconds,
    percent,
    protocol_lines,
    timing_lines,
    transport_lines,
    wide,
    words,
)

__all__ = [
    "classes_csv", "contrast_lines", "episodes_csv", "mark", "markdown", "panels_csv", "protocol_lines", "table",
    "timing_lines", "transport_lines", "words",
]  # fmt: skip

COLUMNS = (
    "method",
    "accuracy %\n± episodes ± classes",
    "difference\n± classes",
    "verdict\n(Holm's p)",
    "ms per\nepisode",
    "with\nextraction",
)
"""Head of the table; a line break may be a space."""
UNKNOWN_COLUMNS = ("AUROC of unknown\n± episodes", "log-loss\n± episodes", "Brier\n± episodes")
"""What follows where episodes ask about images of unknown classes."""


TIMES = slice(4, 6)
"""Places of the columns that differ from run to run."""


def table(
    results: Mapping[str, Any], timings: Mapping[str, Any], *, times: bool = True
) -> tuple[list[str], list[list[str]]]:
    """Lay the comparison out as text, best method first, inductive ones before transductive ones.

    Args:
        results: With "methods" as ``compare`` gives them.
        timings: "methods": name -> "ms_per_episode" and, where known, "ms_per_episode_with_extraction".
        times: Show them.

    Returns:
        Head and rows.
    """
    nodes_differ = len({record["nodes"] for record in results["methods"].values()}) > 1
    ranked = sorted(
        results["methods"].items(), key=lambda item: (item[1]["transductive"], -item[1]["accuracy"]["mean"])
    )
    head = [*COLUMNS, *(UNKNOWN_COLUMNS if any("unknown" in record for _, record in ranked) else ())]
    if any("photo_ci" in record["accuracy"] for _, record in ranked):
        head = [column.replace("± classes", "± photos") for column in head]
    rows = [_row(name, record, timings["methods"][name], nodes_differ) for name, record in ranked]
    if not times:
        for row in (head, *rows):
            del row[TIMES]
    return head, rows


def _row(name: str, record: Mapping[str, Any], timing: Mapping[str, Any], show_nodes: bool) -> list[str]:
    """One method as text."""
    label = mark(name + (f" [{record['nodes']}]" if show_nodes else ""), record)
    accuracy, difference = record["accuracy"], record.get("difference")
    row = [
        label,
        f"{percent(accuracy['mean'])} ± {percent(accuracy['episode_ci'])} ± {percent(wide(accuracy))}",
    ]
    if difference is None:
        row += ["reference", ""]
    else:
        row += [f"{percent(difference['mean'], sign=True)} ± {percent(wide(difference))}", words(difference)]
    row += [milliseconds(timing["ms_per_episode"]), milliseconds(timing.get("ms_per_episode_with_extraction"))]
    if "unknown" in record:
        row += [_with_episodes(record["unknown"][key]) for key in ("auroc", "log_loss", "brier")]
    return row


def _with_episodes(record: Mapping[str, Any]) -> str:
    """Format a figure that is no share, with its interval over episodes."""
    width = record["episode_ci"]
    return f"{record['mean']:.3f} ± {'–' if width is None else format(width, '.3f')}"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]], lines: Sequence[str]) -> str:
    """Write the table and the sentences below it."""
    return f"{tables.markdown(tables.Table('', head, rows))}\n{tables.bullets(lines)}"


def panels_csv(panels: Mapping[str, Mapping[str, Floats]]) -> bytes:
    """A row for every panel, method and episode, of panel -> name -> (episodes,) accuracies."""
    rows = (
        (key, name, i, round(a, 8))
        for key, accuracies in panels.items()
        for name, values in accuracies.items()
        for i, a in enumerate(values.tolist())
    )
    return tables.to_csv(["panel", "method", "episode", "accuracy"], rows)


def episodes_csv(accuracies: Mapping[str, Floats]) -> bytes:
    """A row for every method and episode: method, episode, accuracy; of name -> (episodes,) accuracies."""
    rows = ((name, i, round(a, 8)) for name, values in accuracies.items() for i, a in enumerate(values.tolist()))
    return tables.to_csv(["method", "episode", "accuracy"], rows)


def classes_csv(classes: Indices, class_names: Sequence[str]) -> bytes:
    """A row for every episode, its classes by name: with these, differences between runs can be paired later."""
    head = ["episode", *(f"class {i + 1}" for i in range(classes.shape[1]))]
    return tables.to_csv(head, ((i, *(class_names[c] for c in row)) for i, row in enumerate(classes.tolist())))

"""Answers about photos as a table, the same bytes for the same answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from otfew.classifier.answers import Answer
from otfew.classifier.few_shot import FewShotClassifier
from otfew.reporting.tables import to_csv

HEAD = ("file", "label", "confidence", "runner_up", "runner_up_confidence", "unknown", "nearest")
"""Columns."""
DIGITS = 6


def row(name: str, answer: Answer | None, fitted: FewShotClassifier) -> list[Any]:
    """Put an answer into columns.

    Args:
        name: Of the file.
        answer: None for a file that could not be used, which has nothing but its name.
        fitted: Who gave the answer.
    """
    if answer is None:
        return [name, *[None] * (len(HEAD) - 1)]
    return [
        name,
        answer.label,
        round(answer.confidence, DIGITS),
        answer.runner_up,
        round(answer.runner_up_confidence, DIGITS),
        answer.unknown,
        fitted.labelled_.photos[answer.nearest].title,
    ]


def answers_csv(rows: Sequence[Sequence[Any]], head: Sequence[str] = HEAD) -> bytes:
    """Write rows as CSV: "yes" and "no", and nothing where nothing is known.

    Args:
        rows: See ``row``.
        head: Of the columns.
    """
    return to_csv(head, [[_cell(value) for value in own] for own in rows])


def _cell(value: Any) -> Any:
    return "" if value is None else {True: "yes", False: "no"}[value] if isinstance(value, bool) else value

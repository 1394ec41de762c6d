"""A comparison as data: plain rows of figures, and DataFrames made of them where pandas is installed.

Accuracies, differences and half-widths are fractions of 1 here, as in results.json; text for people is in per cent.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from otfew.errors import UserError
from otfew.evaluation.answers import Answers
from otfew.reporting.contrasts import contrasts
from otfew.reporting.tables import Cell

if TYPE_CHECKING:
    import pandas as pd

Row = dict[str, Cell]

FIGURES = ("mean", "episode_ci", "class_ci", "photo_ci")
"""What an estimate holds -> a column each, where it is there."""
TIMES = {"ms_per_episode": "ms_per_episode", "ms_per_episode_with_extraction": "ms_per_episode_with_extraction"}


def need_pandas(what: str) -> Any:
    """Import pandas.

    Args:
        what: That needs it, for the sentence.

    Raises:
        UserError: It is not installed.
    """
    try:
        return importlib.import_module("pandas")
    except ImportError as error:
        raise UserError(f'`{what}` needs pandas: pip install "otfew[pandas]".') from error


def rows(results: Mapping[str, Any], timings: Mapping[str, Any] | None = None) -> list[Row]:
    """Lay out the figures of every method, in the order of the printed table.

    Args:
        results: As in results.json.
        timings: As in timings.json; None leaves times out.

    Returns:
        A row for every method, all with the same columns: "method", "accuracy" with its half-widths, "to" whom
        "difference" is with its half-widths, "p", "p_holm" and "verdict"; what transport adds over each control, such
        as "adds_over_chamfer", with its half-widths, p-values and verdict, and why some are "adds_missing"; in runs of
        format 1 "best_control" and "adds_over_best_control", whose control was chosen on the very episodes; "nodes",
        "transductive", "class_prior", figures of unknown classes, times.
    """
    methods = results["methods"]
    ranked = sorted(methods, key=lambda name: (methods[name]["transductive"], -methods[name]["accuracy"]["mean"]))
    found = [_row(name, methods[name], results["transport_adds"].get(name, {})) for name in ranked]
    if timings is not None:
        for row in found:
            row.update({key: timings["methods"][str(row["method"])].get(key) for key in TIMES})
    return aligned(found)


def aligned(found: Sequence[Row]) -> list[Row]:
    """Give all rows the columns of all, in the order in which they first come; None where a row has nothing."""
    columns = dict.fromkeys(key for row in sorted(found, key=len, reverse=True) for key in row)
    return [{key: row.get(key) for key in columns} for row in found]


def _row(name: str, record: Mapping[str, Any], adds: Mapping[str, Any]) -> Row:
    difference = record.get("difference", {})
    row: Row = {"method": name, **_figures("accuracy", record["accuracy"]), "to": difference.get("to")}
    # A reference has no difference, and yet its columns.
    row |= _figures("difference", difference or dict.fromkeys(record["accuracy"].keys() & set(FIGURES)))
    row |= {key: difference.get(key) for key in ("p", "p_holm", "verdict")}
    row |= _contrasts(adds)
    row |= {"nodes": record["nodes"], "transductive": record["transductive"], "class_prior": record.get("class_prior")}
    for key in ("auroc", "log_loss", "brier"):
        row |= _figures(key, record.get("unknown", {}).get(key, {}))
    return row


def _contrasts(adds: Mapping[str, Any]) -> Row:
    """Lay out what transport adds: columns of a name for each control."""
    row: Row = {}
    for contrast in contrasts(adds):
        name = f"adds_over_{'best_control' if contrast.old else contrast.named}"
        row |= {"best_control": contrast.control} if contrast.old else {}
        row |= _figures(name, contrast.record)
        row |= {f"{name}_{key}": contrast.record[key] for key in ("p", "p_holm", "verdict")}
    return row | ({"adds_missing": adds["reason"]} if "reason" in adds else {})


def _figures(name: str, record: Mapping[str, Any]) -> Row:
    """Name the parts of an estimate: NAME, NAME_episode_ci, NAME_class_ci or NAME_photo_ci."""
    return {name if key == "mean" else f"{name}_{key}": record[key] for key in FIGURES if key in record}


def frame(found: Sequence[Row], index: Sequence[str]) -> pd.DataFrame:
    """Make a DataFrame of rows.

    Args:
        found: From ``rows``.
        index: Columns that become the index.
    """
    made: pd.DataFrame = need_pandas("table").DataFrame.from_records([dict(row) for row in found])
    return made.set_index(list(index) if len(index) > 1 else index[0])


def predictions(answers: Answers) -> pd.DataFrame:
    """Lay out every answer, a row for each method and query.

    Args:
        answers: Of a run.

    Returns:
        "episode", "query" (its place in the episode), "image" (its name), "label", "method", "predicted", "right", and,
        where logits were kept, "logit" of the answer and "margin" to the next class. Names are categories.
    """
    pandas = need_pandas("predictions")
    methods, episodes, queries = answers.predicted.shape
    shape = (methods, episodes, queries)
    truth, answered = answers.truth, answers.answered

    def spread(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return np.broadcast_to(values, shape).ravel()

    def named(codes: np.ndarray[Any, Any], names: Sequence[str]) -> Any:
        return pandas.Categorical.from_codes(spread(codes), pandas.Index(_unique(names), dtype=object))

    columns: dict[str, Any] = {
        "episode": spread(np.arange(episodes)[None, :, None]),
        "query": spread(np.arange(queries)[None, None, :]),
        "image": named(answers.query[None].astype(np.int64), answers.images),
        "label": named(truth[None], answers.class_names),
        "method": named(np.arange(methods)[:, None, None], answers.methods),
        "predicted": named(answered, answers.class_names),
        "right": spread(answered == truth[None]),
    }
    if answers.logits is not None:
        best = np.sort(answers.logits, -1)
        columns["logit"] = best[..., -1].ravel()
        columns["margin"] = (best[..., -1] - best[..., -2]).ravel()
    made: pd.DataFrame = pandas.DataFrame(columns)
    return made


def _unique(names: Sequence[str]) -> list[str]:
    """Tell equal names apart by their number: categories are unique, and so are images."""
    seen: dict[str, int] = {}
    found = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        found.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return found

"""A cell's record as tables and sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from otfew.evaluation.shift_gain import CLEAN, shift_of
from otfew.reporting import cells
from otfew.reporting.sentences import percent
from otfew.reporting.tables import Table

Record = Mapping[str, Any]


def title(record: Record) -> str:
    """Name a cell: its data set and network."""
    return f"{record['data']['dataset']}, {record['network']} at {record['resolution']} px"


def tables(record: Record) -> list[Table]:
    """Lay out accuracies, a column for every view, and the gains of what was chosen."""
    views = list(record["settings"]["views"].values())
    rows = [
        [
            f"{name} (transductive)" if record["methods"][CLEAN][name]["transductive"] else name,
            *(_short(record["methods"][view][name]) for view in views),
        ]
        for name in record["order"]
    ]
    found = [Table(f"{title(record)}: accuracy %, ± half of the 95 % interval over classes", ["method", *views], rows)]
    effects = record["effects"]
    if not effects:
        return found
    gains = [
        [
            view,
            *effects["pairs"][shift_of(view)],
            cells.with_intervals(own["gain"], sign=True),
            cells.with_intervals(own["effect"], sign=True) if "effect" in own else "",
        ]
        for view, own in effects["views"].items()
    ]
    head = ["queries", "method", "control, chosen\non other shifts", "gain, points\n± episodes ± classes",
            "less the gain without\na shift (:0)"]  # fmt: skip
    found.append(Table("gain over the control", head, gains))
    shifts = [
        *([shift, cells.with_intervals(own, sign=True)] for shift, own in effects["shifts"].items()),
        ["all", cells.with_intervals(effects["all"], sign=True)],
    ]
    found.append(
        Table(
            "gain under shift less gain without",
            ["shift, mean of\nits severities", "points\n± episodes ± classes"],
            shifts,
        )
    )
    return found


def lines(record: Record) -> list[str]:
    """Say what the tables are, what was chosen how, and whether this is a cell of the rule."""
    settings = record["settings"]
    found = [
        "labelled images are as they are; queries are seen through a view, whose severity is 1 (mild), 2 or 3 (hard); "
        "every view has the same episodes, so that views are paired"
    ]
    if record["effects"]:
        found.append(
            "method and control of a shift are those that reached most on average under the other shifts "
            f"({', '.join(settings['choice_shifts'])}, without it), in {settings['choice_episodes']} episodes of each "
            f"view on {settings['choice_split']}: nothing of the evaluated queries has a part in the choice"
        )
        said = record["off_rule"]
        found.append(
            "one cell of the primary contrast that was fixed beforehand (rule transfer in experiments/claims.lock): "
            "its line all; views and shifts apart are exploratory"
            if not said
            else f"exploratory, as no cell of the rule that was fixed beforehand: {said}"
        )
    else:
        found.append("exploratory: no method was judged against a control that was chosen on other shifts")
    found += [f"left out: {name}: {why}" for name, why in record["left_out"].items()]
    return found


def _short(value: Record) -> str:
    return f"{percent(value['mean'])} ± {percent(value['class_ci'])}"

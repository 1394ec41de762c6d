"""A cell's record as tables and sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from otfew.evaluation.shift_gain import CLEAN, shift_of
from otfew.experiments.transfer import rule
from otfew.reporting import cells
from otfew.reporting.sentences import listed, percent
from otfew.reporting.tables import Table

Record = Mapping[str, Any]
SHARED = (
    "; defaults that all candidates of domain-transport share were set before, on validation classes of birds and "
    "CIFAR-FS under edges, blur and dark"
)
"""What the choice does not keep apart."""


def title(record: Record) -> str:
    """Name a cell: its data set and network."""
    return f"{record['data']['dataset']}, {record['network']} at {record['resolution']} px"


def tables(record: Record) -> list[Table]:
    """Lay out accuracies, a column for every view, and the gains of what was chosen."""
    # A record's own order is that of the alphabet: queries as they are come first here.
    shifts = list(dict.fromkeys(record["settings"]["shifts"]))
    views = sorted(record["settings"]["views"].values(), key=lambda view: (["", *shifts].index(shift_of(view)), view))
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
        for shift in shifts
        for view, own in effects["views"].items()
        if shift_of(view) == shift
    ]
    head = ["queries", "method", "control, chosen\non other shifts", "gain, points\n± episodes ± classes",
            "less the gain without\na shift (:0)"]  # fmt: skip
    found.append(Table("gain over the control", head, gains))
    by_shift = [
        *([shift, cells.with_intervals(effects["shifts"][shift], sign=True)] for shift in shifts),
        ["all", cells.with_intervals(effects["all"], sign=True)],
    ]
    found.append(
        Table(
            "gain under shift less gain without",
            ["shift, mean of\nits severities", "points\n± episodes ± classes"],
            by_shift,
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
        judged = any(left.startswith("domain-transport") for left, _ in record["effects"]["pairs"].values())
        found.append(
            "method and control of a shift are those that reached most on average under the other shifts among "
            f"{listed(settings['choice_shifts'], ' and ')}, in {settings['choice_episodes']} episodes of each view on "
            f"{settings['choice_split']}: that choice sees no evaluated image, and not the shift that it is for"
            f"{SHARED if judged else ''}"
        )
        said = off_rule(record)
        found.append(
            "one cell of the primary contrast that was fixed beforehand (rule transfer in experiments/claims.lock): "
            "its row `all`; views and shifts apart are exploratory"
            if not said
            else f"exploratory, outside the rule fixed beforehand: {said}"
        )
    else:
        found.append("exploratory: no method was judged against a control that was chosen on other shifts")
    found += [f"left out: {name}: {why}" for name, why in record["left_out"].items()]
    return found


def off_rule(record: Record) -> str:
    """Say in what a record differs from the rule, by all that it holds; "" where it is one of its cells."""
    found = rule.follows(
        record["settings"], record["network"], record["data"], record["resolution"], record["left_out"]
    )
    return found or str(record["off_rule"])


def _short(value: Record) -> str:
    return f"{percent(value['mean'])} ± {percent(value['class_ci'])}"

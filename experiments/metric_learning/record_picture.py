"""Losses of metric learning as forest plots, from the records of ``docs/results``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from otfew.errors import UserError
from otfew.experiments.metric_learning.names import OT, PAIRS, REFERENCE, role_of, short
from otfew.reporting import canvas, forest_plot
from otfew.reporting.forest_plot import Column, Mark, Row, signed, with_half
from otfew.reporting.result import read_json

RIVALS = 2
"""Other losses in the first picture: the best after the last epoch."""
PARTS = ("", "-others", "-control")
"""Endings of the records of one data set."""
Arms = Mapping[str, Mapping[str, Any]]
"""Loss and summary, as records name them ("all-pairs, last_epoch") -> mean and intervals in per cent."""


def pictures(path: Path) -> dict[str, bytes]:
    """Draw the two pictures of a data set: five losses, and all.

    Args:
        path: Its first record, such as ``metric-cifar10.json``; the others, and the claims, lie beside it.

    Returns:
        Name -> PNG.

    Raises:
        UserError: A record is not there or damaged.
    """
    records = [read_json(place) for end in PARTS if (place := path.with_name(f"{path.stem}{end}.json")).exists()]
    claims = path.with_name("claims.json")
    if not claims.exists():
        raise UserError(f"{claims} is not there: it holds the differences of {path.name}.")
    arms: dict[str, Any] = {name: arm for record in records for name, arm in record["arms"].items()}
    found = differences(read_json(claims), path.stem)
    where = records[0]["protocol"]
    data = path.stem.removeprefix("metric-")
    drawn = {
        f"metric-learning-{data}.png": five(arms, found, where),
        f"metric-learning-{data}-all.png": everything(arms, where),
    }
    return {name: canvas.to_png(figure) for name, figure in drawn.items()}


def differences(claims: Mapping[str, Any], stem: str) -> dict[tuple[str, str], Mapping[str, Any]]:
    """Find what claims say of differences after the last epoch: (left loss, right loss) -> claim.

    Args:
        claims: Of the ledger.
        stem: Name of the data set's first record.
    """
    found = {}
    for claim in claims.values():
        sides, _, summary = claim["arms"].rpartition(", ")
        if summary != "last_epoch" or "full" not in claim:
            continue
        left, _, right = (side.strip() for side in sides.partition(" - "))
        if all(side.partition(" / ")[0] in {stem + end for end in PARTS} for side in (left, right)):
            found[left.partition(" / ")[2], right.partition(" / ")[2]] = claim
    return found


def five(arms: Arms, found: Mapping[tuple[str, str], Mapping[str, Any]], protocol: Mapping[str, Any]) -> Any:
    """Draw mAP after the last epoch of batch-wise OT, all pairs, matched pairs and the two best other losses.

    Args:
        arms: Of all records of the data set.
        found: Differences, see ``differences``.
        protocol: Of the first record.

    Returns:
        A figure.
    """
    last = _column(arms, "last_epoch")
    others = [loss for loss in sorted(last, key=lambda one: -last[one]["mean"]) if role_of(loss) is canvas.RIVAL_ROLE]
    shown = sorted((OT, REFERENCE, PAIRS, *others[:RIVALS]), key=lambda loss: -last[loss]["mean"])
    rows = []
    for loss in shown:
        lead = found.get((OT, loss))
        ahead = None
        if lead is not None:
            mean, half = lead["full"]["figure"]["mean"], lead["decides"]["half_width"]
            ahead = Mark(mean, half, text=with_half(signed(mean, 1), half, 1))
        label = f"{short(loss)} ({last[loss]['seeds']} seeds)"
        rows.append(Row(label, role_of(loss), (_mark(last[loss]), ahead), strong=loss == OT))
    columns = [
        Column(f"mAP after {protocol['epochs']} epochs, %"),
        Column("points that batch-wise OT is ahead", zero=0.0),
    ]
    key = [*canvas.role_key([role_of(loss) for loss in shown]), *canvas.bar_key("95 % over seeds", "")]
    return forest_plot.draw(finding(found, others[0] if others else ""), _on(protocol), rows, columns, key)


def everything(arms: Arms, protocol: Mapping[str, Any]) -> Any:
    """Draw mAP after the last epoch, and the mean over the epochs, of all losses in the records.

    Args:
        arms: Of all records of the data set.
        protocol: Of the first record.

    Returns:
        A figure.
    """
    last, mean = _column(arms, "last_epoch"), _column(arms, "mean_of_epochs")
    order = sorted({**mean, **last}, key=lambda loss: -(last.get(loss) or mean[loss])["mean"])
    rows = [
        Row(
            f"{short(loss)} ({(last.get(loss) or mean[loss])['seeds']} seeds)",
            role_of(loss),
            tuple(_mark(column[loss]) if loss in column else None for column in (last, mean)),
            strong=loss == OT,
        )
        for loss in order
    ]
    first = max(last, key=lambda loss: last[loss]["mean"])
    title = (
        f"Of {len(last)} losses {short(first)} has the highest mAP after {protocol['epochs']} epochs, "
        f"{last[first]['mean']:.1f} %; {short(OT)} has {last[OT]['mean']:.1f} %"
    )
    columns = [
        Column(f"mAP after {protocol['epochs']} epochs, %"),
        Column("mAP, mean over the epochs, %"),
    ]
    key = [*canvas.role_key([role_of(loss) for loss in order]), *canvas.bar_key("95 % over seeds", "")]
    notes = ["A column without a mark: that summary is not in the records. Differences are paired by seed, so that "
             "intervals of levels may overlap where a difference counts."]  # fmt: skip
    return forest_plot.draw(title, _on(protocol), rows, columns, key, notes)


def finding(found: Mapping[tuple[str, str], Mapping[str, Any]], best: str) -> str:
    """Say what was found: what the plan adds to all pairs, these to matched pairs, and where the best rival ends.

    Args:
        found: Differences, see ``differences``.
        best: The other loss with the highest mean, or "".
    """
    plan, pairs = found[OT, REFERENCE], found[REFERENCE, PAIRS]
    said = (
        f"Weighing pairs by the plan adds {_points(plan)} of mAP to all pairs alike; these add {_points(pairs)} to "
        "matched pairs"
    )
    rival = found.get((OT, best))
    if rival is None:
        return said
    mean = rival["full"]["figure"]["mean"]
    side = "above" if mean < 0 else "below"
    return (
        f"{said}. The best rival, {short(best)}, ends {_points(rival, abs(mean))} {side} the plan: {rival['verdict']}"
    )


def _points(claim: Mapping[str, Any], mean: float | None = None) -> str:
    mean = claim["full"]["figure"]["mean"] if mean is None else mean
    return f"{with_half(f'{mean:.1f}', claim['decides']['half_width'], 1)} points"


def _column(arms: Arms, summary: str) -> dict[str, Mapping[str, Any]]:
    """Loss -> its figure of one summary."""
    end = f", {summary}"
    return {name.removesuffix(end): arm for name, arm in arms.items() if name.endswith(end)}


def _mark(arm: Mapping[str, Any]) -> Mark:
    half = arm["intervals"].get("seeds")
    return Mark(arm["mean"], half, text=with_half(f"{arm['mean']:.1f}", half, 1))


def _on(protocol: Mapping[str, Any]) -> str:
    """Say on what: data, network, epochs."""
    train, test = (sum(protocol["images"][split]) for split in ("train", "test"))
    return (
        f"{protocol['dataset']}: {train:,} training and {test:,} test images of {protocol['classes']} classes, "
        f"{protocol['backbone']}; each loss has the best of {len(protocol['learning_rates'])} learning rates"
    )

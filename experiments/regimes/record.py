"""The map as a record: figures of each cell, and the right answers of each episode from which they are made anew."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from otfew.evaluation.estimates import rounded
from otfew.experiments.regimes import effects
from otfew.experiments.regimes.cells import CELLS
from otfew.experiments.regimes.effects import CONTROLS, METHODS, Counted, Effect, Indices, Table
from otfew.experiments.regimes.rule import advise, digest, put_to_test
from otfew.runs.files import DamagedError

FORMAT = 1
Record = dict[str, Any]


@dataclass(frozen=True)
class Ran:
    """What was run, and what was not.

    Attributes:
        table: Id of a cell -> what its networks' methods got right.
        about: Id of a cell -> what else its record says: "nodes", "images", "crop", "notes", JSON-ready.
        not_run: Id of a cell, or "ID, network NAME" -> reason.
        episodes: Of each cell.
        seed: Of the episodes.
    """

    table: dict[str, list[Counted]]
    about: dict[str, Record]
    not_run: dict[str, str]
    episodes: int
    seed: int


def record(ran: Ran) -> Record:
    """Compute every figure; JSON-ready, and the same for the same right answers."""
    cells = []
    for cell in CELLS:
        if cell.id in ran.table:
            counted = ran.table[cell.id]
            cells.append({
                "id": cell.id,
                "axis": cell.axis,
                "level": cell.level,
                "part": cell.part,
                "setting": cell.setting,
                "settings": cell.settings,
                "networks": [one.network for one in counted],
                **ran.about[cell.id],
                "accuracy": {name: rounded(value) for name, value in effects.accuracies(counted).items()},
                "adds": {control: _adds(counted, control) for control in CONTROLS},
            })  # fmt: skip
    advice = advise(ran.table)
    tested = put_to_test(advice, ran.table)
    return {
        "command": "regimes",
        "format": FORMAT,
        "rule": digest(),
        "episodes": ran.episodes,
        "seed": ran.seed,
        "cells": cells,
        "settings": [
            {
                "setting": one.setting,
                "cells": list(one.cells),
                "missing": list(one.missing),
                "verdict": one.verdict,
                "adds": {c: {**_effect(e), "p_holm": rounded(one.corrected[c])} for c, e in one.effects.items()},
            }
            for one in advice.settings
        ],
        "advice": {"text": advice.text, "control": advice.control, "designed": advice.designed},
        "held_back": {
            "cells": list(tested.cells),
            "verdict": tested.verdict,
            "paying": {control: _effect(effect) for control, effect in tested.paying.items()},
            "others": None if tested.others is None else _effect(tested.others),
        },
        "not_run": dict(sorted(ran.not_run.items())),
    }


def _adds(counted: Sequence[Counted], control: str) -> Record:
    """Put what transport adds to a control into JSON, in points and in log-odds."""
    odds = effects.log_odds(counted, control)
    return {**_effect(effects.points(counted, control)), "log_odds": None if odds is None else _effect(odds)}


def _effect(effect: Effect) -> Record:
    return {
        "mean": rounded(effect.mean),
        "low": rounded(effect.low),
        "high": rounded(effect.high),
        "episode_ci": rounded(effect.episodes),
        "p": rounded(effect.p),
    }


def to_bytes(table: Table) -> bytes:
    """Write right answers as an ``.npz`` file; equal ones are equal bytes. Classes of episodes are kept once."""
    arrays: dict[str, Any] = {}
    kept: dict[bytes, str] = {}
    index = []
    for cell, counted in table.items():
        for one in counted:
            small = one.classes.astype(np.uint16)
            place = kept.setdefault(small.tobytes() + json.dumps(one.names).encode(), f"classes_{len(kept)}")
            arrays[place] = small
            arrays[f"{place}_names"] = np.array(one.names)
            index.append({"cell": cell, "network": one.network, "queries": one.queries, "classes": place})
            arrays[f"right_{len(index) - 1}"] = one.right.astype(np.min_scalar_type(one.queries))
    arrays["index"] = np.array(json.dumps(index))
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def from_bytes(data: bytes) -> dict[str, list[Counted]]:
    """Read what ``to_bytes`` wrote.

    Raises:
        DamagedError: It is no such file.
    """
    table: dict[str, list[Counted]] = {}
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            for number, one in enumerate(json.loads(str(file["index"]))):
                right: Indices = file[f"right_{number}"].astype(np.int64)
                classes: Indices = file[one["classes"]].astype(np.int64)
                names = tuple(map(str, file[f"{one['classes']}_names"].tolist()))
                if right.shape != (len(METHODS), len(classes)) or right.max() > one["queries"]:
                    raise DamagedError("its arrays have shapes that do not belong together")
                if classes.ndim != 2 or classes.max() >= len(names):
                    raise DamagedError("its classes are numbers of nothing")
                counted = Counted(str(one["network"]), right, int(one["queries"]), classes, names)
                table.setdefault(str(one["cell"]), []).append(counted)
    except DamagedError:
        raise
    except Exception as error:  # a damaged file may raise nearly any exception
        raise DamagedError(str(error).partition("\n")[0] or type(error).__name__) from error
    return table


def again(written: Mapping[str, Any], answers: bytes) -> Record:
    """Compute a record from its right answers, without data or network.

    Args:
        written: The record; only what it says of images, and what was not run, is taken from it.
        answers: As ``to_bytes`` wrote them.
    """
    words = ("nodes", "images", "classes", "crop", "notes")
    about = {cell["id"]: {name: cell[name] for name in words} for cell in written["cells"]}
    return record(Ran(from_bytes(answers), about, dict(written["not_run"]), written["episodes"], written["seed"]))

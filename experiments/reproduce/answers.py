"""What the figures of a run rest on, small enough to be committed: ``docs/results/answers/RUN.npz``.

Of runs on episodes: how many queries of each episode every method answered rightly, and the episode's classes. Of
retrieval: MAP@R of every query. Of long tails: which test images each second stage got right. Of metric learning: mAP
by loss, seed and epoch. Of solvers: the times. From these, and from nothing else, the ledger takes its levels,
differences and intervals; who has no data and no network takes them again by ``reproduce --suite check``.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from otfew.errors import UserError
from otfew.runs.files import DamagedError

ABOUT = "about"
"""The member of the file that holds everything but arrays, as JSON."""
FILE = "answers.npz"
"""Of a run's folder, or of a panel's."""
STEPS = 1e8
"""MAP@R is kept as whole numbers of so many to one."""
_STAMP = (1980, 1, 1, 0, 0, 0)
EPISODES = ("compare", "ablate-weights", "extractors", "shots", "cross-domain", "latent-space")
"""Commands whose runs are on episodes."""
COMMANDS = (*EPISODES, "metric-learning", "long-tail", "retrieve", "solver-timings")
"""Commands whose runs measure what a claim could rest on."""

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Answers:
    """What the figures of one run rest on.

    Attributes:
        about: JSON-ready: "kind", and what tells whether two runs saw the same.
        arrays: By name; which, the reader of the kind knows.
    """

    about: Mapping[str, Any]
    arrays: Mapping[str, Array]

    def to_bytes(self) -> bytes:
        """Write an ``.npz`` file; equal answers are equal bytes."""
        text = json.dumps(self.about, sort_keys=True, ensure_ascii=False, allow_nan=False).encode()
        members = {ABOUT: np.frombuffer(text, np.uint8), **self.arrays}
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as file:
            for name in sorted(members):
                inside = io.BytesIO()
                np.lib.format.write_array(inside, np.ascontiguousarray(members[name]), allow_pickle=False)
                file.writestr(zipfile.ZipInfo(f"{name}.npy", _STAMP), inside.getvalue(), zipfile.ZIP_DEFLATED, 9)
        return buffer.getvalue()

    @classmethod
    def read(cls, path: Path) -> Answers:
        """Read what ``to_bytes`` wrote.

        Raises:
            UserError: It is damaged.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            return cls(json.loads(arrays.pop(ABOUT).tobytes()), arrays)
        except Exception as error:  # a damaged file may raise nearly any exception
            raise UserError(f"{path} is damaged ({error}): restore it from the repository.") from None


def gather(command: str, folder: Path) -> Answers:
    """Take the answers of a finished run.

    Args:
        command: Which it was of.
        folder: Of the run.

    Raises:
        UserError: The folder lacks them, or they are damaged.
    """
    try:
        return _GATHER[command](folder, json.loads((folder / "results.json").read_bytes()))
    except (OSError, ValueError, KeyError, DamagedError) as error:
        raise UserError(f"{folder} holds no answers of {command} that could be kept ({error}): run it anew.") from None


def _episodes(folder: Path, results: Mapping[str, Any]) -> Answers:
    """Count right answers by method and episode, panel by panel."""
    # Here, since it brings torch along, which reading needs not.
    from otfew.evaluation.answers import from_bytes

    several = "panels" in results
    panels: dict[str, Any] = {}
    arrays: dict[str, Array] = {}
    drawn: dict[bytes, str] = {}
    for number, (key, panel) in enumerate(sorted(results["panels"].items() if several else [("", results)])):
        path = folder / "panels" / key if several else folder
        found = from_bytes((path / FILE).read_bytes())
        protocol = panel["protocol"]
        classes = _small(found.classes)
        place = drawn.setdefault(classes.tobytes() + "\n".join(found.class_names).encode(), f"classes-{number}")
        arrays.setdefault(place, classes)
        arrays[f"right-{number}"] = _small(((found.answered == found.truth) & found.known).sum(2))
        panels[key] = {
            "methods": list(found.methods),
            "class_names": list(found.class_names),
            **({"class_units": panel["class_units"]} if "class_units" in panel else {}),
            "classes": place,
            "right": f"right-{number}",
            "queries": int(found.known.sum(1)[0]),
            **{name: protocol.get(name) for name in ("way", "shot", "query", "seed", "query_balance")},
            "data": {
                name: protocol.get("data", {}).get(name) for name in ("dataset", "variant", "split", "names_sha256")
            },
        }
        if (found.known.sum(1) != panels[key]["queries"]).any():
            raise ValueError("its episodes have unequally many queries")
    return Answers({"kind": "episodes", "panels": panels}, arrays)


def _metric(folder: Path, results: Mapping[str, Any]) -> Answers:
    """Take mAP by loss, seed and epoch; untrained first."""
    losses, arrays = {}, {}
    for number, (loss, found) in enumerate(sorted(results["losses"].items())):
        seeds = sorted(map(int, found["seeds"]))
        losses[loss] = {"seeds": seeds, "map": f"map-{number}"}
        runs = [[record["figures"]["map"] for record in found["seeds"][str(seed)]] for seed in seeds]
        arrays[f"map-{number}"] = np.array(runs, dtype=np.float64)
    protocol = results["protocol"]
    same = {name: protocol.get(name) for name in ("dataset", "data", "across", "images")}
    return Answers({"kind": "metric", "losses": losses, "same": same}, arrays)


def _long_tail(folder: Path, results: Mapping[str, Any]) -> Answers:
    """Tell which test images each arm got right with each of its seeds, eight a byte."""
    with np.load(folder / FILE, allow_pickle=False) as file:
        arms, labels = [str(name) for name in file["arms"]], file["labels"]
        rows = {name: file[f"predictions-{number}"] for number, name in enumerate(arms)}
    right = {name: np.packbits(predicted == labels, axis=1) for name, predicted in rows.items()}
    kept = {name: f"right-{number}" for number, name in enumerate(arms)}
    setting = results["setting"]
    same = {"dataset": setting["dataset"], "test": setting.get("images_sha256", {}).get("test")}
    about = {"kind": "long-tail", "arms": kept, "images": len(labels), "same": same}
    return Answers(about, {kept[name]: found for name, found in right.items()})


def _retrieval(folder: Path, results: Mapping[str, Any]) -> Answers:
    """Take MAP@R of every query that has something to find, and its class."""
    with np.load(folder / FILE, allow_pickle=False) as file:
        rankings, labels, found = [str(name) for name in file["rankings"]], file["labels"], file["map_at_r"]
    asked = ~np.isnan(found[0])
    present, own = np.unique(labels[asked], return_inverse=True)
    about = {
        "kind": "retrieval",
        "rankings": rankings,
        **{
            name: [results[name][label] for label in present.tolist()]
            for name in ("class_names", "class_units")
            if name in results
        },
        "same": {name: results["protocol"]["data"].get(name) for name in ("dataset", "split", "names_sha256")},
    }
    values = np.rint(found[:, asked] * STEPS).astype(np.uint32)
    return Answers(about, {"classes": _small(own), "map_at_r": values})


def _times(folder: Path, results: Mapping[str, Any]) -> Answers:
    """Take the times of the panel that ratios are of: the solvers' milliseconds, by number of nodes."""
    rows = [row for row in results["timings"] if row["panel"] == "nodes" and "forward_ms" in row]
    names = [[row["solver"], int(row["n"]), int(row["batch"])] for row in rows]
    times = np.array([row["forward_ms"] for row in rows], dtype=np.float64)
    return Answers({"kind": "times", "rows": names}, {"forward_ms": times})


_GATHER: dict[str, Callable[[Path, Mapping[str, Any]], Answers]] = {
    **dict.fromkeys(EPISODES, _episodes),
    "metric-learning": _metric,
    "long-tail": _long_tail,
    "retrieve": _retrieval,
    "solver-timings": _times,
}


def _small(values: Array) -> Array:
    """Keep whole numbers from 0 in the smallest type."""
    return values.astype(np.min_scalar_type(int(values.max(initial=0))))

"""What ``experiments.draw`` does: pictures from records, by the command that made the record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from otfew.errors import UserError
from otfew.reporting.result import read_json
from otfew.runs.files import write_atomically

Record = dict[str, Any]
METRIC = "python -m experiments.metric_learning "
"""How the command in records of the ledger begins."""
TIMINGS = "timings"
"""Where a record of one file keeps what a run writes into timings.json; solver-timings has its figures there."""


def draw(records: Sequence[Path], output: Path | None = None) -> list[Path]:
    """Draw the pictures of records.

    Args:
        records: Folders of runs, or single files.
        output: Folder of the pictures; None takes that of each record.

    Returns:
        The pictures.

    Raises:
        UserError: A record is none, is damaged, or is of a command without pictures; there is no such folder.
    """
    if output is not None and not output.is_dir():
        raise UserError(f"--output {output} is not a folder: give one that is there.")
    drawn = []
    for path in records:
        pictures = _pictures(path)
        for name, content in pictures.items():
            single = path.is_file() and len(pictures) == 1
            place = (output or (path.parent if path.is_file() else path)) / (f"{path.stem}.png" if single else name)
            write_atomically(place, content)
            drawn.append(place)
    return drawn


def _pictures(path: Path) -> Mapping[str, bytes]:
    """Draw what a record has."""
    if not path.exists():
        raise UserError(f"{path} is not there: give the folder of a finished run, or a record of docs/results.")
    record = read_json(path if path.is_file() else path / "results.json")
    command = record.get("command")
    metric = isinstance(command, str) and command.startswith(METRIC)
    if not metric and (not isinstance(command, str) or command not in _DRAWERS):
        raise UserError(f"{path} is of no command with pictures: give a run of {', '.join(sorted(_DRAWERS))}.")
    if command == "compare" and "pooled" in record:
        return _joined(path)
    times = record.get(TIMINGS) if path.is_file() else read_json(path / "timings.json") if _timed(path) else None
    try:
        return _metric_learning(path) if metric else _DRAWERS[str(command)](record, times)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({error!r}): run the same command again.") from error


def _timed(path: Path) -> bool:
    return (path / "timings.json").is_file()


def _compare(record: Record, times: Any) -> Mapping[str, bytes]:
    from otfew.reporting.accuracy_plot import accuracies

    return {"accuracy.png": accuracies(record, times)}


def _joined(path: Path) -> Mapping[str, bytes]:
    """Draw several comparisons in one run."""
    from otfew.reporting.canvas import to_png
    from otfew.reporting.joined import load_joined

    if path.is_file():
        raise UserError(f"{path} holds several comparisons: give the folder of the run.")
    return {"accuracy.png": to_png(load_joined(path).plot())}


def _metric_learning(path: Path) -> Mapping[str, bytes]:
    """Draw the losses of one data set, which several records of the ledger hold."""
    from otfew.experiments.metric_learning.record_picture import pictures

    return pictures(path)


def _does_ot_matter(record: Record, times: Any) -> Mapping[str, bytes]:
    from otfew.experiments.does_ot_matter.names import LP, PRODUCT, entropic
    from otfew.experiments.does_ot_matter.plot import picture

    line = {reg: entropic(reg) for reg in sorted(record["settings"]["regs"])}
    panel = record["panels"]["all"]
    return {"does-ot-matter.png": picture(panel, times["all"]["methods"], record["plans"], line, LP, PRODUCT)}


def _latent_space(record: Record, times: Any) -> Mapping[str, bytes]:
    from otfew.experiments.latent_space.plot import picture

    if "picture" not in record:
        raise UserError("this run of latent-space kept no points for its picture: run the same command again.")
    return {"latent-space.png": picture(record["picture"])}


def _long_tail(record: Record, times: Any) -> Mapping[str, bytes]:
    from otfew.experiments.long_tail.command import about
    from otfew.experiments.long_tail.plots import pictures

    if "picture" not in record:
        raise UserError("this run of long-tail kept no figures for its pictures: run the same command again.")
    return pictures(record["picture"], about(record["setting"]))


def _shots(record: Record, times: Any) -> Mapping[str, bytes]:
    from otfew.reporting.shots_plot import picture

    panels = {k: record["panels"][f"shot-{k}"] for k in record["settings"]["shots"]}
    return {"shots.png": picture(panels, record["heads_against_mean"])}


def _solver_timings(record: Record, times: Any) -> Mapping[str, bytes]:
    from otfew.experiments.solver_timings.plots import pictures

    return pictures(record)


_DRAWERS: dict[str, Callable[[Record, Any], Mapping[str, bytes]]] = {
    "compare": _compare,
    "does-ot-matter": _does_ot_matter,
    "latent-space": _latent_space,
    "long-tail": _long_tail,
    "shots": _shots,
    "solver-timings": _solver_timings,
}

"""Figures of solvers as text: which is fastest where, what accuracy each reached, and DeepEMD's Table 6."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from otfew.errors import UserError
from otfew.reporting.tables import Table, to_csv

Row = dict[str, Any]

FORMAT = 1
COLUMNS = ("panel", "n", "batch", "solver", "reg", "forward_ms", "forward_rounds", "backward_ms", "backward_rounds",
           "value_error", "gap", "marginal_error", "not_converged", "skipped", "merged")  # fmt: skip
OPTIMUM = 1e-6
"""Error of the value, in units of mass x range of costs, up to which an answer counts as the optimum: float32's."""

TABLE_NODES = (9, 16, 25)
TABLE_BATCH = 50
"""Table 6 of the DeepEMD paper: 50 problems of 3x3, 4x4 and 5x5 nodes."""

PUBLISHED = (("paper's QPTH", ("294", "1490", "8600")), ("paper's OpenCV", ("-", "-", "18-25")))
"""Zhang et al. 2022, Table 6, in ms; their hardware is not stated."""


def timings_csv(rows: Iterable[Row]) -> bytes:
    """Write all rows, those that were not timed included."""
    return to_csv(COLUMNS, ([row.get(column) for column in COLUMNS] for row in rows))


def merge(results: Row, path: Path) -> Row:
    """Add the solvers of another run that this one lacks.

    Args:
        results: This run's.
        path: The other's results.json.

    Returns:
        New results; what came from the other run says so.

    Raises:
        UserError: The file cannot be read, is no result of this command, or ran on other episodes.
    """
    try:
        other = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(
            f"--merge {path} cannot be read: give the results.json of another solver-timings run."
        ) from error
    if not isinstance(other, dict) or (other.get("command"), other.get("format")) != ("solver-timings", FORMAT):
        raise UserError(f"--merge {path} is no results.json of solver-timings: give one of this version.")
    here, there = results["protocol"]["episodes"], other["protocol"]["episodes"]
    if here != there:
        name = next(key for key in sorted(here.keys() | there.keys()) if here.get(key) != there.get(key))
        raise UserError(
            f"--merge {path} ran on other episodes ({name} is {there.get(name)!r} there and {here.get(name)!r} here): "
            "give both runs the same data, episodes and seed."
        )
    own = {row["solver"] for row in results["timings"]}
    added = [{**row, "merged": True} for row in other["timings"] if row["solver"] not in own and "reg" not in row]
    episodes = {
        nodes: {**{name: {**r, "merged": True} for name, r in other["episodes"].get(nodes, {}).items()}, **rows}
        for nodes, rows in results["episodes"].items()
    }
    return {
        **results,
        "kinds": {**other["kinds"], **results["kinds"]},
        "timings": [*results["timings"], *added],
        "episodes": episodes,
        "merged": {
            "versions": other["versions"],
            "solvers": sorted({row["solver"] for row in added}),
            "time_ratio_of_exact": _time_ratio(results["timings"], other["timings"]),
        },
    }


def _time_ratio(here: list[Row], there: list[Row]) -> float | None:
    """Median over cells of the time of ``exact`` in another run by that in this one: how comparable the two are."""
    times = [
        {
            (r["panel"], r["n"], r["batch"]): r["forward_ms"]
            for r in rows
            if r["solver"] == "exact" and "forward_ms" in r
        }
        for rows in (here, there)
    ]
    ratios = sorted(times[1][cell] / times[0][cell] for cell in times[0].keys() & times[1].keys())
    return ratios[len(ratios) // 2] if ratios else None


def tables(results: Row) -> list[Table]:
    """Lay out what was found, for the terminal and for docs."""
    rows = results["timings"]
    made = [fastest(rows, results["kinds"]), per_solver(rows), points(rows), sweep(results), table_six(results)]
    return [table for table in made if table[2]]


def fastest(rows: Sequence[Row], kinds: Mapping[str, str]) -> Table:
    """Which solver when: by size and batch the fastest that reach the optimum, and the fastest entropic ones."""
    head = ["nodes", "problems", "optimum", "and gradients", "entropic", "and gradients", "its error"]
    body = []
    for panel in ("nodes", "file"):
        for n, batch in sorted({(r["n"], r["batch"]) for r in rows if r["panel"] == panel}):
            here = [r for r in rows if (r["panel"], r["n"], r["batch"]) == (panel, n, batch) and "forward_ms" in r]
            optimal = [r for r in here if r["value_error"] is not None and r["value_error"] <= OPTIMUM]
            entropic = [r for r in here if kinds.get(r["solver"]) == "entropic"]
            cells = [_best(group, kind) for group in (optimal, entropic) for kind in ("forward_ms", "backward_ms")]
            quickest = min(entropic, key=lambda row: row["forward_ms"], default={})
            body.append([_nodes(panel, n), f"{batch}", *cells, _error(quickest.get("value_error"))])
    return Table("which solver when: the fastest, ms for the batch, and how much longer the next takes", head, body)


def _best(rows: Sequence[Row], kind: str) -> str:
    """Name the fastest and the runner-up."""
    ranked = sorted((r for r in rows if r.get(kind) is not None), key=lambda row: row[kind])
    if not ranked:
        return "-"
    first = f"{_label(ranked[0])} {_ms(ranked[0][kind])}"
    if len(ranked) == 1:
        return first
    ratio = ranked[1][kind] / ranked[0][kind]
    return f"{first} ({_label(ranked[1])}×{ratio:.0f})" if ratio >= 10 else f"{first} ({_label(ranked[1])}×{ratio:.1f})"


def per_solver(rows: Sequence[Row]) -> Table:
    """Each solver at its largest measured batch of every size: time and accuracy."""
    errors = {"value_error": "value error", "gap": "gap", "marginal_error": "marginals"}
    head = ["solver", "nodes", "problems", "forward", "gradients", *errors.values(), "stopped early"]
    dense = [r for r in rows if r["panel"] in {"nodes", "file"} and "forward_ms" in r]
    body = []
    for name in _names(dense):
        for panel in ("nodes", "file"):
            mine = [r for r in dense if r["solver"] == name and r["panel"] == panel]
            for n in sorted({r["n"] for r in mine}):
                row = max((r for r in mine if r["n"] == n), key=lambda r: r["batch"])
                times = [_ms(row.get(kind)) for kind in ("forward_ms", "backward_ms")]
                found = [*(_error(row[key]) for key in errors), f"{row['not_converged']}"]
                body.append([_label(row), _nodes(panel, n), f"{row['batch']}", *times, *found])
    return Table("every solver: ms for the batch, and the worst errors", head, body)


def points(rows: Sequence[Row]) -> Table:
    """Point clouds: every solver, forward and backward, by the number of points."""
    here = [r for r in rows if r["panel"] == "points"]
    sizes = sorted({r["n"] for r in here})
    head = ["solver", *(f"{n} points" for n in sizes), "value error", "marginals"]
    body = []
    for name in _names(here):
        mine = {r["n"]: r for r in here if r["solver"] == name}
        cells = ["/".join(_ms(mine.get(n, {}).get(kind)) for kind in ("forward_ms", "backward_ms")) for n in sizes]
        errors = [
            max((r[key] for r in mine.values() if r.get(key) is not None), default=None)
            for key in ("value_error", "marginal_error")
        ]
        body.append([_label(next(iter(mine.values()))), *cells, *map(_error, errors)])
    return Table("a pair of point clouds in three dimensions, ms forward/with gradients", head, body)


def sweep(results: Row) -> Table:
    """Accuracy against reg, from the linear program to product coupling."""
    head = ["reg", "value error", "given features", "ms for 50", "accuracy %", "minus exact"]
    rows = [r for r in results["timings"] if "reg" in r]
    accuracies = results["episodes"].get("given", {})
    body = []
    for label, reg, accuracy in (
        ("exact", 0.0, "exact"),
        *((f"{reg:g}", reg, regularised(reg)) for reg in results["protocol"]["regs"]),
        ("product coupling", None, "product-coupling"),
    ):
        errors = [next((r.get("value_error") for r in rows if r["panel"] == panel and r["reg"] == reg), None)
                  for panel in ("sweep", "sweep file")]  # fmt: skip
        ms = next((r.get("forward_ms") for r in rows if r["panel"] == "sweep file" and r["reg"] == reg), None)
        found = accuracies.get(accuracy)
        body.append([label, *map(_error, errors), _ms(ms), *_accuracy(found)])
    return Table("from the linear program to product coupling", head, body if rows else [])


def regularised(reg: float) -> str:
    """Name the contender of one strength."""
    return f"reg {reg:g}"


def table_six(results: Row) -> Table:
    """Table 6 of the DeepEMD paper: time of the layer, and what each solver does to accuracy."""
    kinds = {"pooled": "3x3", "given": "all nodes"}
    shown = [nodes for nodes in kinds if results["episodes"].get(nodes)]
    head = ["solver", *(f"n = {n}" for n in TABLE_NODES)]
    for nodes in shown:
        head += [kinds[nodes], "minus exact", "ms"]
    rows = [r for r in results["timings"] if r["panel"] == "nodes" and r["batch"] == TABLE_BATCH]
    body = []
    for name in _names(rows):
        times = {r["n"]: r for r in rows if r["solver"] == name}
        line = [_label(next(iter(times.values()))), *(_ms(times.get(n, {}).get("forward_ms")) for n in TABLE_NODES)]
        for nodes in shown:
            found = results["episodes"][nodes].get(name)
            accuracy, difference = _accuracy(found)
            line += [accuracy.partition(" ")[0], difference, _ms((found or {}).get("ms_per_episode"))]
        body.append(line)
    for name, published in PUBLISHED:
        body.append([name, *published, *["-"] * 3 * len(shown)])
    title = "Table 6 of the DeepEMD paper: ms for 50 problems, accuracy in %, ms per episode"
    return Table(title, head, body if rows else [])


def lines(results: Row) -> list[str]:
    """Say what the figures are conditional on, and what was left out."""
    p, machine = results["protocol"], results["machine"]
    said = [
        f"machine: {machine['processor']}, {machine['cores']} cores, {machine['threads']} threads, "
        f"device {p['device']}",
        f"medians of interleaved turns, float32; entropic solvers at reg {p['reg']:g}, "
        f"on point clouds at {p['point_reg']:g}",
        "value error: |<plan, cost> - optimum|, the worst of a batch, in units of mass x range of costs",
    ]
    e = p["episodes"]
    said.append(
        f"accuracy: deepemd on {e['episodes']} episodes of {e['way']}-way {e['shot']}-shot, {e['query']} queries a "
        f"class, of {e['dataset']}; differences are paired, ± halves of 95 % intervals over episodes"
    )
    missing = [name for name in p["missing"] if name not in results["kinds"]]
    said += [f"not installed: {', '.join(missing)}"] if missing else []
    left_out: dict[tuple[str, str], list[str]] = {}
    for r in results["timings"]:
        for kind, words in {"skipped": "not timed", "no_gradients": "no gradients"}.items():
            if kind in r:
                slow = r[kind].startswith("a call would take")
                reason = "predicted to take too long" if slow else r[kind]
                left_out.setdefault((f"{words}: {r['solver']}", reason), []).append(f"{r['n']}x{r['batch']}")
    said += [f"{what} at {', '.join(dict.fromkeys(cells))}: {reason}" for (what, reason), cells in left_out.items()]
    for nodes, rows in results["episodes"].items():
        said += [
            f"no accuracy of {name} on {nodes} nodes: {r['skipped']}" for name, r in rows.items() if "skipped" in r
        ]
    if results.get("merged"):
        m = results["merged"]
        ratio = m["time_ratio_of_exact"]
        beside = "" if ratio is None else f"; there, exact took {ratio:.2f} times what it takes here"
        said.append(f"* merged from another run: {', '.join(m['solvers']) or 'nothing new'}{beside}")
    return said


def _names(rows: Iterable[Row]) -> list[str]:
    """List solvers in the order of their appearance."""
    return list(dict.fromkeys(r["solver"] for r in rows))


def _nodes(panel: str, n: int) -> str:
    """Name a size; real nodes are marked."""
    return f"{n}, given" if panel == "file" else f"{n}"


def _label(row: Mapping[str, Any]) -> str:
    """Mark what another run measured."""
    return f"{row['solver']}*" if row.get("merged") else str(row["solver"])


def _ms(value: float | None) -> str:
    """Round a time to three digits, without powers of ten."""
    return "-" if value is None else f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _error(value: float | None) -> str:
    """Print an error with two digits."""
    return "-" if value is None else "0" if value == 0 else f"{value:.1e}"


def _accuracy(found: Mapping[str, Any] | None) -> list[str]:
    """Print accuracy and its paired difference to exact."""
    if not found or "accuracy" not in found:
        return ["-", "-"]
    width, difference_width = (100 * (found[key] or 0) for key in ("accuracy_ci", "difference_ci"))
    return [
        f"{100 * found['accuracy']:.2f} ± {width:.2f}",
        f"{100 * found['difference']:+.2f} ± {difference_width:.2f}",
    ]

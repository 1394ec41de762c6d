"""A comparison as a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from otfew.data.preparation import Preparation
from otfew.errors import UserError
from otfew.evaluation.episodes import Indices
from otfew.evaluation.query_balance import BALANCED
from otfew.evaluation.query_balance import parse as parse_balance
from otfew.evaluation.worst import Match, Worst
from otfew.features.material import ImageMaterial, Material
from otfew.nodes import parse
from otfew.nodes.boxes import Boxes, node_boxes
from otfew.reporting.contrasts import OLD, all_contrasts
from otfew.reporting.forest import Entry, Forest, forest
from otfew.reporting.pages import Grid, Panel, numbered, panel, render
from otfew.reporting.sentences import mark, percent, wide, words

CLASSES = 40
"""Classes of the table, the hardest of more."""
PAIRS = 20
"""Confusions of the table."""


def page(
    results: Mapping[str, Any],
    cells: tuple[Sequence[str], Sequence[Sequence[str]]],
    lines: Sequence[str],
    classes: Indices,
    correct: Mapping[str, Indices] | None = None,
    worst: tuple[Worst, Material] | None = None,
) -> str:
    """Write the page of a comparison.

    Args:
        results: As in results.json.
        cells: Head and rows of its table.
        lines: Sentences below it.
        classes: (episodes, way) of each episode.
        correct: Name -> (episodes, way) right answers of each class, where they are at hand.
        worst: What the best method is wrong about, and what it ran on, where that is at hand.
    """
    head, rows = cells
    names = results["class_names"]
    return render(
        "comparison.html",
        headline(results),
        methods=Grid(head, rows, frozenset({3})),
        over="photos" if results["protocol"].get("fixed_classes") else "classes",
        accuracy=_accuracy(results),
        differences=_differences(results),
        adds=_adds(results),
        hardest=_hardest(results, classes, correct),
        confusions=None if worst is None else _confusions(worst[0], names),
        looked="" if worst is None else _looked(worst[0]),
        worst=None if worst is None else _queries(*worst, names),
        flows="" if worst is None else _flows(worst[0]),
        protocol=lines,
    )


def headline(results: Mapping[str, Any]) -> str:
    """Say in one sentence whose mean is highest, of methods that see one query at a time, and what is shown of it."""
    methods, protocol = results["methods"], results["protocol"]
    ranked = _ranked(results)
    name = ranked[0]
    best = methods[name]
    figure = f"{percent(best['accuracy']['mean'])} % ± {percent(_widest(best['accuracy']))}"
    where = f"{protocol['data']['dataset']}, {protocol['way']}-way {protocol['shot']}-shot"
    told = f"{where}: {mark(name, best)} has the highest mean, {figure}"
    if "difference" not in best:
        better = sum(m.get("difference", {}).get("verdict") == "worse" for m in methods.values())
        return f"{told}; it is the reference, and beyond chance better than {better} of the other methods."
    difference = best["difference"]
    verdict = words(difference)
    if difference["verdict"] == "not assessed":
        verdict = "whether that is more than chance could not be assessed"
    return (
        f"{told}; {percent(difference['mean'], sign=True)} ± {percent(_widest(difference))} points to "
        f"{difference['to']}, the reference: {verdict}."
    )


def _widest(record: Mapping[str, Any]) -> float | None:
    """Return the wider half-width of the two that are known."""
    return max((w for w in (record["episode_ci"], wide(record)) if w is not None), default=None)


def _ranked(results: Mapping[str, Any]) -> list[str]:
    """List methods as the table does: those that see one query at a time first, the best first."""
    methods = results["methods"]
    return sorted(methods, key=lambda name: (methods[name]["transductive"], -methods[name]["accuracy"]["mean"]))


def best_method(results: Mapping[str, Any]) -> str:
    """Name the method whose mistakes are looked at: the first of the table."""
    return _ranked(results)[0]


def _entry(name: str, record: Mapping[str, Any], text: str, *, strong: bool) -> Entry:
    value = 100 * record["mean"]

    def span(width: float | None) -> tuple[float, float] | None:
        return None if width is None else (value - 100 * width, value + 100 * width)

    return Entry(name, value, span(record["episode_ci"]), span(wide(record)), text, strong)


def _accuracy(results: Mapping[str, Any]) -> Forest | None:
    methods = results["methods"]
    entries = [
        _entry(
            mark(name, methods[name]),
            methods[name]["accuracy"],
            f"{percent(methods[name]['accuracy']['mean'])}",
            strong=name in results["transport_adds"],
        )
        for name in _ranked(results)
    ]
    return forest("accuracy, % (orange: built on transport)", entries)


def _differences(results: Mapping[str, Any]) -> Forest | None:
    methods = results["methods"]
    entries = [
        _entry(
            mark(name, methods[name]),
            methods[name]["difference"],
            words(methods[name]["difference"]),
            strong=name in results["transport_adds"],
        )
        for name in _ranked(results)
        if "difference" in methods[name]
    ]
    return forest("paired difference to the reference, points", entries, zero=True)


def _adds(results: Mapping[str, Any]) -> Forest | None:
    entries = [
        _entry(f"{name} over {contrast.named}", contrast.record, words(contrast.record), strong=not contrast.old)
        for name, contrast in all_contrasts(results)
    ]
    what = f"difference to the {OLD}" if any(c.old for _, c in all_contrasts(results)) else "difference to its controls"
    return forest(f"what transport adds: {what}, points", entries, zero=True)


def _hardest(results: Mapping[str, Any], classes: Indices, correct: Mapping[str, Indices] | None) -> Grid | None:
    """Lay out how often queries of each class were right, a column for every method; None where that is unknown."""
    if correct is None or parse_balance(results["protocol"].get("query_balance", BALANCED)) is not None:
        return None
    names, order = results["class_names"], _ranked(results)
    query = results["protocol"]["query"]
    asked = np.bincount(classes.reshape(-1), minlength=len(names)) * query
    share = {
        name: np.bincount(classes.reshape(-1), correct[name].reshape(-1).astype(float), len(names))
        / np.maximum(asked, 1)
        for name in order
    }
    first = order[0]
    shown = sorted(np.flatnonzero(asked).tolist(), key=lambda c: (share[first][c], c))[:CLASSES]
    head = ["class", "queries", *(f"{mark(name, results['methods'][name])}, %" for name in order)]
    return Grid(head, [[names[c], int(asked[c]), *(f"{100 * share[n][c]:.1f}" for n in order)] for c in shown])


def _confusions(worst: Worst, names: Sequence[str]) -> Grid | None:
    if not worst.confusions:
        return None
    rows = [(names[a], names[b], count) for (a, b), count in list(worst.confusions.items())[:PAIRS]]
    return Grid(("class", "taken for", "queries"), rows, frozenset({1}))


def _looked(worst: Worst) -> str:
    wrong = sum(worst.confusions.values())
    return (
        f"Of {worst.method}, in the {worst.episodes} episodes in which it was worst: {wrong:,} of {worst.queries:,} "
        "queries were wrong there. The table of classes below is of all episodes."
    )


def _flows(worst: Worst) -> str:
    return (
        f"The surest mistakes of {worst.method} in those episodes, each beside the nearest labelled image of the class "
        "that it was taken for and of its own. Numbers are the strongest flows of DeepEMD on the same nodes, whichever "
        "method decided."
    )


def _queries(worst: Worst, material: Material, names: Sequence[str]) -> list[dict[str, Any]]:
    """Show queries with their photos, where these are at hand; else name them by number."""
    shown = []
    for query in worst.looked_at:
        images = material.images if isinstance(material, ImageMaterial) else None
        called = f"image {query.image}" if images is None else images.names[query.image]
        title = (
            f"{called} is {names[query.label]}, taken for {names[query.taken]} (ahead by {query.margin:.3g}; episode "
            f"{query.episode})"
        )
        panels: list[Panel] = []
        if images is not None:
            assert isinstance(material, ImageMaterial)
            for match, what in ((query.wrong, query.taken), (query.right, query.label)):
                panels += _pair(worst, match, material, query.image, names[what])
        shown.append({"title": title, "panels": panels})
    return shown


def _pair(worst: Worst, match: Match, material: ImageMaterial, image: int, label: str) -> list[Panel]:
    """Show a query and a labelled image with the flows between them."""
    images = material.images
    similar = ", ".join(f"{i}: {flow.similarity:.2f}" for i, flow in enumerate(match.flows, 1))
    told = f"{label}: {images.names[match.image]}"
    shown = (
        (image, f"the query, and its flows to {label}", [flow.here for flow in match.flows]),
        (match.image, f"{told}\nsimilarity {similar}" if similar else told, [flow.there for flow in match.flows]),
    )
    panels = []
    for number, caption, nodes in shown:
        picture = images.read(number)
        boxes = _boxes(worst, picture.shape[:2], material.preparation, material.seed_name(number))
        marks = [] if boxes is None else numbered([tuple(boxes[n].tolist()) for n in nodes])
        panels.append(panel(caption, picture, marks))
    return panels


def _boxes(worst: Worst, size: tuple[int, ...], preparation: Preparation, name: str) -> Boxes | None:
    """Find where the nodes of an image are in it; None where that is unknown."""
    try:
        return node_boxes(parse(worst.nodes), worst.count, (size[0], size[1]), preparation, name)
    except UserError:
        return None

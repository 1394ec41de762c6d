"""Panels that differ in the seed of their episodes, as one; and the same methods on different features, paired.

A mean over seeds of the episodes is a mean over more episodes: intervals over episodes narrow with them, those over
classes do not, since the classes are the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from otfew.evaluation import figures
from otfew.evaluation.episodes import Episodes
from otfew.evaluation.run import Scores
from otfew.evaluation.study import Finished, Panel, Record, drawn_units, estimated, roles_of


@dataclass(frozen=True)
class Pool:
    """Panels as one.

    Attributes:
        panel: The first of them.
        record: As that of a panel; where there are several, "protocol" has "seeds" in place of "seed", and all
            "episodes".
        scores: By name, of all episodes.
        episodes: All of them.
    """

    panel: Panel
    record: Record
    scores: Mapping[str, Scores]
    episodes: Episodes


def pool(panels: Sequence[Panel], finished: Sequence[Finished]) -> Pool:
    """Compute what panels would give as a single run of all their episodes.

    Args:
        panels: Of the same entries and material; the seeds of their episodes alone differ.
        finished: What they gave, in the same order.

    Returns:
        Their figures; those of a panel that is alone stay what they are.
    """
    first = finished[0].record
    episodes = _all([panel.sampler(0, len(f.classes)) for panel, f in zip(panels, finished, strict=True)])
    if len(panels) == 1:
        return Pool(panels[0], first, finished[0].scores, episodes)
    told = {name: m["class_prior"] for name, m in first["methods"].items() if "class_prior" in m}
    protocol = {key: value for key, value in first["protocol"].items() if key != "seed"}
    protocol["seeds"] = [panel.sampler.protocol.seed for panel in panels]
    protocol["episodes"] = len(episodes)
    scores = {name: _joined([f.scores[name] for f in finished]) for name in finished[0].scores}
    record: Record = {key: first[key] for key in ("not_run", "class_names", "class_units") if key in first}
    record |= {"protocol": protocol, **estimated(panels[0], scores, episodes, told)}
    # What is said of a method beside its figures holds for every seed.
    record["methods"] = {name: {**first["methods"][name], **own} for name, own in record["methods"].items()}
    return Pool(panels[0], record, scores, episodes)


def between(first: Pool, others: Mapping[str, Pool]) -> dict[str, dict[str, Any]]:
    """Pair every method on other features with itself on the first ones; all of these are one family.

    Args:
        first: On the features that the others are compared with.
        others: Name of features -> what was found there.

    Returns:
        Name of features -> method -> difference, as ``figures.differences`` has it without "to"; nothing for features
        whose episodes are others, and for methods that did not run on both.
    """
    paired = {name: other for name, other in others.items() if _same(first.episodes, other.episodes)}
    scores: dict[tuple[str, str], Scores] = {("", method): own for method, own in first.scores.items()}
    scores |= {(name, method): own for name, other in paired.items() for method, own in other.scores.items()}
    pairs = [(key, ("", key[1])) for key in scores if key[0] and ("", key[1]) in scores]
    drawn, names = drawn_units(first.panel.material, first.episodes)
    roles = roles_of(first.panel, first.episodes)
    found: dict[str, dict[str, Any]] = {name: {} for name in paired}
    for (key, _), difference in zip(pairs, figures.paired(scores, pairs, drawn, names, roles), strict=True):
        found[key[0]][key[1]] = difference
    return found


def _same(first: Episodes, other: Episodes) -> bool:
    """Tell whether two materials were asked the same."""
    arrays = ("classes", "support", "query")
    return all(np.array_equal(getattr(first, name), getattr(other, name)) for name in arrays)


def _joined(parts: Sequence[Scores]) -> Scores:
    """Put the scores of a method together."""
    predicted = [part.predicted for part in parts if part.predicted is not None]
    logits = [part.logits for part in parts if part.logits is not None]
    return Scores(
        np.concatenate([part.correct for part in parts]),
        parts[0].queries,
        sum(part.seconds for part in parts),
        predicted=np.concatenate(predicted) if predicted else None,
        logits=np.concatenate(logits) if logits else None,
    )


def _all(parts: Sequence[Episodes]) -> Episodes:
    """Put episodes of one shape together."""
    unknown = [part.unknown for part in parts if part.unknown is not None]
    classes, support, query, counts = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("classes", "support", "query", "counts")
    )
    return Episodes(classes, support, query, counts, np.concatenate(unknown) if unknown else None)

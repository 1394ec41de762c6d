"""Panels that differ in the seed of their episodes, as one: what they would give as a single run of all episodes.

A mean over seeds of the episodes is a mean over more episodes: intervals over episodes narrow with them, those over
classes do not, since the classes are the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from otfew.evaluation.episodes import Episodes
from otfew.evaluation.run import Scores
from otfew.evaluation.study import Finished, Panel, Record, estimated


def pooled(panels: Sequence[Panel], finished: Sequence[Finished]) -> Record:
    """Compute the figures of some panels together.

    Args:
        panels: Of the same entries and material; the seeds of their episodes alone differ.
        finished: What they gave, in the same order.

    Returns:
        As the record of one; "protocol" has "seeds" in place of "seed", and all "episodes". One panel's record stays
        what it is.
    """
    first = finished[0].record
    if len(panels) == 1:
        return first
    told = {name: m["class_prior"] for name, m in first["methods"].items() if "class_prior" in m}
    protocol = {key: value for key, value in first["protocol"].items() if key != "seed"}
    protocol["seeds"] = [panel.sampler.protocol.seed for panel in panels]
    protocol["episodes"] = sum(len(f.classes) for f in finished)
    drawn = [panel.sampler(0, len(f.classes)) for panel, f in zip(panels, finished, strict=True)]
    scores = {name: _joined([f.scores[name] for f in finished]) for name in finished[0].scores}
    return {**first, "protocol": protocol, **estimated(panels[0], scores, _all(drawn), told)}


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

"""What a solver does to few-shot accuracy: DeepEMD with one solver after another on the very same episodes."""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from otfew import catalogue
from otfew.evaluation.episodes import Sampler
from otfew.evaluation.run import Ready, Scores, evaluate
from otfew.experiments.solver_timings.measure import in_a_line
from otfew.features.extract import FeatureSet
from otfew.runs.directory import RunDirectory
from otfew.statistics.intervals import episode_half_width
from otfew.transport import ConvergenceWarning, Solver

REFERENCE = "exact"
PRODUCT = "product-coupling"
"""The limit of large ``reg``: the baseline of that name."""


def run_episodes(
    features: FeatureSet,
    sampler: Sampler,
    episodes: int,
    solvers: Mapping[str, Solver],
    folder: Path,
    identity: Mapping[str, Any],
    device: str,
    progress: Callable[[int, str], None],
    note: Callable[[str], None],
) -> dict[str, dict[str, float | None]]:
    """Evaluate DeepEMD with each solver, and product coupling; finished blocks of episodes are kept.

    Args:
        features: Node sets.
        sampler: Episodes.
        episodes: How many.
        solvers: Name in the report -> solver; "exact" among them.
        folder: Where finished blocks are kept.
        identity: What the blocks depend on.
        device: Where methods run.
        progress: Called with finished (solver, episode) pairs.
        note: Called with a sentence where a damaged block is computed again.

    Returns:
        Name -> accuracy, half a 95 % interval over episodes, the difference to "exact" with its interval, both paired,
        and ms per episode from cached features to logits.
    """
    material = features.source.get("features_sha256", "")
    contenders = [
        Ready(name, catalogue.build("deepemd", solver=solver), features, _digest(material, repr(solver)))
        for name, solver in solvers.items()
    ]
    contenders.append(Ready(PRODUCT, catalogue.build(PRODUCT), features, _digest(material, PRODUCT)))
    directory = RunDirectory(folder, {**identity, "contenders": [c.name for c in contenders]})
    with warnings.catch_warnings():
        # Where an entropic solver stops early is in the table of accuracies.
        warnings.simplefilter("ignore", ConvergenceWarning)
        scores = evaluate(
            contenders, sampler, episodes, directory=directory, device=device, progress=progress, note=note
        )
    return {name: _summary(score, scores[REFERENCE]) for name, score in scores.items()}


def why_not(solver: Solver, features: FeatureSet, sampler: Sampler) -> str:
    """Try one episode: say why the solver cannot run DeepEMD on these nodes, or return ""."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            evaluate([Ready("try", catalogue.build("deepemd", solver=solver), features)], sampler, 1)
    except Exception as error:  # whatever a backend cannot do is a finding of this table
        return in_a_line(error)
    return ""


def _digest(*parts: str) -> str:
    """Name what a contender's blocks were computed on."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _half(values: npt.NDArray[np.float64]) -> float | None:
    """Half of the interval over episodes, or None for a single one."""
    width = episode_half_width(values)
    return None if math.isnan(width) else width


def _summary(score: Scores, reference: Scores) -> dict[str, float | None]:
    """Reduce one contender's episodes to figures."""
    difference = score.accuracy - reference.accuracy
    return {
        "accuracy": float(score.accuracy.mean()),
        "accuracy_ci": _half(score.accuracy),
        "difference": float(difference.mean()),
        "difference_ci": _half(difference),
        "ms_per_episode": score.milliseconds,
    }

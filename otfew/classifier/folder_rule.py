"""The rule for folders as it was fixed before their figures: a digest that changes with any part of it."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import asdict

import numpy as np

from otfew.classifier.folder_plan import SOURCES, folders
from otfew.classifier.folder_study import ALPHAS, MOST_SETS, PROBLEMS, RATES
from otfew.classifier.folder_summary import BINS, MARGIN, expected_error, verdict
from otfew.statistics.clusters import Clustered, clustered


def rule_digest() -> str:
    """Digest the folders' places, intervals and verdicts of made-up figures: ten hexadecimal digits."""
    pools = {k: np.repeat(np.arange(source.classes), source.each) for k, source in enumerate(SOURCES)}
    said = [repr((RATES, ALPHAS, MOST_SETS, PROBLEMS, BINS, MARGIN)), *(repr(asdict(source)) for source in SOURCES)]
    said += [repr(asdict(folder)) for folder in folders(pools)]
    lows = (-3.0, -1.0, -0.5, 0.5)
    said += [verdict(Clustered(2.0, (low, 4.0), (wide, 5.0))) for low, wide in itertools.product(lows, lows)]
    values = np.arange(48.0) % 7 / 7
    found = clustered(
        values,
        np.array([1.0, 2.0, 3.0] * 16),
        np.arange(48) // 4,
        np.arange(48) // 12 * 5 + np.arange(48) % 5,
        np.arange(48) // 12,
    )
    said += [f"{number:.6f}" for number in (found.mean, *found.within, *(found.across or ()))]
    said.append(f"{expected_error(values, (values > 0.5).astype(float), np.ones(48)):.6f}")
    return hashlib.sha256("\n".join(said).encode()).hexdigest()[:10]

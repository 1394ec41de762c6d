"""What all folders of ``folder_study`` say together, and the rule by which ``method="auto"`` passes, settled before.

Every folder weighs alike, and in it every new photo. Intervals are those of ``otfew.statistics.clusters``: over folders
and classes of these sources, and over sources as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from otfew.classifier.folder_study import ALPHAS, CENTROID, DEEPEMD, RATES, unpacked
from otfew.statistics.clusters import Clustered, clustered

Floats = npt.NDArray[np.float64]
Found = Mapping[str, Any]
"""What ``folder_study.judge`` returned."""

MARGIN = 1.0
"""Points that auto may lose to a method fixed beforehand."""
BINS = 10
"""Of the calibration error: equal widths of the largest probability."""
PASSES, HERE, FAILS = "non-inferior", "non-inferior on these sources only", "non-inferiority not shown"


def verdict(found: Clustered, margin: float = MARGIN) -> str:
    """Judge a difference auto - fixed, in points: by the lower bounds of its two intervals.

    Args:
        found: The difference.
        margin: Above 0.
    """
    if found.low > -margin:
        return PASSES
    return HERE if found.within[0] > -margin else FAILS


def summary(folders: Sequence[Found]) -> dict[str, Any]:
    """Put folders together: JSON-ready.

    Args:
        folders: At least two of each source.
    """
    chosen = [_kind(folder, folder["choice"]["chosen"]) for folder in folders]
    kinds = list(dict.fromkeys(kind for folder in folders for kind in _kinds(folder)))
    auto = [_auto(folder) for folder in folders]
    against = {}
    for kind in kinds:
        fixed = [_fixed(folder, kind) for folder in folders]
        against[kind] = _against(folders, auto, fixed)
    primary = {name: f"{name} on fcn" for name in (CENTROID, DEEPEMD)}
    return {
        "folders": len(folders),
        "photos": int(sum(map(len, auto))),
        "accuracy": _points(folders, auto),
        "by_source": {
            source: {
                "folders": len(places),
                "auto": _mean([auto[i] for i in places]),
                **{name: _mean([_fixed(folders[i], kind) for i in places]) for name, kind in primary.items()},
            }
            for source, places in _sources(folders).items()
        },
        "against": against,
        "verdicts": {name: against[kind]["verdict"] for name, kind in primary.items()},
        "chosen": {kind: chosen.count(kind) for kind in kinds if kind in chosen},
        "moved": sum(bool(folder["choice"]["moved"]) for folder in folders),
        "held_out": {
            "equal": _held_out(folders, auto, lambda counts: min(counts) == max(counts)),
            "unequal": _held_out(folders, auto, lambda counts: min(counts) < max(counts)),
        },
        "confidence": {name: _confidence(folders, auto, name) for name in ("before", "after")},
        "refusal": {f"{rate:g}": _refusal(folders, f"{rate:g}") for rate in RATES},
        "auroc": _auroc(folders),
        "sets": {
            who: {f"{alpha:g}": _sets(folders, who, f"{alpha:g}") for alpha in ALPHAS} for who in ("auto", CENTROID)
        },
    }


def expected_error(confidence: Floats, right: Floats, weights: Floats) -> float:
    """Compute the calibration error: over bins of confidence, the mean distance of confidence and accuracy.

    Args:
        confidence: (photos,) largest probabilities.
        right: (photos,) 0 or 1.
        weights: (photos,) of any sum.
    """
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    apart = np.bincount(bins, weights=weights * (confidence - right))
    return float(np.abs(apart).sum() / weights.sum())


def bits(text: str) -> Floats:
    """Read a text of 0 and 1: (photos,)."""
    return np.array([float(each) for each in text])


def pooled(
    folders: Sequence[Found], values: Callable[[Found], Floats | None], which: Callable[[Found], Any] | None = None
) -> Clustered | None:
    """Average a figure of photos over folders, in its own unit; None with too few folders of it.

    Args:
        folders: All of them.
        values: Of a folder's photos; None leaves the folder out.
        which: Places of these photos among the new ones; None for all of them.
    """
    parts: list[Floats] = []
    ids: list[tuple[Floats, ...]] = []
    classes: dict[tuple[str, str], int] = {}
    sources = list(dict.fromkeys(folder["source"] for folder in folders))
    for folder in folders:
        own = values(folder)
        if own is None or not len(own):
            continue
        truth = unpacked(folder["truth"]).astype(int)[slice(None) if which is None else which(folder)]
        names = [(folder["source"], folder["classes"][c]) for c in truth]
        numbers = np.array([classes.setdefault(name, len(classes)) for name in names])
        ids.append(
            (
                np.full(len(own), 1 / len(own)),
                np.full(len(own), folder["number"]),
                numbers,
                np.full(len(own), sources.index(folder["source"])),
            )
        )
        parts.append(own)
    if not parts:
        return None
    weights, numbers, kinds, places = (np.concatenate(column) for column in zip(*ids, strict=True))
    try:
        return clustered(np.concatenate(parts), weights, numbers.astype(int), kinds.astype(int), places.astype(int))
    except ValueError:
        return None


def _kinds(folder: Found) -> list[str]:
    return [_kind(folder, i) for i in range(len(folder["choice"]["candidates"]))]


def _kind(folder: Found, place: int) -> str:
    """Name a candidate without its resolution in pixels, which is another where pictures are small."""
    rows = folder["choice"]["candidates"]
    row = rows[place]
    least = min(other["resolution"] for other in rows)
    return f"{row['method']} on {row['nodes']}{' larger' if row['resolution'] > least else ''}"


def _answers(folder: Found, place: int) -> Floats | None:
    """Tell of each new photo whether a candidate is right; None where it could not answer."""
    row = folder["choice"]["candidates"][place]
    text = folder["right"][f"{row['method']} on {row['nodes']} at {row['resolution']} px"]
    return None if text is None else bits(text)


def _auto(folder: Found) -> Floats:
    found = _answers(folder, folder["choice"]["chosen"])
    assert found is not None  # it answered when it was chosen
    return found


def _fixed(folder: Found, kind: str) -> Floats | None:
    kinds = _kinds(folder)
    return _answers(folder, kinds.index(kind)) if kind in kinds else None


def _against(folders: Sequence[Found], auto: Sequence[Floats], fixed: Sequence[Floats | None]) -> dict[str, Any]:
    """Compare auto with one candidate, where there is that one."""
    apart = {
        folder["number"]: 100 * (mine - other)
        for folder, mine, other in zip(folders, auto, fixed, strict=True)
        if other is not None
    }
    found = pooled(folders, lambda folder: apart.get(folder["number"]))
    return {
        "folders": len(apart),
        "accuracy": _mean(fixed),
        "worst": min(float(values.mean()) for values in apart.values()),
        "difference": None if found is None else asdict(found),
        "verdict": None if found is None else verdict(found),
    }


def _points(folders: Sequence[Found], auto: Sequence[Floats]) -> dict[str, Any] | None:
    by_number = {folder["number"]: 100 * own for folder, own in zip(folders, auto, strict=True)}
    found = pooled(folders, lambda folder: by_number[folder["number"]])
    return None if found is None else asdict(found)


def _mean(values: Sequence[Floats | None]) -> float | None:
    """Average over folders, in points."""
    own = [float(each.mean()) for each in values if each is not None]
    return 100 * float(np.mean(own)) if own else None


def _sources(folders: Sequence[Found]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for i, folder in enumerate(folders):
        found.setdefault(folder["source"], []).append(i)
    return found


def _held_out(
    folders: Sequence[Found], auto: Sequence[Floats], which: Callable[[Sequence[int]], bool]
) -> dict[str, Any]:
    """Compare the accuracy that users were told with that of new photos, by the numbers of photos of the classes."""
    told = [
        (folder["held_out"], float(own.mean()))
        for folder, own in zip(folders, auto, strict=True)
        if folder["held_out"] is not None and which(folder["labelled"])
    ]
    return {
        "folders": len(told),
        "told": 100 * float(np.mean([held["mean"] for held, _ in told])) if told else None,
        "found": 100 * float(np.mean([own for _, own in told])) if told else None,
        "inside": sum(held["low"] <= own <= held["high"] for held, own in told),
    }


def _confidence(folders: Sequence[Found], auto: Sequence[Floats], name: str) -> dict[str, Any]:
    largest = [unpacked(folder["confidence"][name]["largest"]) for folder in folders]
    weights = np.concatenate([np.full(len(own), 1 / len(own)) for own in auto])
    by_number = {folder["number"]: 100 * (sure - own) for folder, sure, own in zip(folders, largest, auto, strict=True)}
    apart = pooled(folders, lambda folder: by_number[folder["number"]])
    loss = pooled(folders, lambda folder: unpacked(folder["confidence"][name]["log_loss"]))
    return {
        "error": 100 * expected_error(np.concatenate(largest), np.concatenate(auto), weights),
        "too_sure": None if apart is None else asdict(apart),
        "log_loss": None if loss is None else asdict(loss),
    }


def _refusal(folders: Sequence[Found], rate: str) -> dict[str, Any]:
    """Give the realised share of known photos refused, and of unknown ones."""

    def known(folder: Found) -> Floats | None:
        told = folder["refusal"][rate]
        return None if told is None else 100 * bits(told["known"])

    found = pooled(folders, known)
    able = [folder["refusal"][rate] for folder in folders if folder["refusal"][rate] is not None]
    unknown = [bits(told["unknown"]).mean() for told in able if told["unknown"]]
    return {
        "folders": len(able),
        "known": None if found is None else asdict(found),
        "unknown": 100 * float(np.mean(unknown)) if unknown else None,
    }


def _auroc(folders: Sequence[Found]) -> float | None:
    found = [folder["refusal"]["auroc"] for folder in folders if folder["refusal"]["auroc"] is not None]
    return float(np.mean(found)) if found else None


def _sets(folders: Sequence[Found], who: str, alpha: str) -> dict[str, Any]:
    """Give the realised share of sets that hold the right label."""

    def able(folder: Found) -> bool:
        return folder["sets"][who] is not None and alpha in folder["sets"][who]["hits"]

    found = pooled(
        folders,
        lambda folder: 100 * bits(folder["sets"][who]["hits"][alpha]) if able(folder) else None,
        lambda folder: unpacked(folder["sets"][who]["photos"]).astype(int),
    )
    own = [unpacked(folder["sets"][who]["sizes"][alpha]) for folder in folders if able(folder)]
    return {
        "folders": len(own),
        "photos": sum(map(len, own)),
        "covered": None if found is None else asdict(found),
        "size": float(np.mean([np.mean(sizes) for sizes in own])) if own else None,
    }

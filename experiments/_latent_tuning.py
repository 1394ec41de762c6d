"""Hyper-parameters of PT and LST chosen on validation classes, option by option."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from otfew import catalogue
from otfew.episodes import Sampler
from otfew.evaluation import Contender, evaluate
from otfew.features import FeatureSet
from otfew.methods.presets import published

Options = dict[str, float | int]

GRID: Mapping[str, tuple[float, ...]] = {
    "beta": (0.3, 0.4, 0.5, 0.6, 0.75, 1.0),
    "delta": (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0),
    "gamma": (0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 1.0),
    "lam": (5.0, 7.5, 10.0, 15.0, 20.0, 30.0),
    "alpha": (0.1, 0.2, 0.3, 0.4, 0.6),
    "n_steps": (10, 20, 30, 50),
}
"""What is tried of each option, in this order."""

USED = {
    "ncm": ("beta", "delta", "gamma"),
    "kmeans": ("beta", "delta", "gamma"),
    "gmm": ("beta", "delta", "gamma", "lam"),
    "map": ("beta", "delta", "gamma", "lam", "alpha", "n_steps"),
}
"""Options that a head's answers depend on, and that are worth choosing."""

PASSES = 2
"""Times that all options are gone through."""


@dataclass(frozen=True)
class Tuned:
    """What was chosen for one number of shots.

    Attributes:
        options: (method, head) -> constructor options.
        accuracies: (method, head) -> accuracy on the validation episodes, with the published options and with these.
    """

    options: Mapping[tuple[str, str], Options]
    accuracies: Mapping[tuple[str, str], tuple[float, float]]

    def record(self) -> dict[str, Any]:
        """Put it into JSON."""
        return {
            f"{method} {head}": {
                "options": self.options[method, head],
                "published_on_val": round(before, 8),
                "chosen_on_val": round(after, 8),
            }
            for (method, head), (before, after) in self.accuracies.items()
        }


def tune(features: FeatureSet, sampler: Sampler, episodes: int, source: str, device: str, console: Console) -> Tuned:
    """Choose options of every transform and head on the same episodes of the validation classes.

    From the published ones: all values of an option are tried with the others as they are, the most accurate
    is kept (of equal ones the present, else the first), twice through all options.

    Args:
        features: Averaged nodes of the validation classes.
        sampler: Their episodes.
        episodes: How many.
        source: Data set whose published options are the start.
        device: Where methods run.
        console: Where progress is shown.
    """
    options: dict[tuple[str, str], Options] = {}
    accuracies: dict[tuple[str, str], tuple[float, float]] = {}
    shot = sampler.protocol.shot
    columns = (TextColumn("{task.description}"), BarColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        for method in ("pt-map", "lst"):
            for head, used in USED.items():
                task = bar.add_task(f"{shot}-shot: choosing options of {method} with {head} on val", total=PASSES)
                search = _Search(features, sampler, episodes, device, method, head)
                chosen: Options = dict(published(method, source, shot))
                first = search.accuracy(chosen)
                for _ in range(PASSES):
                    for option in (o for o in used if o in chosen):
                        chosen = search.best(chosen, option)
                    bar.advance(task)
                options[method, head] = chosen
                accuracies[method, head] = (first, search.accuracy(chosen))
                bar.remove_task(task)
    return Tuned(options, accuracies)


class _Search:
    """Accuracies of one method with one head, each computed once."""

    def __init__(
        self, features: FeatureSet, sampler: Sampler, episodes: int, device: str, method: str, head: str
    ) -> None:
        self._features, self._sampler, self._episodes, self._device = features, sampler, episodes, device
        self._method, self._head = method, head
        self._known: dict[tuple[tuple[str, float | int], ...], float] = {}

    def best(self, options: Options, option: str) -> Options:
        """Return the options with the most accurate value of one of them."""
        candidates = [options, *({**options, option: value} for value in GRID[option])]
        self._evaluate(candidates)
        return max(candidates, key=self.accuracy)

    def accuracy(self, options: Options) -> float:
        """Return the mean accuracy of some options."""
        self._evaluate([options])
        return self._known[_key(options)]

    def _evaluate(self, candidates: list[Options]) -> None:
        """Run those that are not known yet on the same episodes."""
        missing = {_key(o): o for o in candidates if _key(o) not in self._known}
        contenders = [
            Contender(str(i), catalogue.build(self._method, **o, head=self._head), self._features)
            for i, o in enumerate(missing.values())
        ]
        if contenders:
            scores = evaluate(contenders, self._sampler, self._episodes, device=self._device)
            self._known |= {key: float(scores[str(i)].accuracy.mean()) for i, key in enumerate(missing)}


def _key(options: Options) -> tuple[tuple[str, float | int], ...]:
    """Make options hashable."""
    return tuple(sorted(options.items()))

"""Hyper-parameters of PT and LST chosen on validation classes, option by option."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from otfew.evaluation.episodes import Sampler
from otfew.evaluation.lineup import Entry
from otfew.evaluation.run import Ready, Scores, evaluate
from otfew.evaluation.running import get_ready
from otfew.evaluation.study import Terms
from otfew.features.material import Material
from otfew.runs.watch import SILENT, Watch

Options = dict[str, float | int]

GRID: Mapping[str, tuple[float, ...]] = {
    "beta": (0.3, 0.4, 0.5, 0.6, 0.75, 1.0),
    "delta": (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0),
    "gamma": (0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 1.0),
    "lam": (5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 50.0),
    "alpha": (0.1, 0.2, 0.3, 0.4, 0.6),
    "n_steps": (10, 20, 30, 50),
    "slack": (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
}
"""What is tried of each option, in this order."""

USED = {
    "ncm": ("beta", "delta", "gamma"),
    "kmeans": ("beta", "delta", "gamma"),
    "gmm": ("beta", "delta", "gamma", "lam"),
    "map": ("beta", "delta", "gamma", "lam", "alpha", "n_steps", "slack"),
}
"""Options that a head's answers depend on, and that are worth choosing; slack where the prior is estimated."""

SLACK = 0.3
"""Where the search for the slack starts: the methods' default."""

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


def tune(
    material: Material,
    nodes: str,
    sampler: Sampler,
    terms: Terms,
    start: Mapping[tuple[str, str], Options],
    fixed: Sequence[str] = (),
    *,
    watch: Watch = SILENT,
) -> Tuned:
    """Choose options of every transform and head on the same episodes of the validation classes.

    All values of an option are tried with the others as they are, the most accurate is kept (of equal ones the present,
    else the first), twice through all options.

    Args:
        material: The validation classes.
        nodes: Canonical kind of nodes.
        sampler: Episodes.
        terms: How many of them, and what methods are told of the classes' shares.
        start: Options of every (method, head) to start from.
        fixed: Options that stay as they are.
        watch: Where progress is shown.
    """
    options: dict[tuple[str, str], Options] = {}
    accuracies: dict[tuple[str, str], tuple[float, float]] = {}

    def run(ready: list[Ready]) -> Mapping[str, Scores]:
        return evaluate(ready, sampler, terms.episodes, device=terms.device, allow_overlap=terms.allow_overlap)

    for (method, head), published in start.items():
        given = {**published, "slack": SLACK} if terms.class_prior == "estimated" and head == "map" else published

        def make(name: str, chosen: Options, method: str = method, head: str = head) -> Ready:
            entry = Entry(name, method, nodes, {**chosen, "head": head})
            return get_ready(entry, material, terms.device, terms.class_prior, allow_overlap=terms.allow_overlap)

        search = _Search(make, run)
        chosen = given
        title = f"{sampler.protocol.shot}-shot: choosing options of {method} with {head} on val"
        with watch.task(title) as step:
            for i in range(PASSES):
                for option in (o for o in USED[head] if o in chosen and o not in fixed):
                    chosen = search.best(chosen, option)
                step(i + 1, PASSES)
        options[method, head] = chosen
        accuracies[method, head] = (search.accuracy(given), search.accuracy(chosen))
    return Tuned(options, accuracies)


class _Search:
    """Accuracies of one method with one head, each computed once.

    Args:
        make: Makes an entry ready of a name and options.
        run: Gives the scores of entries by name.
    """

    def __init__(
        self,
        make: Callable[[str, Options], Ready],
        run: Callable[[list[Ready]], Mapping[str, Scores]],
    ) -> None:
        self._make, self._run = make, run
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
        ready = [self._make(str(i), o) for i, o in enumerate(missing.values())]
        if ready:
            scores = self._run(ready)
            self._known |= {key: float(scores[str(i)].accuracy.mean()) for i, key in enumerate(missing)}


def _key(options: Options) -> tuple[tuple[str, float | int], ...]:
    """Make options hashable."""
    return tuple(sorted(options.items()))

"""Hyper-parameters of PT and LST chosen on validation classes, option by option."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from otfew.evaluation.episodes import Sampler
from otfew.evaluation.run import Contender, Scores, evaluate
from otfew.evaluation.running import get_ready
from otfew.experiments.common.analysis import Variant
from otfew.features.material import Material

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
    episodes: int,
    start: Mapping[tuple[str, str], Options],
    fixed: Sequence[str],
    class_prior: str,
    device: str,
    console: Console,
) -> Tuned:
    """Choose options of every transform and head on the same episodes of the validation classes.

    All values of an option are tried with the others as they are, the most accurate is kept (of equal ones the present,
    else the first), twice through all options.

    Args:
        material: The validation classes.
        nodes: Canonical kind of nodes.
        sampler: Episodes.
        episodes: How many.
        start: Options of every (method, head) to start from.
        fixed: Options that stay as they are.
        class_prior: What methods are told of the classes' shares: "uniform", "true" or "estimated".
        device: Where methods run.
        console: Where progress is shown.
    """
    options: dict[tuple[str, str], Options] = {}
    accuracies: dict[tuple[str, str], tuple[float, float]] = {}
    columns = (TextColumn("{task.description}"), BarColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        for (method, head), published in start.items():
            title = f"{sampler.protocol.shot}-shot: choosing options of {method} with {head} on val"
            task = bar.add_task(title, total=PASSES)
            given = {**published, "slack": SLACK} if class_prior == "estimated" and head == "map" else published

            def make(name: str, chosen: Options, method: str = method, head: str = head) -> Contender:
                variant = Variant(name, method, nodes, {**chosen, "head": head})
                return get_ready(variant, material, device, class_prior)  # type: ignore[arg-type]

            search = _Search(make, lambda contenders: evaluate(contenders, sampler, episodes, device=device))
            chosen = given
            for _ in range(PASSES):
                for option in (o for o in USED[head] if o in chosen and o not in fixed):
                    chosen = search.best(chosen, option)
                bar.advance(task)
            options[method, head] = chosen
            accuracies[method, head] = (search.accuracy(given), search.accuracy(chosen))
            bar.remove_task(task)
    return Tuned(options, accuracies)


class _Search:
    """Accuracies of one method with one head, each computed once.

    Args:
        make: Makes a contender of a name and options.
        run: Gives the scores of contenders by name.
    """

    def __init__(
        self,
        make: Callable[[str, Options], Contender],
        run: Callable[[list[Contender]], Mapping[str, Scores]],
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
        contenders = [self._make(str(i), o) for i, o in enumerate(missing.values())]
        if contenders:
            scores = self._run(contenders)
            self._known |= {key: float(scores[str(i)].accuracy.mean()) for i, key in enumerate(missing)}


def _key(options: Options) -> tuple[tuple[str, float | int], ...]:
    """Make options hashable."""
    return tuple(sorted(options.items()))

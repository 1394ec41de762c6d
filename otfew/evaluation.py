"""The evaluator: all methods on the very same episodes, block by block."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from otfew.episodes import Episodes, Sampler
from otfew.errors import UserError
from otfew.feature_cache import Note
from otfew.features import FeatureSet
from otfew.method import FewShotMethod
from otfew.run_directory import Arrays, RunDirectory

BLOCK = 50
"""Episodes in a block: the unit that is computed, kept and resumed."""
BATCH_BYTES = 256 << 20
"""About how much memory the nodes and pairwise products of a batch of episodes may take."""

Progress = Callable[[int, str], None]
"""Called with the number of (method, episode) pairs that were just finished, and the method's name."""


@dataclass(frozen=True)
class Contender:
    """A method, ready to run, with the features it runs on.

    Attributes:
        name: Name in reports; unique in a run.
        method: Follows ``otfew.method.FewShotMethod``.
        features: Node sets of the evaluated split.
        material: Sha256 of what it runs on; finished blocks that ran on something else are computed again.
    """

    name: str
    method: FewShotMethod
    features: FeatureSet
    material: str = ""


@dataclass(frozen=True)
class Scores:
    """One method's results.

    Attributes:
        correct: (episodes, way) int64: queries of each class that were classified rightly.
        queries: Queries of each class in an episode.
        seconds: Time in the method's calls, from gathered features to logits.
    """

    correct: npt.NDArray[np.int64]
    queries: int
    seconds: float

    @property
    def accuracy(self) -> npt.NDArray[np.float64]:
        """Accuracy of each episode: (episodes,) in [0, 1]."""
        fraction: npt.NDArray[np.float64] = self.correct.sum(1) / (self.correct.shape[1] * self.queries)
        return fraction

    @property
    def milliseconds(self) -> float:
        """Time of an episode."""
        return 1000 * self.seconds / len(self.correct)


def evaluate(
    contenders: Sequence[Contender],
    sampler: Sampler,
    n_episodes: int,
    *,
    directory: RunDirectory | None = None,
    device: torch.device | str = "cpu",
    progress: Progress = lambda _, __: None,
    note: Note = lambda _: None,
) -> dict[str, Scores]:
    """Run every method on episodes 0 to ``n_episodes - 1``.

    Blocks that ``directory`` holds are taken from there. What a batch of episodes is depends on shapes alone, so that a
    resumed run computes exactly what an uninterrupted one does.

    Args:
        contenders: Methods with their features.
        sampler: Episodes of one protocol.
        n_episodes: How many.
        directory: Where finished blocks are kept, or None.
        device: Where methods run.
        progress: Called after each batch of each method.
        note: Called with a sentence where a damaged block is computed again.

    Returns:
        Scores by contender's name.

    Raises:
        UserError: A method refuses its input, or its answer has a wrong shape or is not a number, naming method and
            episode.
    """
    if n_episodes < 1:
        raise UserError(f"--episodes must be at least 1, not {n_episodes}.")
    groups: dict[int, list[Contender]] = {}
    for contender in contenders:
        groups.setdefault(id(contender.features), []).append(contender)
    runner = _Runner(list(groups.values()), sampler.protocol.query, torch.device(device), progress)
    blocks: list[Arrays] = []
    for index, start in enumerate(range(0, n_episodes, BLOCK)):
        stop = min(start + BLOCK, n_episodes)
        block = directory.load_block(index, note) if directory else None
        if block is not None and any(str(block[f"{c.name}.material"]) != c.material for c in contenders):
            note(f"finished episodes {start} to {stop - 1} ran on other features; computing them again")
            block = None
        if block is None:
            block = runner.block(sampler(start, stop), start)
            if directory:
                directory.save_block(index, block)
        else:
            for contender in contenders:
                progress(stop - start, contender.name)
        blocks.append(block)
    return {
        c.name: Scores(
            np.concatenate([block[f"{c.name}.correct"] for block in blocks]),
            sampler.protocol.query,
            float(sum(block[f"{c.name}.seconds"] for block in blocks)),
        )
        for c in contenders
    }


def batch_episodes(way: int, shot: int, query: int, nodes: int, channels: int) -> int:
    """Episodes that go through a method at once: by the bytes of their nodes and pairwise products, at most a block."""
    gathered = 4 * way * (shot + query) * nodes * channels
    products = 4 * 4 * way * query * way * shot * nodes * nodes
    return max(1, min(BLOCK, BATCH_BYTES // (gathered + products)))


class _Runner:
    """Runs blocks of episodes through groups of contenders that share features."""

    def __init__(self, groups: list[list[Contender]], queries: int, device: torch.device, progress: Progress) -> None:
        self._groups = groups
        self._queries = queries
        self._device = device
        self._progress = progress
        self._warm = False

    def block(self, episodes: Episodes, start: int) -> Arrays:
        """Count each contender's right answers: "NAME.correct" (episodes, way) and "NAME.seconds" ()."""
        correct: dict[str, list[npt.NDArray[np.int64]]] = {c.name: [] for group in self._groups for c in group}
        seconds = dict.fromkeys(correct, 0.0)
        for group in self._groups:
            nodes = group[0].features.nodes
            _, way, shot = episodes.support.shape
            size = batch_episodes(way, shot, self._queries, *nodes.shape[1:])
            for i in range(0, len(episodes), size):
                support = self._gather(nodes, episodes.support[i : i + size])
                query = self._gather(nodes, episodes.query[i : i + size]).flatten(1, 2)
                if i == 0 and not self._warm:
                    # The first call compiles; its time belongs to no episode.
                    for contender in group:
                        self._logits(contender, support[:1], query[:1], start)
                for contender in group:
                    right, elapsed = self._score(contender, support, query, start + i)
                    correct[contender.name].append(right)
                    seconds[contender.name] += elapsed
                    self._progress(len(right), contender.name)
        self._warm = True
        arrays: Arrays = {f"{name}.correct": np.concatenate(parts) for name, parts in correct.items()}
        arrays |= {f"{c.name}.material": np.array(c.material) for group in self._groups for c in group}
        return arrays | {f"{name}.seconds": np.array(value) for name, value in seconds.items()}

    def _gather(self, nodes: Tensor, indices: npt.NDArray[np.int64]) -> Tensor:
        """Pick images: indices (...,) to (..., nodes, channels) on the device."""
        flat = nodes.index_select(0, torch.from_numpy(indices.reshape(-1)))
        return flat.view(*indices.shape, *nodes.shape[1:]).to(self._device)

    def _logits(self, contender: Contender, support: Tensor, query: Tensor, start: int) -> Tensor:
        """Call a method on a batch of episodes; what it refuses is the user's to set right."""
        try:
            return contender.method(support, query)
        except ValueError as error:
            raise UserError(
                f"method {contender.name!r} refuses the batch of {len(support)} from episode {start} on: {error}."
            ) from error

    def _score(
        self, contender: Contender, support: Tensor, query: Tensor, start: int
    ) -> tuple[npt.NDArray[np.int64], float]:
        """Call a method on a batch of episodes and count right answers for each class."""
        started = time.perf_counter()
        # Copying to the CPU also waits for an accelerator, so that the clock sees the work.
        logits = self._logits(contender, support, query, start).detach().cpu()
        elapsed = time.perf_counter() - started
        episodes, way = support.shape[:2]
        expected = (episodes, way * self._queries, way)
        if logits.shape != expected:
            raise UserError(f"method {contender.name!r} answered with shape {tuple(logits.shape)}, not {expected}.")
        bad = torch.isnan(logits).flatten(1).any(1).nonzero()
        if len(bad):
            raise UserError(
                f"method {contender.name!r} answered NaN in episode {start + int(bad[0])}: check its options."
            )
        answers = logits.argmax(-1).view(episodes, way, self._queries)
        right = (answers == torch.arange(way).view(1, way, 1)).sum(-1)
        return right.numpy(), elapsed

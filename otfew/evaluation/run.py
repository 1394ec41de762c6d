"""The evaluator: all methods on the very same episodes, block by block.

Blocks are what several processes share out. A block's right answers depend on its episodes alone, so that any number of
processes gives the same ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from otfew.choices import ClassPrior
from otfew.devices import send, settle
from otfew.errors import UserError
from otfew.evaluation.blocks import code_of, form_of
from otfew.evaluation.episodes import Episodes, Sampler
from otfew.evaluation.guard import refuse_overlap
from otfew.evaluation.placement import gathered, placed
from otfew.features.extract import FeatureSet
from otfew.method import FewShotMethod
from otfew.runs import processes
from otfew.runs.blocks import Arrays, Form
from otfew.runs.directory import RunDirectory, differences
from otfew.runs.files import Note
from otfew.transport.importing import is_plugin

BLOCK = 50
"""Episodes in a block: the unit that is computed, kept, resumed and given to one of several processes."""
BATCH_BYTES = 256 << 20
"""About how much memory the nodes and pairwise products of a batch of episodes may take."""

BOUND = 1e30
"""Largest logit that is kept."""

SETUP = "setup"
"""Entry of a block: processes, threads of each, episodes."""

Answers = npt.NDArray[np.unsignedinteger[Any]]

Progress = Callable[[int, str], None]
"""Called with the number of (method, episode) pairs that were just finished, and the method's name."""


@dataclass(frozen=True)
class Ready:
    """An entry that is ready to run: its method, built, and the features it runs on.

    Attributes:
        name: Name in reports; unique in a run.
        method: Follows ``otfew.method.FewShotMethod``.
        features: Node sets of the evaluated split.
        material: Sha256 of what it runs on; finished blocks that ran on something else are computed again.
        class_prior: What a transductive method is told of the classes' shares in the queries: "uniform", "true" (each
            episode's own: an oracle) or "estimated" (nothing: the method estimates them).
    """

    name: str
    method: FewShotMethod
    features: FeatureSet
    material: str = ""
    class_prior: ClassPrior = "uniform"

    def prior(self, episodes: Episodes) -> npt.NDArray[np.float64] | None:
        """Return what the method is told: (episodes, way), or None."""
        if not self.method.transductive or self.class_prior == "estimated":
            return None
        shares = episodes.proportions
        return shares if self.class_prior == "true" else np.full_like(shares, 1 / shares.shape[1])


@dataclass(frozen=True)
class Setup:
    """How episodes were run.

    Attributes:
        processes: How many ran side by side.
        threads: Of each.
        episodes: How many episodes were run so.
    """

    processes: int
    threads: int
    episodes: int


@dataclass(frozen=True)
class Scores:
    """One method's results.

    Attributes:
        correct: (episodes, way) int64: queries of each class that were classified rightly.
        queries: Queries of an episode, divided by its classes; each class has as many where episodes are balanced.
        seconds: Time in the method's calls, from gathered features to logits: the sum over all processes.
        setups: On how many processes and threads it was taken.
        predicted: (episodes, way * queries + unknown), the place of each query's answer among the episode's classes, in
            the smallest unsigned type that holds them; None where only right answers are known.
        logits: (episodes, way * queries + unknown, way) float32; None where they were not kept.
    """

    correct: npt.NDArray[np.int64]
    queries: int
    seconds: float
    setups: tuple[Setup, ...] = ()
    predicted: Answers | None = None
    logits: npt.NDArray[np.float32] | None = None

    @property
    def accuracy(self) -> npt.NDArray[np.float64]:
        """Share of each episode's queries that were classified rightly, whatever their class: (episodes,)."""
        fraction: npt.NDArray[np.float64] = self.correct.sum(1) / (self.correct.shape[1] * self.queries)
        return fraction

    @property
    def milliseconds(self) -> float:
        """Time of an episode."""
        return 1000 * self.seconds / len(self.correct)


def evaluate(
    ready: Sequence[Ready],
    sampler: Sampler,
    n_episodes: int,
    *,
    directory: RunDirectory | None = None,
    device: torch.device | str = "cpu",
    progress: Progress = lambda _, __: None,
    note: Note = lambda _: None,
    allow_overlap: bool = False,
) -> dict[str, Scores]:
    """Run every method on episodes 0 to ``n_episodes - 1``.

    Blocks that ``directory`` holds are taken from there. What a batch of episodes is depends on shapes alone, so that a
    resumed run computes exactly what an uninterrupted one does. Several processes take the missing blocks in turn; all
    of them return all scores, and the main one alone reads and writes ``directory``.

    Args:
        ready: Methods with their features.
        sampler: Episodes of one protocol.
        n_episodes: How many.
        directory: Where finished blocks are kept, or None.
        device: Where methods run. Features are copied there as wholes where they fit, else episode by episode.
        progress: Called after each batch of each method.
        note: Called with a sentence where a damaged block is computed again.
        allow_overlap: Go on where features are of classes that their backbone has seen in training.

    Returns:
        Scores by entry's name.

    Raises:
        UserError: Features are of seen classes; a method refuses its input; its answer has a wrong shape or is not a
            number, naming method and episode; or a process has another protocol or other features than the main one.
            What else a method raises is a fault of its own, and keeps its traceback.
        PeerLostError: Another process has ended.
    """
    if n_episodes < 1:
        raise UserError(f"`episodes` must be at least 1, not {n_episodes}.")
    for entry in ready:
        refuse_overlap(entry.features.overlap, allow_overlap)
    groups: dict[int, list[Ready]] = {}
    for entry in ready:
        groups.setdefault(id(entry.features), []).append(entry)
    runner = _Runner(list(groups.values()), sampler, torch.device(device), progress)
    _agree(ready, directory)
    ranges = [(start, min(start + BLOCK, n_episodes)) for start in range(0, n_episodes, BLOCK)]
    code = code_of(entry.method for entry in ready) if directory else ""
    names = [entry.name for entry in ready]
    kinds = sampler.keeps, sampler.unknown
    forms = [form_of(names, stop - start, sampler.protocol, SETUP, code, *kinds) for start, stop in ranges]
    kept = {i: block for i in range(len(ranges)) if (block := _kept(i, ranges[i], ready, directory, forms[i], note))}
    blocks = processes.from_main(kept)
    for index in blocks:
        _advance(progress, ready, ranges[index])
    missing = [i for i in range(len(ranges)) if i not in blocks]
    here = processes.world()
    for first in range(0, len(missing), here.size):
        # A round: a block for each process. The main process then keeps them all, so that no more is ever lost.
        turn = missing[first : first + here.size]
        mine = turn[here.rank] if here.rank < len(turn) else None
        block = None if mine is None else runner.block(sampler(*ranges[mine]), ranges[mine][0])
        for index, made in zip(turn, processes.gather(block), strict=False):
            if made is None:
                raise RuntimeError(f"the process whose turn it was brought no block {index}")
            blocks[index] = made
            if directory:
                directory.save_block(index, made, forms[index])
            if index != mine:
                _advance(progress, ready, ranges[index])
    ordered = [blocks[i] for i in range(len(ranges))]
    setups = _setups(ordered)
    return {
        entry.name: Scores(
            np.concatenate([block[f"{entry.name}.correct"] for block in ordered]),
            sampler.protocol.query,
            float(sum(block[f"{entry.name}.seconds"] for block in ordered)),
            setups,
            _joined(ordered, f"{entry.name}.predicted"),
            _joined(ordered, f"{entry.name}.logits") if sampler.keeps else None,
        )
        for entry in ready
    }


def _joined(blocks: Sequence[Arrays], name: str) -> npt.NDArray[Any]:
    """Put an array of several blocks together."""
    return np.concatenate([block[name] for block in blocks])


def _agree(ready: Sequence[Ready], directory: RunDirectory | None) -> None:
    """Raise ``UserError`` in a process that would compute something else than the main one does."""
    here = {"run": directory.identity if directory else {}, "features": {entry.name: entry.material for entry in ready}}
    found = differences(processes.from_main(here), here)
    if found:
        raise UserError(
            f"process {processes.world().rank} differs from process 0: {'; '.join(found)}; "
            "give all processes the same command, data, backbone and versions."
        )


def _kept(
    index: int,
    span: tuple[int, int],
    ready: Sequence[Ready],
    directory: RunDirectory | None,
    form: Form,
    note: Note,
) -> Arrays | None:
    """Take a finished block of episodes from the folder; None where there is none that ran on these very features."""
    block = directory.load_block(index, form, note) if directory else None
    if block is not None and any(str(block[f"{entry.name}.material"]) != entry.material for entry in ready):
        note(f"finished episodes {span[0]} to {span[1] - 1} ran on other features; computing them again")
        return None
    return block


def _advance(progress: Progress, ready: Sequence[Ready], span: tuple[int, int]) -> None:
    """Count episodes that this process has not computed itself just now."""
    for entry in ready:
        progress(span[1] - span[0], entry.name)


def _setups(blocks: Sequence[Arrays]) -> tuple[Setup, ...]:
    """Count the episodes that each number of processes and threads has run."""
    counts: dict[tuple[int, int], int] = {}
    for n_processes, threads, episodes in (block[SETUP].tolist() for block in blocks):
        counts[n_processes, threads] = counts.get((n_processes, threads), 0) + episodes
    return tuple(Setup(*key, episodes) for key, episodes in sorted(counts.items()))


def batch_episodes(way: int, shot: int, query: int, nodes: int, channels: int) -> int:
    """Episodes that go through a method at once: by the bytes of their nodes and pairwise products, at most a block."""
    gathered = 4 * way * (shot + query) * nodes * channels
    products = 4 * 4 * way * query * way * shot * nodes * nodes
    return max(1, min(BLOCK, BATCH_BYTES // (gathered + products)))


class _Runner:
    """Runs blocks of episodes through groups of entries that share features."""

    def __init__(self, groups: list[list[Ready]], sampler: Sampler, device: torch.device, progress: Progress) -> None:
        self._groups = groups
        self._queries = sampler.protocol.query
        self._unknown = sampler.unknown
        self._keeps = sampler.keeps
        self._device = device
        self._progress = progress
        self._warm = False
        self._nodes: dict[int, tuple[Tensor, Tensor, int]] = {}

    def block(self, episodes: Episodes, start: int) -> Arrays:
        """Ask each entry: "NAME.correct" (episodes, way), "NAME.predicted" (episodes, queries) and "NAME.seconds" ().

        Where the sampler keeps logits, they stand in "NAME.logits".
        """
        kept: dict[str, list[npt.NDArray[Any]]] = {}
        seconds = {entry.name: 0.0 for group in self._groups for entry in group}
        for number, group in enumerate(self._groups):
            nodes, others, first = self._placed(number)
            _, way, shot = episodes.support.shape
            size = batch_episodes(way, shot, self._queries, *nodes.shape[1:])
            for i in range(0, len(episodes), size):
                part = episodes[i : i + size]
                support = gathered(nodes, part.support, self._device)
                query = gathered(others, part.query - first, self._device).flatten(1, 2)
                if part.unknown is not None:
                    query = torch.cat([query, gathered(others, part.unknown - first, self._device).flatten(1, 2)], 1)
                if i == 0 and not self._warm:
                    # The first call compiles; its time belongs to no episode.
                    for entry in group:
                        self._ask(entry, part[:1], support[:1], query[:1])
                settle(self._device)
                for entry in group:
                    found, elapsed = self._score(entry, part, support, query, start + i)
                    for name, array in found.items():
                        kept.setdefault(f"{entry.name}.{name}", []).append(array)
                    seconds[entry.name] += elapsed
                    self._progress(len(part), entry.name)
        self._warm = True
        arrays: Arrays = {name: np.concatenate(parts) for name, parts in kept.items()}
        arrays |= {f"{entry.name}.material": np.array(entry.material) for group in self._groups for entry in group}
        arrays[SETUP] = np.array([processes.world().size, torch.get_num_threads(), len(episodes)])
        return arrays | {f"{name}.seconds": np.array(value) for name, value in seconds.items()}

    def _placed(self, group: int) -> tuple[Tensor, Tensor, int]:
        """Return the nodes of a group, which are copied to the device once, if at all.

        Those that labelled images come from, those that queries come from, and the number of the first of these.
        """
        if group not in self._nodes:
            features, shared = self._groups[group][0].features, processes.world().local_size
            own = placed(features.nodes, self._device, shared)
            queries = features.queries
            there = own if queries is None else placed(queries.nodes, self._device, shared)
            self._nodes[group] = own, there, 0 if queries is None else len(own)
        return self._nodes[group]

    def _ask(self, entry: Ready, episodes: Episodes, support: Tensor, query: Tensor) -> tuple[Tensor, float]:
        """Call a method: logits (episodes, way * query, way) on the CPU, and seconds."""
        prior = entry.prior(episodes)
        told = {} if prior is None else {"class_prior": send(torch.from_numpy(prior).to(support.dtype), support.device)}
        started = time.perf_counter()
        # Copying to the CPU also waits for an accelerator, so that the clock sees the work.
        logits = entry.method(support, query, **told).detach().cpu()
        return logits, time.perf_counter() - started

    def _score(
        self, entry: Ready, episodes: Episodes, support: Tensor, query: Tensor, start: int
    ) -> tuple[Arrays, float]:
        """Call a method on a batch of episodes: right answers of each class, what is kept of each query; seconds."""
        logits, elapsed = self._ask(entry, episodes, support, query)
        n_episodes, way = episodes.counts.shape
        known = way * self._queries
        expected = (n_episodes, known + self._unknown, way)
        if logits.shape != expected:
            got = tuple(logits.shape)
            raise UserError(f"method {entry.name!r} answered with shape {got}, not {expected}{_laws(entry.name)}.")
        bad = torch.isnan(logits).flatten(1).any(1).nonzero()
        if len(bad):
            raise UserError(
                f"method {entry.name!r} answered NaN in episode {start + int(bad[0])}: check its options"
                f"{_laws(entry.name)}."
            )
        truth = torch.from_numpy(episodes.answers)
        predicted = logits.argmax(-1)
        hits = (predicted[:, :known] == truth).long()
        right = torch.zeros(n_episodes, way, dtype=torch.int64).scatter_add_(1, truth, hits)
        found: Arrays = {"correct": right.numpy(), "predicted": predicted.numpy().astype(np.min_scalar_type(way - 1))}
        if self._keeps:
            # What is kept must be finite; softmax does not tell the bound from infinity.
            found["logits"] = logits.float().clamp(-BOUND, BOUND).numpy()
        return found, elapsed


def _laws(name: str) -> str:
    """Say what tries a method of the user's own, if an entry is one by name."""
    own = name.partition(" ")[0]
    return f"; otfew check {own} says what to mend" if is_plugin(own) else ""

"""Episodes a second from features in the device's memory, by method."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from otfew import catalogue
from otfew.experiments.device_check.bench import CARD, Bench, Row, Timing
from otfew.method import FewShotMethod

WAY, QUERY = 5, 15
IMAGES = 600
"""Of the made features, 30 of each class."""
CLASSES = 20
APART = (0.23, 0.1)
"""How far classes lie apart, by global vectors and by nodes: some three of four answers are right, as on images."""
EPISODES = 10_000
"""The papers' number of episodes."""


@dataclass(frozen=True)
class Case:
    """A method on features of one kind.

    Attributes:
        method: Its name.
        nodes: Of an image.
        channels: Of a node.
        shot: Labelled images of a class.
        at_once: Episodes in a call.
        whole: Whether all ``EPISODES`` are run where time allows it.
    """

    method: str
    nodes: int
    channels: int
    shot: int
    at_once: int
    whole: bool = False


CASES = (
    Case("deepemd", 25, 640, 1, 64),
    Case("lst", 1, 640, 1, 2000, whole=True),
    Case("pt-map", 1, 640, 1, 1000),
    Case("tim", 1, 640, 1, 1000),
    Case("deepemd", 25, 640, 5, 8),
    Case("alpha-tim", 1, 640, 1, 1000),
    Case("protonet", 25, 640, 1, 64),
)
TOY_CASES = (Case("deepemd", 4, 8, 1, 2), Case("lst", 1, 8, 1, 3, whole=True), Case("tim", 1, 8, 1, 2))


def measure(bench: Bench) -> Iterator[Row]:
    """Yield a row a method."""
    for case in TOY_CASES if bench.toy else CASES:
        where = {
            "what": f"{case.method}, {case.shot}-shot",
            "size": f"{case.nodes}x{case.channels}",
            "count": case.at_once,
            "by": CARD,
        }
        # Episodes as they are gathered, and what a method makes of them.
        if not bench.fits(4.0 * 4 * case.at_once * WAY * (case.shot + QUERY) * case.nodes * case.channels):
            yield {**where, "skipped": "no room on the card"}
            continue
        yield {**where, **_run(bench, case)}


def _run(bench: Bench, case: Case) -> Row:
    """Time a method from features to right answers."""
    features = _features(case, bench.device)
    method = catalogue.build(case.method)
    batches = [_episodes(case, seed, bench.device) for seed in range(4)]
    turn = 0

    def call() -> Any:
        nonlocal turn
        turn += 1
        return _right(method, features, *batches[turn % len(batches)])

    if not case.whole:
        return {**bench.turns(call, seconds=1.0).figures(case.at_once), "right": float(call())}
    first = bench.once(call)
    first = min(first, bench.once(call))
    total = 3 * case.at_once if bench.toy else EPISODES
    predicted = first * total / case.at_once
    if predicted > 0.5 * bench.left():
        return {**Timing((first,)).figures(case.at_once), "right": float(call())}
    calls = -(-total // case.at_once)
    seconds = bench.once(lambda: [call() for _ in range(calls)])
    figures = Timing((seconds / calls,)).figures(case.at_once)
    return {**figures, "repeats": calls, "episodes": calls * case.at_once, "seconds": seconds, "right": float(call())}


def _features(case: Case, device: torch.device) -> Tensor:
    """Make non-negative node sets (images, nodes, channels), the images of a class side by side."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(CLASSES, 1, 1, case.channels, generator=generator)
    noise = torch.randn(CLASSES, IMAGES // CLASSES, case.nodes, case.channels, generator=generator)
    return (APART[case.nodes > 1] * centres + noise).relu().flatten(0, 1).to(device)


def _episodes(case: Case, seed: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Draw images: support (episodes, way, shot) and query (episodes, way * query), class after class."""
    generator = torch.Generator().manual_seed(seed)
    classes = torch.rand(case.at_once, CLASSES, generator=generator).argsort(1)[:, :WAY]
    each = IMAGES // CLASSES
    order = torch.rand(case.at_once, WAY, each, generator=generator).argsort(2)
    images = classes[..., None] * each + order
    support, query = images[..., : case.shot], images[..., case.shot : case.shot + QUERY]
    return support.to(device), query.flatten(1).to(device)


@torch.inference_mode()
def _right(method: FewShotMethod, features: Tensor, support: Tensor, query: Tensor) -> Tensor:
    """Gather the nodes, ask the method, and take the share of right answers; it stays on the device."""
    logits = method(features[support], features[query])
    answers = torch.arange(WAY, device=features.device).repeat_interleave(QUERY)
    return (logits.argmax(-1) == answers).double().mean()

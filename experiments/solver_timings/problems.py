"""What solvers are timed on: pairs of node sets as DeepEMD meets them, drawn or real, and point clouds."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from otfew.errors import UserError
from otfew.evaluation.episodes import Sampler
from otfew.features.extract import FeatureSet
from otfew.scores.node_weights import NODE_WEIGHTS
from otfew.scores.pairwise import similarities
from otfew.transport import Solver, solve
from otfew.transport.registry import SOLVERS, installed, lookup

CHANNELS = 256
POINT_DIMENSION = 3


@dataclass(frozen=True)
class Problems:
    """A batch of dense problems.

    Attributes:
        cost: (batch, n, m) float32.
        a: (batch, n), totals 1.
        b: (batch, m), totals 1.
    """

    cost: Tensor
    a: Tensor
    b: Tensor


def drawn(n: int, batch: int, device: str) -> Problems:
    """Draw problems of features relu(noise + 0.5 class mean): cosine cost, cross-reference weights.

    Problem k is the same in every batch.
    """
    parts = [_drawn(n, k) for k in range(batch)]
    return Problems(*(torch.from_numpy(np.stack(side)).float().to(device) for side in zip(*parts, strict=True)))


def _drawn(n: int, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng([n, k])
    means = rng.standard_normal((2, 1, CHANNELS))
    x, y = np.maximum(rng.standard_normal((2, n, CHANNELS)) + 0.5 * means, 0)
    dots = x @ y.T
    lengths = np.linalg.norm(x, axis=-1)[:, None] * np.linalg.norm(y, axis=-1)
    a, b = np.maximum(dots.mean(1), 0) + 1e-3, np.maximum(dots.mean(0), 0) + 1e-3
    return 1 - dots / lengths, a / a.sum(), b / b.sum()


def real(features: FeatureSet, sampler: Sampler, batch: int, device: str) -> Problems:
    """Take the problems that DeepEMD meets in the first episodes: every query against every class."""
    protocol = sampler.protocol
    pairs = protocol.way * protocol.query * protocol.way
    episodes = sampler(0, -(-batch // pairs))
    gathered = [
        features.nodes[torch.from_numpy(index.reshape(-1))].view(*index.shape, *features.nodes.shape[1:]).to(device)
        for index in (episodes.support, episodes.query)
    ]
    support, query = gathered[0].mean(2), gathered[1].flatten(1, 2)
    a, b = NODE_WEIGHTS["cross_reference"](support, query)
    cost = 1 - similarities(support, query)
    return Problems(*(side.flatten(0, 2)[:batch].contiguous() for side in (cost, a, b)))


def clouds(n: int, device: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draw one pair of point clouds in three dimensions with random weights: x, y (1, n, 3) and a, b (1, n)."""
    rng = np.random.default_rng(n)
    x, y = rng.standard_normal((2, 1, n, POINT_DIMENSION))
    a, b = rng.dirichlet(np.ones(n), (2, 1))
    x, y, a, b = (torch.from_numpy(side).float().to(device) for side in (x, 0.5 * y + 1, a, b))
    return x, y, a, b


def pooled(features: FeatureSet, side: int) -> FeatureSet | None:
    """Average the cells of square maps down to side x side; None where nodes are no square or no more than that."""
    images, n, channels = features.nodes.shape
    width = round(n**0.5)
    if width * width != n or width <= side:
        return None
    parts = [
        torch.nn.functional.adaptive_avg_pool2d(part.mT.reshape(-1, channels, width, width), side).flatten(2).mT
        for part in torch.split(features.nodes, 256)
    ]
    return replace(features, nodes=torch.cat(parts).contiguous().view(images, side * side, channels))


def choose(names: tuple[str, ...]) -> tuple[list[type[Solver]], list[type[Solver]]]:
    """Look solvers up.

    Args:
        names: Of solvers, or "all" among them: those that are installed.

    Returns:
        The solvers to time, in the order of the registry, and those left out because their library is missing.

    Raises:
        UserError: No such solver, or one that was asked for by name is not installed.
    """
    if not names:
        raise UserError("--solvers names no solver: give some, or all.")
    every = [lookup(name) for name in SOLVERS]
    for name in names:
        if name == "all":
            continue
        try:
            solver = lookup(name)
        except ValueError as error:
            raise UserError(f"--solvers: {error}.") from error
        if not installed(solver):
            raise UserError(f"--solvers: {name!r} needs {solver.requires}: {solver.install}.")
    wanted = every if "all" in names else [solver for solver in every if solver.name in names]
    return [s for s in wanted if installed(s)], [s for s in wanted if not installed(s)]


def construct(solver: type[Solver], reg: float) -> Solver:
    """Give a solver its defaults, and one that regularises the common strength."""
    fields: set[str] = {f.name for f in dataclasses.fields(solver)} if dataclasses.is_dataclass(solver) else set()
    return solver(reg=reg) if solver.kind == "entropic" and "reg" in fields else solver()  # type: ignore[call-arg]


def product_error(problems: Problems) -> float:
    """Worst excess of the product coupling's cost over the optimum, in units of mass x range: the end of large reg."""
    optimum = solve(problems.cost, problems.a, problems.b).value
    cost, a, b = problems.cost.double(), problems.a.double(), problems.b.double()
    value = torch.einsum("knm,kn,km->k", cost, a, b) / b.sum(-1)
    spread = cost.amax((-2, -1)) - cost.amin((-2, -1))
    return float(((value - optimum) / (spread * a.sum(-1))).max())

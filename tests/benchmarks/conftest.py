"""Timings run only when asked for: ``pytest tests/benchmarks --benchmark-only``.

Each comparison interleaves its contenders (A B A B ...), so that a machine that slows down slows all of them. A turn
lasts at least 50 ms: short calls repeat within it, as they do in use. Medians and ratios are printed at the end.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

FOLDER = Path(__file__).parent
RATIOS = pytest.StashKey[list[tuple[str, dict[str, float]]]]()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the folder out unless it is named on the command line, or only benchmarks are wanted."""
    if config.getoption("benchmark_only", default=False):
        return None
    named = [(config.invocation_params.dir / argument.partition("::")[0]).resolve() for argument in config.args]
    return None if any(path == FOLDER or FOLDER in path.parents for path in named) else True


def pytest_configure(config: pytest.Config) -> None:
    config.stash[RATIOS] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows = config.stash.get(RATIOS, [])
    if not rows:
        return
    threads = torch.get_num_threads()
    terminalreporter.section(f"medians of interleaved runs; ratios to the first; torch uses {threads} threads")
    for title, medians in rows:
        first, *others = medians
        parts = [f"{first} {1e3 * medians[first]:.3g} ms"]
        parts += [f"{name} {1e3 * medians[name]:.3g} ms ({medians[name] / medians[first]:.2f}x)" for name in others]
        terminalreporter.write_line(f"{title}: " + "; ".join(parts))


TURN = 0.05
"""Seconds that a turn lasts at least."""

Contenders = dict[str, Callable[[], object]]


def _seconds(work: Callable[[], object], repeats: int, clock: Callable[[], float] = time.perf_counter) -> float:
    """Time one call, as the average of several, without garbage collection of what pytest holds (as timeit does)."""
    gc.collect()
    gc.disable()
    try:
        start = clock()
        for _ in range(repeats):
            work()
        return (clock() - start) / repeats
    finally:
        gc.enable()


@pytest.fixture
def summarise(request) -> Callable[[str, dict[str, float]], None]:
    """Put a title and seconds by contender into what is printed at the end."""
    return lambda title, seconds: request.config.stash.setdefault(RATIOS, []).append((title, seconds))


@pytest.fixture
def race(benchmark, summarise) -> Callable[..., None]:
    """Time contenders in turns; the first also goes into pytest-benchmark's table, with all medians beside it."""
    return _race(benchmark, summarise, time.perf_counter)


@pytest.fixture
def race_cpu(benchmark, summarise) -> Callable[..., None]:
    """Do the same by the CPU time of this thread, which others on the machine disturb less."""
    return _race(benchmark, summarise, time.thread_time)


def _race(benchmark, summarise, clock: Callable[[], float]) -> Callable[..., None]:
    def run(title: str, contenders: Contenders, rounds: int = 15) -> None:
        repeats = {}
        for name, work in contenders.items():
            work()
            repeats[name] = 1 + int(TURN / _seconds(work, 1, clock))
        seconds: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(rounds):
            for name, work in contenders.items():
                seconds[name].append(_seconds(work, repeats[name], clock))
        medians = {name: statistics.median(values) for name, values in seconds.items()}
        summarise(title, medians)
        benchmark.group = title
        benchmark.extra_info.update({f"median of {name} (s)": median for name, median in medians.items()})
        benchmark.pedantic(next(iter(contenders.values())), rounds=rounds)

    return run


@pytest.fixture
def nodes_batch() -> Callable[..., tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Draw problems as DeepEMD meets them: features relu(noise + 0.5 class mean), cosine cost, cross-reference weights.

    Float64; cost (size, n, n), a (size, n), b (size, n), totals 1.
    """

    def draw(size: int, n: int, channels: int = 256) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rng = np.random.default_rng(0)
        means = rng.standard_normal((2, size, 1, channels))
        x, y = np.maximum(rng.standard_normal((2, size, n, channels)) + 0.5 * means, 0)
        dots = x @ y.swapaxes(1, 2)
        lengths = np.linalg.norm(x, axis=-1)[:, :, None] * np.linalg.norm(y, axis=-1)[:, None]
        a, b = np.maximum(dots.mean(2), 0) + 1e-3, np.maximum(dots.mean(1), 0) + 1e-3
        return 1 - dots / lengths, a / a.sum(-1, keepdims=True), b / b.sum(-1, keepdims=True)

    return draw

"""From a method's place in a run to its scores: features, evaluation under a progress bar, times."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from otfew import catalogue, processes
from otfew.episodes import Sampler
from otfew.evaluation import Contender, Scores, evaluate
from otfew.experiments._material import Material
from otfew.method import FewShotMethod
from otfew.run_directory import RunDirectory


class Placed(Protocol):
    """A method with its options and nodes, under a name; ``_lineup.Place`` is one."""

    @property
    def name(self) -> str:
        """Return the name in reports."""
        ...

    @property
    def method(self) -> str:
        """Return the key of the catalogue."""
        ...

    @property
    def nodes(self) -> str:
        """Return the canonical kind of nodes."""
        ...

    @property
    def options(self) -> Mapping[str, Any]:
        """Return the constructor's options, without the base mean."""
        ...

    @property
    def kind(self) -> type[FewShotMethod]:
        """Return the method's class."""
        ...


def get_ready(place: Placed, material: Material, device: str) -> Contender:
    """Get a method ready: its features, and the base mean where it needs it."""
    options = dict(place.options)
    features = material.features(place.nodes, device)
    digest = hashlib.sha256(features.source["features_sha256"].encode())
    if place.kind.needs_base_mean:
        options["base_mean"] = material.base_mean(place.nodes, device)
        digest.update(options["base_mean"].numpy().tobytes())
    method = catalogue.build(place.method, **options)
    return Contender(place.name, method, features.pooled if place.kind.pools else features, digest.hexdigest())


def run_episodes(
    contenders: Sequence[Contender],
    sampler: Sampler,
    episodes: int,
    directory: RunDirectory,
    device: str,
    console: Console,
) -> dict[str, Scores]:
    """Run all episodes under a progress bar."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("episodes", total=episodes * len(contenders))
        return evaluate(
            contenders,
            sampler,
            episodes,
            directory=directory,
            device=device,
            progress=lambda done, name: bar.update(task, advance=done, description=f"episodes: {name}"),
            note=lambda text: console.print(text, markup=False, highlight=False),
        )


def timings(
    contenders: Sequence[Contender], scores: Mapping[str, Scores], images: int, device: str, threads: int
) -> dict[str, Any]:
    """Collect times, with the machine they were taken on; never part of results.json.

    Times are those of one process: the seconds that all have spent in a method's calls over all episodes. They are not
    divided by the number of processes that ran side by side, and memory and caches were shared with the others.

    Args:
        contenders: Who ran.
        scores: By name.
        images: Images of an episode, for the time with extraction.
        device: Where methods ran.
        threads: How many CPU threads each process has.
    """
    methods: dict[str, dict[str, float]] = {}
    extraction: dict[str, float] = {}
    for contender in contenders:
        spent = scores[contender.name].milliseconds
        methods[contender.name] = {"ms_per_episode": spent}
        per_image = contender.features.milliseconds
        if per_image is not None:
            extraction[contender.features.nodes_spec] = per_image
            methods[contender.name]["ms_per_episode_with_extraction"] = spent + images * per_image
    machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    return {
        "methods": methods,
        "extraction_ms_per_image": extraction,
        "device": device,
        "processes": processes.world().size,
        "threads": threads,
        "episodes_run_by": [asdict(setup) for setup in next(iter(scores.values())).setups],
        "machine": machine,
    }

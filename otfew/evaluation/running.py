"""From a method's place in a run to its scores: features, evaluation under a progress bar, times."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol, get_args

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from otfew import catalogue
from otfew.errors import UserError
from otfew.evaluation.episodes import Sampler
from otfew.evaluation.run import ClassPrior, Contender, Scores, evaluate
from otfew.features.material import Material
from otfew.method import FewShotMethod
from otfew.reporting import comparison as report
from otfew.runs import processes
from otfew.runs.directory import RunDirectory


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


def get_ready(place: Placed, material: Material, device: str, class_prior: ClassPrior = "uniform") -> Contender:
    """Get a method ready: its features, the base mean where it needs it, and what it is told of the classes' shares.

    Args:
        place: Its name, options and nodes; an option ``class_prior`` of its own goes before the run's.
        material: What it runs on.
        device: Where to extract.
        class_prior: That of the run, for transductive methods.
    """
    options = dict(place.options)
    features = material.features(place.nodes, device)
    digest = hashlib.sha256(features.source["features_sha256"].encode())
    if place.kind.needs_base_mean:
        options["base_mean"] = material.base_mean(place.nodes, device)
        digest.update(options["base_mean"].numpy().tobytes())
    if takes_prior(place.kind) and class_prior == "estimated":
        options.setdefault("class_prior", "estimated")
    told: ClassPrior = "estimated" if options.get("class_prior") == "estimated" else class_prior
    method = catalogue.build(place.method, **options)
    return Contender(
        place.name, method, features.pooled if place.kind.pools else features, digest.hexdigest(), class_prior=told
    )


def takes_prior(kind: type[FewShotMethod]) -> bool:
    """Tell whether a method makes use of the classes' shares in the queries."""
    return kind.transductive and catalogue.accepts(kind, "class_prior")


def competitor(place: Placed, contender: Contender) -> report.Competitor:
    """Say what a report has to know of a method."""
    told = contender.class_prior if takes_prior(place.kind) else ""
    transport = place.method in catalogue.ot_methods()
    return report.Competitor(place.name, place.nodes, transport, place.kind.transductive, told)


def query_settings(sampler: Sampler, class_prior: str, kinds: Iterable[type[FewShotMethod]]) -> dict[str, str]:
    """Return what a run's protocol says of the classes' shares in the queries; nothing where there is nothing to say.

    Raises:
        UserError: No such prior, or one that no method makes use of.
    """
    if class_prior not in get_args(ClassPrior):
        raise UserError(f"unknown --class-prior {class_prior!r}: choose {', '.join(get_args(ClassPrior))}.")
    balance = sampler.protocol.query_balance
    settings = {} if sampler.protocol.balanced else {"query_balance": balance}
    if any(takes_prior(kind) for kind in kinds):
        return {**settings, "class_prior": class_prior}
    if class_prior != "uniform":
        raise UserError(f"--class-prior {class_prior} is without effect: no method of this run makes use of it.")
    return settings


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

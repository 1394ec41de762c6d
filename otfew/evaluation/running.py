"""From an entry to its scores: features, what it is told, evaluation, times."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, get_args

from otfew import catalogue
from otfew.choices import ClassPrior
from otfew.errors import UserError
from otfew.evaluation.episodes import Sampler
from otfew.evaluation.guard import refuse_overlap
from otfew.evaluation.lineup import Entry
from otfew.evaluation.run import Ready, Scores
from otfew.features.material import Material
from otfew.method import FewShotMethod
from otfew.runs import processes


def get_ready(
    entry: Entry,
    material: Material,
    device: str,
    class_prior: ClassPrior = "uniform",
    *,
    allow_overlap: bool = False,
) -> Ready:
    """Get an entry ready: its features, the base mean where it needs it, and what it is told of the classes' shares.

    Args:
        entry: Its name, options and nodes; an option ``class_prior`` of its own goes before the run's.
        material: What it runs on.
        device: Where to extract.
        class_prior: That of the run, for transductive methods.
        allow_overlap: Go on where the backbone has seen classes of the material in training.

    Raises:
        UserError: The backbone has seen classes, features cannot be had, or the method cannot be built.
    """
    refuse_overlap(material.overlap, allow_overlap)
    known: dict[str, Any] = {}
    features = material.features(entry.nodes, device)
    digest = hashlib.sha256(features.source["features_sha256"].encode())
    if entry.kind.needs_base_mean and isinstance(entry.method, str):
        known["base_mean"] = material.base_mean(entry.nodes, device)
        digest.update(known["base_mean"].numpy().tobytes())
    own = entry.options.get("class_prior")
    told = entry.class_prior or class_prior
    if takes_prior(entry.kind) and told == "estimated" and own is None and isinstance(entry.method, str):
        known["class_prior"] = own = "estimated"
    method = entry.build(**known)
    return Ready(
        entry.name,
        method,
        features.pooled if method.pools else features,
        digest.hexdigest(),
        class_prior="estimated" if own == "estimated" else told,
    )


def takes_prior(kind: type[FewShotMethod]) -> bool:
    """Tell whether a method makes use of the classes' shares in the queries."""
    return kind.transductive and catalogue.accepts(kind, "class_prior")


def query_settings(sampler: Sampler, class_prior: ClassPrior, kinds: Iterable[type[FewShotMethod]]) -> dict[str, str]:
    """Return what a run's protocol says of the classes' shares in the queries; nothing where there is nothing to say.

    Raises:
        UserError: No such prior, or one that no method makes use of.
    """
    if class_prior not in get_args(ClassPrior):
        raise UserError(f"unknown `class_prior` {class_prior!r}: choose {', '.join(get_args(ClassPrior))}.")
    balance = sampler.protocol.query_balance
    settings = {} if sampler.protocol.balanced else {"query_balance": balance}
    if any(takes_prior(kind) for kind in kinds):
        return {**settings, "class_prior": class_prior}
    if class_prior != "uniform":
        raise UserError(f"`class_prior` {class_prior} is without effect: no method of this run makes use of it.")
    return settings


def timings(
    ready: Sequence[Ready], scores: Mapping[str, Scores], images: int, device: str, threads: int
) -> dict[str, Any]:
    """Collect times, with the machine they were taken on; never part of results.json.

    Times are those of one process: the seconds that all have spent in a method's calls over all episodes. They are not
    divided by the number of processes that ran side by side, and memory and caches were shared with the others.

    Args:
        ready: Who ran.
        scores: By name.
        images: Images of an episode, for the time with extraction.
        device: Where methods ran.
        threads: How many CPU threads each process has.
    """
    methods: dict[str, dict[str, float]] = {}
    extraction: dict[str, float] = {}
    for entry in ready:
        spent = scores[entry.name].milliseconds
        methods[entry.name] = {"ms_per_episode": spent}
        per_image = entry.features.milliseconds
        if per_image is not None:
            extraction[entry.features.nodes_spec] = per_image
            methods[entry.name]["ms_per_episode_with_extraction"] = spent + images * per_image
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

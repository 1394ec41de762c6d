"""The Latent Space Transform beside PT-MAP and its rivals: ``python -m experiments.latent_space``.

Tables 2 to 4 of the LST paper on any data, what each of its three steps adds, what Sinkhorn's assignment adds over a
Gaussian mixture, and how the latent space looks before and after.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from otfew import catalogue
from otfew.errors import UserError
from otfew.evaluation.lineup import Entry, check_sign
from otfew.evaluation.study import Finished, Panel, Terms
from otfew.evaluation.tuning import Tuned, tune
from otfew.experiments.common import analysis, setup
from otfew.experiments.common.watch import ConsoleWatch
from otfew.experiments.latent_space import tables as latent_tables
from otfew.experiments.latent_space.config import RIVALS, Config
from otfew.experiments.latent_space.entries import ablation, comparison, published_options
from otfew.features.material import Material
from otfew.reporting import comparison as report


def compare_spaces(config: Config, console: Console) -> Path:
    """Run everything and write the report.

    Args:
        config: The command line.
        console: Where tables and progress go.

    Returns:
        Folder of the run.

    Raises:
        UserError: Whatever the user can set right; nothing is written or overwritten then.
    """
    terms = analysis.check(config)
    check(config)
    shots = sorted(set(config.shots))
    material = setup.open_material(config, config.dataset, config.features, config.nodes, console)
    nodes = material.nodes_spec("fcn")
    samplers = {shot: analysis.sample(material, config, shot) for shot in shots}
    refuse_signed(config, material, nodes, terms.device)
    rivals, not_run = available(config.rivals, material, nodes, terms.device)
    source = config.published or material.describe()["data"]["dataset"]
    tuned = tune_all(config, shots, source, terms, console) if config.tune_on else {}
    panels = []
    for shot in shots:
        options = tuned[shot].options if tuned else published_options(source, shot, config.beta)
        entries = comparison(nodes, options)
        lst = next(entry for entry in entries if entry.name == "LST+MAP")
        others = (Entry(name, name, nodes) for name in rivals)
        sampler = samplers[shot]
        panels += [
            Panel(f"shot-{shot}", material, (*entries, *others), sampler, "PT+MAP", not_run),
            Panel(f"ablation-{shot}", material, ablation(lst), sampler, "000"),
        ]
    settings = {"shots": shots, "tuned_on": tuned_on(config), "source": "val" if tuned else source}
    session = analysis.Session("latent-space", config.output, panels, settings, terms, console)
    finished = session.evaluate()
    found = {
        str(shot): {
            "pairs": latent_tables.pairs(finished[f"shot-{shot}"], material.classes),
            "steps": latent_tables.steps(finished[f"ablation-{shot}"], material.classes),
        }
        for shot in shots
    }
    tuning = {str(shot): t.record() for shot, t in tuned.items()}
    tables = [table for shot in shots for table in latent_tables.tables(shot, finished, found[str(shot)])]
    tables += [
        latent_tables.hyperparameters(shot, finished[f"shot-{shot}"], tuning.get(str(shot), {})) for shot in shots
    ]
    from otfew.experiments.latent_space.plot import picture
    from otfew.experiments.latent_space.points import measure

    shown = measure(panels[0], material.features(nodes, terms.device).pooled.nodes[:, 0])
    return session.write(
        finished,
        {"by_shot": found, "picture": shown, "tuning": tuning},
        tables,
        [*tuning_lines(config, source, tuned), *lines(finished, shots)],
        {"latent-space.png": picture(shown)},
    )


def check(config: Config) -> None:
    """Refuse what can be refused without data."""
    if not config.shots or min(config.shots) < 1:
        raise UserError(f"--shots must be whole numbers of at least 1, not {list(config.shots)}.")
    if config.published not in {"", "cifar-fs", "cub"}:
        raise UserError(f"--published must be cifar-fs or cub, not {config.published!r}.")
    if config.beta is not None and not 0 < config.beta < float("inf"):
        raise UserError(f"--beta must be a number above 0, not {config.beta}.")
    if config.tune_on not in {"", "val"}:
        raise UserError(f"--tune-on must be val, not {config.tune_on!r}: nothing is chosen on other classes.")
    if config.tune_episodes < 1:
        raise UserError(f"--tune-episodes must be at least 1, not {config.tune_episodes}.")
    if config.tune_on and config.published:
        raise UserError("--tune-on val and --published exclude each other: give one.")
    if config.tune_on and config.features is not None:
        raise UserError(
            "--tune-on val needs a data set with validation classes, and --features is one file: give one of the two."
        )
    if config.tune_on and config.split == "val":
        raise UserError("--tune-on val and --split val would choose on the evaluated classes: evaluate another split.")
    for name in config.rivals:
        if name not in RIVALS:
            catalogue.find(name)


def refuse_signed(config: Config, material: Material, nodes: str, device: str) -> None:
    """Raise ``UserError`` where features are negative and a power is to be taken."""
    if config.beta != 1:
        try:
            check_sign("lst", catalogue.find("lst"), material, nodes, device)
        except UserError as error:
            raise UserError(f"{str(error).rstrip('.')}; or give --beta 1, which takes no power.") from error


def available(names: Sequence[str], material: Material, nodes: str, device: str) -> tuple[list[str], dict[str, str]]:
    """Return the rivals that can run, and name -> reason for the others."""
    rivals, not_run = [], {}
    for name in dict.fromkeys(names):
        if name not in catalogue.methods():
            not_run[name] = "this version has no such method"
            continue
        kind = catalogue.find(name)
        try:
            check_sign(name, kind, material, nodes, device)
            if kind.needs_base_mean:
                missing = material.base_mean_missing()
                if missing:
                    raise UserError(f"it needs the mean of the base classes, but {missing}")
            else:
                catalogue.build(name)
        except UserError as error:
            not_run[name] = str(error).rstrip(".")
        else:
            rivals.append(name)
    return rivals, not_run


def tune_all(config: Config, shots: Sequence[int], source: str, terms: Terms, console: Console) -> dict[int, Tuned]:
    """Choose hyper-parameters on the validation classes, for each number of shots."""
    chosen = replace(config, split="val", episodes=config.tune_episodes)
    material = setup.open_material(chosen, config.dataset, None, config.nodes, console)
    nodes = material.nodes_spec("fcn")
    refuse_signed(config, material, nodes, terms.device)
    on_val = replace(terms, episodes=config.tune_episodes)
    found = {}
    for shot in shots:
        start = published_options(source, shot, config.beta)
        sampler = analysis.sample(material, chosen, shot)
        fixed = () if config.beta is None else ("beta",)
        found[shot] = tune(material, nodes, sampler, on_val, start, fixed, watch=ConsoleWatch(console))
    return found


def tuned_on(config: Config) -> dict[str, Any] | None:
    """Return what of the tuning the results depend on."""
    return {"split": config.tune_on, "episodes": config.tune_episodes} if config.tune_on else None


def tuning_lines(config: Config, source: str, tuned: Mapping[int, Tuned]) -> list[str]:
    """Say where the hyper-parameters come from."""
    beta = "" if config.beta is None else f", but for beta, which --beta sets to {config.beta:g}"
    if tuned:
        return [
            f"hyper-parameters of PT and LST, of each head by itself{beta}: the best on {config.tune_episodes} "
            "episodes of the validation classes, found option by option from the published ones; rivals run with their "
            "defaults"
        ]
    whose = source if source in {"cifar-fs", "cub"} else "cub"
    return [
        f"hyper-parameters of PT and LST{beta}: as published for {whose} with another backbone, without saying on "
        "which classes they were chosen; --tune-on val chooses them on validation classes; rivals run with their "
        "defaults"
    ]


def lines(finished: Mapping[str, Finished], shots: Sequence[int]) -> list[str]:
    """Say on what the figures rest."""
    *others, last = (report.protocol_lines(finished[f"shot-{shot}"].record) for shot in shots)
    own = [line for other in others for line in other if line not in last]
    return [
        "NCM is the nearest class mean of raw features; it sees one query at a time, all other rows see all of them",
        "paper: balanced queries, WRN-28-10 trained on the base classes, 10,000 episodes: compare the differences, not "
        "the level",
        *own,
        *last,
    ]

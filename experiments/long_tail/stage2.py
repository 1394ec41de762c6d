"""The second stages of long-tail: each arm with each seed, finished ones taken from the folder of the run."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from otfew.experiments.common.training import Bars, Display, code
from otfew.experiments.long_tail.arms import ARMS, POST_HOC, PUBLISHED, Weights
from otfew.experiments.long_tail.config import Config
from otfew.experiments.long_tail.setting import Stage1, device_of, outcome
from otfew.methods import ot_reweighting as published
from otfew.runs.blocks import Column, Form
from otfew.runs.directory import RunDirectory
from otfew.training.long_tail.head import error_percent, head_of, initial_head, train_head
from otfew.training.long_tail.images import Network, extract
from otfew.training.long_tail.losses import Objective, adjusted
from otfew.training.long_tail.run import ACCURACY, ERROR, least_error, train_images
from otfew.training.long_tail.settings import Recipe
from otfew.training.progress import curve_epochs, curves, kept_epoch

TAUS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
"""Tried for logit adjustment."""
ARRAYS = ("predictions", "curve")
"""What of a block is no number."""
Block = dict[str, Any]


def run_arms(
    config: Config,
    arms: list[str],
    stage1: Stage1,
    weights: Weights,
    directory: RunDirectory,
    console: Console,
) -> dict[str, list[Block]]:
    """Run every arm with every seed, or take what is finished from the folder."""
    jobs = [(name, seed) for name in arms for seed in range(1 if name in POST_HOC else config.seeds)]
    blocks: dict[str, list[Block]] = {name: [] for name in arms}
    with Bars(console) as bar:
        task = bar.add_task("second stages", total=len(jobs))
        for index, (name, seed) in enumerate(jobs):
            bar.update(task, description=f"{name}, seed {seed}")
            form = _form(config, name, stage1, code())
            block: Mapping[str, Any] | None = directory.load_block(index, form, console.print)
            if block is None:
                began = time.perf_counter()
                found = _run_arm(config, name, seed, stage1, weights, directory, console)
                found["seconds"] = time.perf_counter() - began
                directory.save_block(index, {key: np.asarray(value) for key, value in found.items()}, form)
                block = found
            blocks[name].append({k: v if k in ARRAYS else float(v) for k, v in block.items()})
            bar.advance(task)
    return blocks


def _form(config: Config, name: str, stage1: Stage1, code: str) -> Form:
    """Say what the finished block of an arm is."""
    images, classes = len(stage1.cached.test), len(stage1.cached.features.counts)
    there = stage1.images.curve is not None and name not in POST_HOC
    points = len(curve_epochs(_epochs(config, name))) if there else 0
    columns = {"predictions": Column((images,), "i", 0, classes - 1), "epoch": Column((), "i", 0)}
    columns["curve"] = Column((points,), least=0, most=100)
    columns |= {key: Column(least=0) for key in ("learning_rate", "seconds", *(("tau",) if name in POST_HOC else ()))}
    return Form({**columns, "validation_error": Column(least=0, most=100)}, code)


def _epochs(config: Config, name: str) -> int:
    """Count the epochs of an arm's training."""
    if config.stage2 == "all":
        return config.all_layers.epochs
    return published.EPOCHS if name == PUBLISHED else config.head.epochs


def _run_arm(
    config: Config,
    name: str,
    seed: int,
    stage1: Stage1,
    weights: Weights,
    directory: RunDirectory,
    console: Console,
) -> Block:
    """Run one second stage; predictions (test images,) and what validation chose."""
    if name in POST_HOC:
        return _post_hoc(name, stage1)
    objective = ARMS[name][1](weights, seed)
    if config.stage2 == "all":
        return _all_layers(config, name, seed, objective, stage1, directory, console)
    recipe = config.head
    if name == PUBLISHED:
        recipe = replace(
            recipe,
            epochs=_epochs(config, name),
            batch_size=published.BATCH,
            learning_rates=(published.HEAD_LEARNING_RATE,),
            cosine_schedule=False,
        )
    cached = stage1.cached
    choice = train_head(cached.features, cached.head, objective, recipe, seed)
    with torch.inference_mode():
        logits = head_of(choice.state, objective)(cached.test)
    return _block(logits, choice.validation_error, choice.learning_rate, choice.epoch, choice.curve)


def _post_hoc(name: str, stage1: Stage1) -> Block:
    """Use the classifier of stage 1, as it is or adjusted."""
    cached = stage1.cached
    head = head_of(cached.head, Objective())
    counts = cached.features.counts
    with torch.inference_mode():
        held, test = head(cached.features.validation), head(cached.test)
        taus = (0.0,) if name == "stage-1" else TAUS
        errors = [error_percent(adjusted(held, counts, tau), cached.features.validation_labels) for tau in taus]
        best = errors.index(min(errors))
        return {**_block(adjusted(test, counts, taus[best]), errors[best], 0.0, 0), "tau": taus[best]}


def _all_layers_recipe(config: Config, seed: int) -> Recipe:
    """Adapt the recipe of stage 1."""
    return replace(
        config.recipe, epochs=config.all_layers.epochs, learning_rate=config.all_layers.learning_rate, seed=seed
    )


def _all_layers(
    config: Config,
    name: str,
    seed: int,
    objective: Objective,
    stage1: Stage1,
    directory: RunDirectory,
    console: Console,
) -> Block:
    """Train all layers, from stage 1's weights, with batch normalisation's statistics kept."""

    def build() -> Network:
        network = stage1.build()
        network.load_state_dict(stage1.weights)
        network.head = initial_head(stage1.cached.head, objective, seed)
        return network

    recipe = _all_layers_recipe(config, seed)
    state = directory.path / "states" / f"{name}-{seed}.pt"
    with Bars(console) as bar:
        kept, history = train_images(
            build,
            stage1.images,
            objective,
            recipe,
            state,
            {"arm": name},
            second_stage=True,
            watcher=Display(bar, console, recipe.epochs, outcome, f"{name}, seed {seed}"),
            code=code(),
        )
    network = build()
    network.load_state_dict(kept)
    images = stage1.images
    device = device_of(recipe)
    vectors = extract(network.backbone.to(device).eval(), stage1.test, images.mean, images.std, device)
    with torch.inference_mode():
        logits = network.head(vectors)
    best = kept_epoch(history, least_error)
    curve = curves(history).get(ACCURACY, [])
    return _block(logits, best.validation[ERROR], recipe.learning_rate, best.epoch, curve)


def _block(
    logits: Tensor, validation_error: float, learning_rate: float, epoch: int, curve: Sequence[float] = ()
) -> Block:
    return {
        "predictions": logits.argmax(-1).numpy().astype(np.int16),
        "validation_error": validation_error,
        "learning_rate": learning_rate,
        "epoch": epoch,
        "curve": np.array(curve, dtype=np.float64),
    }

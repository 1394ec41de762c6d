"""The command line of ``experiments.long_tail``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from otfew.errors import UserError
from otfew.training.long_tail.settings import HeadRecipe, Recipe


@dataclass(frozen=True)
class OTOptions:
    """Options of the OT weights, the same for all OT arms.

    Attributes:
        reg: Regularisation, in units of the cost.
        label_distance: Between different labels: 1 or sqrt 2.
        label_coefficient: Of the label cost.
        feature_coefficient: Of 1 - cosine.
        meta: Prototypes (mean features of each class) or the whole meta set.
        entropy: Of the plan (closed form) or relative to the product of the weights.
        parameters: A weight for each sample, or a small network of the features.
    """

    reg: float = 0.1
    label_distance: Literal["zero-one", "euclidean"] = "zero-one"
    label_coefficient: float = 1.0
    feature_coefficient: float = 1.0
    meta: Literal["prototypes", "whole"] = "prototypes"
    entropy: Literal["plan", "product"] = "plan"
    parameters: Literal["vector", "net"] = "vector"


@dataclass(frozen=True)
class AllLayers:
    """Second stages of all layers (``--stage2 all``).

    Attributes:
        epochs: Passes over the training images.
        learning_rate: Of the first step.
    """

    epochs: int = 20
    learning_rate: float = 0.001

    def __post_init__(self) -> None:
        for name in ("epochs", "learning_rate"):
            value = getattr(self, name)
            if not 0 < value < float("inf"):
                raise UserError(f"--all-layers.{name.replace('_', '-')} must be positive, not {value}.")


@dataclass(frozen=True)
class Config:
    """Train once with cross-entropy on a long-tailed set, then compare second stages on it.

    Attributes:
        dataset: cifar10, cifar100 or image-folder (class folders, or such below train and test).
        factor: Imbalance: images of the largest class over those of the smallest. Published: 200, 100, 50, 20.
        data_root: Folder of the data; default $OTFEW_DATA, then a cache directory.
        depth: Levels from the folder of image-folder down to its class folders: 2 for GROUP/CLASS/photo.jpg.
        download: Fetch what is missing where the publisher allows it. Default: ask about more than 100 MB at a
            terminal, and fetch no such thing elsewhere.
        backbone: Architecture to train, or a trained backbone (as for compare) to go on from.
        resolution: Side in pixels; default 32 for CIFAR, else 84.
        flip: Mirror half of the training images.
        meta: Balanced meta images a class.
        validation: Balanced validation images a class; default 1,000 in all for CIFAR, else 10 a class.
        curve: Most images a class that the subset leaves unused and that choose nothing: accuracy on them is kept for
            up to 30 epochs of each training. Default 1,000 in all for CIFAR, else 10 a class; 0 keeps no curve.
        meta_seed: Draws the meta images; default as published.
        subset_seed: Draws the long-tailed subset; default as published.
        arms: Second stages; "all" for every one.
        seeds: Runs of each arm on the one stage 1: order of samples, new classifiers, shuffled weights.
        stage2: Train the classifier on cached features (seconds), or all layers.
        stage1: Folder of stage 1, shared by runs of the same setting; default runs/long-tail-stage1-HASH.
        output: Folder of this run; default runs/long-tail-HASH. The same command resumes a run that was stopped.
        figures: Draw the weights, and costs and plans.
        threads: CPU threads; 0 takes all cores.
        recipe: Of stage 1; its --seed makes another network on the same images, which a run of its own compares on.
        head: Of classifiers on cached features.
        all_layers: Of second stages of all layers.
        ot: Of the OT weights.
    """

    dataset: str = "cifar100"
    factor: float = 100.0
    data_root: Path | None = None
    depth: int = 1
    download: Annotated[bool | None, tyro.conf.DisallowNone] = None
    backbone: str = "resnet32"
    resolution: int | None = None
    flip: bool = True
    meta: int = 10
    validation: int | None = None
    curve: int | None = None
    meta_seed: int = 6
    subset_seed: int = 42
    arms: tuple[str, ...] = ("all",)
    seeds: int = 3
    stage2: Literal["classifier", "all"] = "classifier"
    stage1: Path | None = None
    output: Path | None = None
    figures: bool = True
    threads: int = 0
    recipe: Annotated[Recipe, tyro.conf.arg(name="")] = field(default_factory=Recipe)
    head: HeadRecipe = field(default_factory=HeadRecipe)
    all_layers: AllLayers = field(default_factory=AllLayers)
    ot: OTOptions = field(default_factory=OTOptions)

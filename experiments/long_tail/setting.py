"""What the arms of long-tail share: the drawn data, the first stage, and the features that it leaves behind."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn

from otfew import backbones
from otfew.backbones.architectures import ARCHITECTURES
from otfew.backbones.base import Card
from otfew.data.base import ImageSet
from otfew.data.long_tail import draw, subset
from otfew.data.long_tail_sources import load
from otfew.data.preparation import Preparation
from otfew.errors import UserError
from otfew.experiments.common.training import Bars, Display, code
from otfew.experiments.long_tail.config import Config
from otfew.methods.ot_reweighting import prototypes
from otfew.runs.identity import short_hash
from otfew.training.checkpoint import load_state, save, save_state
from otfew.training.images import decode, statistics
from otfew.training.long_tail.head import Features, HeadState
from otfew.training.long_tail.images import Images, Network, extract
from otfew.training.long_tail.losses import Objective
from otfew.training.long_tail.run import ACCURACY, ERROR, train_images
from otfew.training.long_tail.settings import Recipe
from otfew.training.progress import Epoch, curves

CIFAR = ("cifar10", "cifar100")
CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4824, 0.4467), (0.2471, 0.2435, 0.2616)
"""As published: (125.3, 123.0, 113.9) / 255 and (63.0, 62.1, 66.7) / 255."""
VALIDATION_IMAGES = 1000
"""In all, for CIFAR; elsewhere ten a class. As many at most for curves."""
STAGE_1 = "stage-1"
"""Name of its curve."""


@dataclass(frozen=True)
class Setting:
    """A drawn data set, not yet decoded.

    Attributes:
        train: The long-tailed images.
        meta: Balanced.
        validation: Balanced.
        curve: What is left, at most so many of a class; chooses nothing.
        test: All test images.
        counts: (classes,) training images.
        identity: What the first stage is a function of, JSON-ready.
    """

    train: ImageSet
    meta: ImageSet
    validation: ImageSet
    curve: ImageSet
    test: ImageSet
    counts: Tensor
    identity: dict[str, Any]


@dataclass(frozen=True)
class Cached:
    """What stage 1 left behind.

    Attributes:
        features: Of training, meta, validation and the curve's images, not augmented.
        test: (images, channels).
        test_labels: (images,).
        pixel_means: (classes, channels): of the mean of each class's meta images, under their own batch statistics, as
            the published code computes prototypes.
        pixel_mean_labels: (classes,).
        head: Classifier of stage 1.
    """

    features: Features
    test: Tensor
    test_labels: Tensor
    pixel_means: Tensor
    pixel_mean_labels: Tensor
    head: HeadState


@dataclass(frozen=True)
class Stage1:
    """The first stage, done.

    Attributes:
        build: Makes the network, its weights to be replaced.
        weights: Of the network.
        history: Of its epochs.
        images: Decoded.
        test: (images, 3, side, side) uint8.
        cached: Features.
    """

    build: Callable[[], Network]
    weights: dict[str, Tensor]
    history: list[Epoch[float]]
    images: Images
    test: Tensor
    cached: Cached


def find(config: Config) -> Setting:
    """Draw the setting; raises ``UserError`` for what can't be."""
    train, test = load(config.dataset, config.data_root, config.download, config.depth)
    usual = VALIDATION_IMAGES // len(train.classes) if config.dataset in CIFAR else 10
    validation = usual if config.validation is None else config.validation
    if validation < 1:
        raise UserError(f"--validation must be at least 1 image a class, not {validation}: it chooses.")
    curve = usual if config.curve is None else config.curve
    drawn = draw(
        train.labels,
        train.classes,
        config.factor,
        meta=config.meta,
        validation=validation,
        curve=curve,
        meta_seed=config.meta_seed,
        subset_seed=config.subset_seed,
    )
    side = config.resolution or (32 if config.dataset in CIFAR else 84)
    if side < 16:
        raise UserError(f"--resolution {side} leaves no map: choose at least 16.")
    parts = {
        name: subset(train, rows, f"factor {config.factor:g}, {name}")
        for name, rows in (
            ("train", drawn.train),
            ("meta", drawn.meta),
            ("validation", drawn.validation),
            ("curve", drawn.curve),
        )
    }
    identity = {
        "dataset": config.dataset,
        "factor": config.factor,
        "meta": config.meta,
        "validation": validation,
        "curve": curve,
        "meta_seed": config.meta_seed,
        "subset_seed": config.subset_seed,
        "images_sha256": {name: part.digest for name, part in (*parts.items(), ("test", test))},
        "notes": list(dict.fromkeys((*train.notes, *test.notes))),
        "resolution": side,
        "flip": config.flip,
        "backbone": _backbone_identity(config.backbone),
        "recipe": {key: value for key, value in asdict(config.recipe).items() if key != "accelerator"},
    }
    return Setting(**parts, test=test, counts=torch.from_numpy(drawn.counts), identity=identity)


def _backbone_identity(spec: str) -> str:
    """Name an architecture, or a trained backbone with its weights: a path says neither."""
    if spec in ARCHITECTURES:
        return spec
    trained = backbones.load(spec)
    return f"{trained.name} {trained.digest[:12]}"


def stage1_folder(config: Config, setting: Setting) -> Path:
    """Name the folder of the first stage, which all runs of the same setting share."""
    return config.stage1 or Path("runs") / f"long-tail-stage1-{short_hash(setting.identity)}"


def builder(config: Config, setting: Setting) -> tuple[Callable[[], Network], Card | None]:
    """Find the backbone: an architecture to be trained from scratch, or a trained one with its card.

    Raises:
        UserError: There is no such backbone.
    """
    classes, side = len(setting.train.classes), setting.identity["resolution"]
    card: Card | None = None
    if config.backbone in ARCHITECTURES:
        make: Callable[[], nn.Module] = ARCHITECTURES[config.backbone]
    else:
        trained = backbones.load(config.backbone)
        card = trained.card

        def make() -> nn.Module:
            return copy.deepcopy(trained.module).requires_grad_(True)

    def build() -> Network:
        backbone = make()
        with torch.no_grad():
            channels = backbone.eval()(torch.zeros(2, 3, side, side)).shape[1]
        head = nn.Linear(channels, classes)
        nn.init.kaiming_normal_(head.weight)
        return Network(backbone.train(), head)

    return build, card


def run_stage1(config: Config, setting: Setting, folder: Path, console: Console) -> Stage1:
    """Decode the images, train the first stage or go on with it, and compute or read its features."""
    build, card = builder(config, setting)
    images, test = _decoded(config, setting, card, console)
    with Bars(console) as bar:
        weights, history = train_images(
            build,
            images,
            Objective(),
            config.recipe,
            folder / "state.pt",
            setting.identity,
            watcher=Display(bar, console, config.recipe.epochs, outcome, "stage 1"),
            folder="stage1",
            code=code(),
        )
    network = build()
    network.load_state_dict(weights)
    _save_checkpoint(folder, network.backbone, setting, config, images, history)
    cached = _features(network, setting, images, test, folder, device_of(config.recipe), console)
    return Stage1(build, weights, history, images, test, cached)


def outcome(record: Epoch[float]) -> str:
    """Say what an epoch came to."""
    return f"loss {record.loss:.3f}, validation error {record.validation[ERROR]:.2f} %"


def device_of(recipe: Recipe) -> str:
    """Where features are computed: a GPU where training uses one."""
    return "cuda" if recipe.accelerator in {"auto", "cuda", "gpu"} and torch.cuda.is_available() else "cpu"


def _decoded(config: Config, setting: Setting, card: Card | None, console: Console) -> tuple[Images, Tensor]:
    """Bring all images into memory."""
    preparation = Preparation(setting.identity["resolution"])
    sets = {"train": setting.train, "meta": setting.meta, "validation": setting.validation, "test": setting.test}
    if len(setting.curve):
        sets["curve"] = setting.curve
    with Bars(console) as bar:
        job = bar.add_task("reading images", total=sum(map(len, sets.values())))
        pixels = {name: decode(part, preparation, lambda: bar.advance(job))[:, 0] for name, part in sets.items()}
    if card is not None:
        mean, std = card.mean, card.std
    elif config.dataset in CIFAR:
        mean, std = CIFAR_MEAN, CIFAR_STD
    else:
        mean, std = statistics(pixels["train"])
    labels = {name: torch.from_numpy(part.labels) for name, part in sets.items()}
    images = Images(
        pixels["train"],
        labels["train"],
        pixels["meta"],
        labels["meta"],
        pixels["validation"],
        labels["validation"],
        setting.counts,
        mean,
        std,
        config.flip,
        pixels.get("curve"),
        labels.get("curve"),
    )
    return images, pixels["test"]


def _save_checkpoint(
    folder: Path,
    backbone: nn.Module,
    setting: Setting,
    config: Config,
    images: Images,
    history: Sequence[Epoch[float]],
) -> None:
    """Write the backbone so that other commands can load it."""
    path = folder / "stage1.safetensors"
    if config.backbone not in ARCHITECTURES or path.exists():
        return
    card = Card(
        name=f"{config.dataset}-lt{config.factor:g}-{config.backbone}",
        architecture=config.backbone,
        resolution=setting.identity["resolution"],
        mean=images.mean,
        std=images.std,
        training_data=f"{config.dataset} train, imbalance factor {config.factor:g}, {len(setting.train):,} images",
        dataset=config.dataset,
        training_classes=setting.train.classes,
        protocol={**setting.identity, "val_curves": {STAGE_1: curves(history).get(ACCURACY, [])}},
    )
    save(path, backbone, card)


def _fits(state: dict[str, Any], sets: dict[str, Tensor]) -> bool:
    """Tell whether a file holds the features of these images; another program's would be computed anew."""
    means, labels = state.get("pixel_means"), state.get("pixel_mean_labels")
    found = [(state.get(name), len(pixels)) for name, pixels in sets.items()]
    if not isinstance(means, Tensor) or not isinstance(labels, Tensor) or means.ndim != 2 or len(means) != len(labels):
        return False
    return all(isinstance(t, Tensor) and t.dtype == means.dtype and t.shape == (n, means.shape[1]) for t, n in found)


def _features(
    network: Network, setting: Setting, images: Images, test: Tensor, folder: Path, device: str, console: Console
) -> Cached:
    """Compute the features, or read those of an earlier run of the same weights."""
    fingerprint = _hash(network.state_dict())
    path = folder / "features.pt"
    state = load_state(path)
    sets = {"train": images.train, "meta": images.meta, "validation": images.validation, "test": test}
    if images.curve is not None:
        sets["curve"] = images.curve
    if state is None or state.get("fingerprint") != fingerprint or not _fits(state, sets):
        backbone = network.backbone.to(device).eval()
        state = {"fingerprint": fingerprint}
        with console.status("computing features"):
            for name, pixels in sets.items():
                state[name] = extract(backbone, pixels, images.mean, images.std, device)
            means, labels = prototypes(images.meta.float() / 255, images.meta_labels)
            # A copy, since batch statistics would also move the running ones.
            under_batch = copy.deepcopy(backbone).train()
            state["pixel_means"] = extract(
                under_batch, means.float(), images.mean, images.std, device, batch_size=len(means)
            )
            state["pixel_mean_labels"] = labels
        save_state(path, state)
    features = Features(
        state["train"],
        images.train_labels,
        state["meta"],
        images.meta_labels,
        state["validation"],
        images.validation_labels,
        images.counts,
        None if images.curve is None else state["curve"],
        images.curve_labels,
    )
    if not all(bool(torch.isfinite(state[name]).all()) for name in sets):
        raise UserError(f"the features of stage 1 in {folder} hold NaN or infinity: train it anew with a lower rate.")
    head = {name: tensor.detach().cpu() for name, tensor in network.head.state_dict().items()}
    test_labels = torch.from_numpy(setting.test.labels.astype(np.int64))
    return Cached(features, state["test"], test_labels, state["pixel_means"], state["pixel_mean_labels"], head)


def _hash(state: dict[str, Tensor]) -> str:
    """Hash weights."""
    total = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        total.update(name.encode())
        total.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()

"""The command line of ``experiments.metric_learning``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from otfew.training.settings import Accelerator


@dataclass
class Config:
    """Train the same network with several losses and compare retrieval after every epoch.

    Every loss of a seed sees the same first weights and the same batches. The folder --output collects runs: the same
    command goes on where it was interrupted, and one with other losses or more seeds adds to it.
    """

    dataset: str = "fashion-mnist"
    """fashion-mnist, cifar10, image-folder, any other of compare --list; or shapes in several views: shapes
    (generated), modelnet10, modelnet40, shrec13, shrec14, views (folders of rendered ones)."""
    data_root: Path | None = None
    """Folder of the data. Default: $OTFEW_DATA, then a cache folder."""
    download: Annotated[bool | None, tyro.conf.DisallowNone] = None
    """Fetch what is missing where the publisher allows it. Default: ask about more than 100 MB at a terminal, and
    fetch no such thing elsewhere."""
    losses: tuple[str, ...] = (
        "matched-pairs",
        "all-pairs",
        "batchwise-ot:reg_inverse=5",
        "batchwise-ot:reg_inverse=10",
    )
    """Names, each with options after a colon, as batchwise-ot:reg_inverse=5,margin=1; --list prints them."""
    seeds: int = 5
    """Runs of each loss, with the seeds 1, 2, ..."""
    reference: str = "all-pairs"
    """Loss that the others are compared with."""
    backbone: str = "lenet5-wide"
    """Trunk: an architecture of pretrain, such as lenet5-wide, conv4, resnet12; or one of ours that is trained already,
    by name or path, to go on from."""
    head: tuple[int, ...] = ()
    """Widths of the fully connected layers. Default: 512 256 for LeNet-5, else 4096 2048 512 128."""
    pooled: bool = False
    """No fully connected layers: the mean of the map is the embedding, as retrieve --backbone takes it."""
    across: str = ""
    """Learn one space for two modalities: edges (queries are edge maps of other images), or a folder of class folders
    of images, the queries' modality."""
    query_modality: Literal["", "sketch"] = ""
    """Learn one space for the sketches of a set of shapes, which are the queries, and its shapes, which are found."""
    views: int | None = None
    """Of shapes: images of each, evenly spaced. Default: all, 12 or, of SHREC's, 20."""
    epochs: int = 10
    """Passes over the training images."""
    batch_size: int = 64
    """Items of each of the two batches that a step compares."""
    learning_rates: tuple[float, ...] = (0.01,)
    """Of SGD. Several are tried for each loss on the val split, with a seed of their own, and the best is used."""
    tune_epochs: int = 2
    """Epochs of each trial."""
    momentum: float = 0.9
    """Of SGD."""
    decay: float = 0.95
    """Multiplies the learning rate after each epoch."""
    weight_decay: float = 0.0
    """Of all parameters."""
    per_class: int = 0
    """Items of each class in both batches together; 0 draws at random."""
    resolution: int | None = None
    """Side of the images in pixels. Default: the data set's usual one."""
    min_scale: float = 1.0
    """Least share of the area in a random crop of a training image; 1 crops nothing."""
    flip: bool = False
    """Mirror training images at random."""
    colour: float = 0.0
    """Strength of random brightness, contrast and saturation."""
    train_images: int | None = None
    """Most training items, by a fixed draw. Default: all."""
    test_images: int | None = None
    """Most test items, queries and gallery alike."""
    probe_images: int | None = 5000
    """Training items that the kNN and linear classifiers are fitted on."""
    svc: bool = False
    """Fit a support vector machine on them too, as the published codes do."""
    checkpoints: bool = True
    """Keep the trunk of each run with its card in OUTPUT/checkpoints, for --backbone of other commands."""
    note: str = ""
    """A sentence that the report repeats, such as: JPEG copy."""
    output: Path | None = None
    """Folder of the runs. Default: runs/metric-learning-HASH."""
    device: Accelerator = "auto"
    """auto, cpu, gpu or mps."""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    """Of the network in training; losses and evaluation stay in float32."""
    threads: int = 0
    """CPU threads; 0 takes all cores. Other numbers may round differently."""
    clock: Literal["wall", "cpu"] = "wall"
    """What "equal time" means: wall-clock time, or cpu time where other work shares the machine."""
    list: bool = False
    """Print the losses and end."""
    page: bool = False
    """Write the figures on shapes into the page metric-learning.md again, from the committed records, and end."""
    docs: Path = Path("docs")
    """Folder of that page."""

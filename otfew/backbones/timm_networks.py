"""timm's networks by name: with timm's weights, or with a user's own."""

from __future__ import annotations

import difflib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from otfew.backbones.base import Backbone
from otfew.backbones.cards import IMAGENET, Card
from otfew.backbones.foreign import UNKNOWN, wrap
from otfew.backbones.matching import match, refusal
from otfew.backbones.own_weights import said
from otfew.backbones.tensor_files import read_tensors
from otfew.errors import UserError
from otfew.plugins import told


def from_timm(name: str, weights: Path | None = None) -> Backbone:
    """Load a network of timm: its last map before pooling, or its patch tokens as a map.

    Resolution, mean and deviation are those of the model's own configuration. Transformers take other resolutions too,
    where timm can stretch their places (``dynamic_img_size``).

    Args:
        name: timm's name of the network, such as "resnet18.a1_in1k" or "vit_small_patch14_dinov2".
        weights: Of the user; None fetches timm's, which needs a network once.

    Raises:
        UserError: timm is missing or does not import, does not know the name, can't fetch the weights, or the user's
            weights do not fit.
    """
    timm = _timm(name)
    base, _, _ = name.partition(".")
    if not timm.is_model(base):
        near = difflib.get_close_matches(base, timm.list_models(), n=1)
        hint = f"did you mean timm:{near[0]}?" if near else "timm.list_models() lists them."
        raise UserError(f'timm has no network "{name}": {hint}')
    network = _made(timm, name, pretrained=weights is None)
    data = timm.data.resolve_model_data_config(network)
    given: dict[str, Any] = getattr(network, "pretrained_cfg", None) or {}
    spec = f"timm:{name}"
    if weights is None:
        trained, notes = (
            _training_data(name, given),
            (f"weights of {spec}: licence {given.get('license') or 'not said'}",),
        )
    else:
        notes = (_fill(network, weights, spec),)
        trained, spec = UNKNOWN, f"{spec}@{weights.name}"
    card = Card(
        name=spec,
        architecture=spec,
        resolution=int(data["input_size"][-1]),
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
        external=True,
        training_data=trained,
    )
    return wrap(network, card, notes)


def _timm(name: str) -> Any:
    """Import timm."""
    if find_spec("timm") is None:
        raise UserError(f'backbone "timm:{name}" needs timm: run pip install "otfew[timm]".')
    try:
        import timm
    except Exception as error:  # of torchvision, most often: a RuntimeError about operators
        raise UserError(
            f'backbone "timm:{name}": timm does not import ({told(error)}); torch and torchvision must be releases '
            'that belong together: run pip install -U torch torchvision, or pip install "otfew[timm]" in a new '
            "environment."
        ) from error
    return timm


def _made(timm: Any, name: str, *, pretrained: bool) -> nn.Module:
    """Build a network without its head; it takes images of other sides where timm offers that."""
    network: nn.Module
    try:
        try:
            network = timm.create_model(name, pretrained=pretrained, dynamic_img_size=True)
        except TypeError:  # of networks that know no such option, convolutional ones for instance
            network = timm.create_model(name, pretrained=pretrained)
        # After its weights were loaded, since some heads have some of their own.
        network.reset_classifier(0, "")  # type: ignore[operator]
    except Exception as error:  # hub, network and file errors come in many classes
        if not pretrained:
            raise UserError(f'timm cannot build "timm:{name}" ({told(error)}).') from error
        raise UserError(
            f'the weights of "timm:{name}" could not be fetched ({told(error)}): connect to the network once, give '
            f"your own as timm:{name}@FILE, or give another `backbone`."
        ) from error
    return network


def _training_data(name: str, given: dict[str, Any]) -> str:
    """Say what timm's weights were trained on, as far as their tag tells.

    Tags end in the data the classifier was trained on; in21k, CLIP and the like have seen much else.
    """
    tag = str(given.get("tag") or "")
    only_imagenet = (tag == "in1k" or tag.endswith("_in1k")) and not any(w in tag for w in ("_ft_", "dist"))
    return IMAGENET if only_imagenet else f"timm weights {tag or name} (external)"


def _fill(network: nn.Module, path: Path, spec: str) -> str:
    """Put a user's weights into a network; returns a sentence about them."""
    tensors, _ = read_tensors(path)
    state = network.state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    fit = match({n: tuple(t.shape) for n, t in state.items()}, shapes, {n: n for n in state})
    if not fit.fits:
        raise refusal(fit, str(path), spec)
    for theirs in fit.taken.values():
        tensor = tensors[theirs]
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise UserError(f"{path} holds NaN or infinite values in {theirs!r}: copy or train it again.")
    network.load_state_dict({**state, **{ours: tensors[theirs] for ours, theirs in fit.taken.items()}})
    return said(path.name, fit)

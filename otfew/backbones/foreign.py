"""Backbones from elsewhere: any torch module by ``package.module:factory``, and timm's networks."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from otfew import plugins
from otfew.backbones.base import Backbone, digest
from otfew.backbones.cards import IMAGENET, Card
from otfew.backbones.layout import channels_first, declared
from otfew.errors import UserError

UNKNOWN = "unknown (external)"


class AsMaps(nn.Module):
    """Brings a network's output to maps.

    Args:
        network: Returns (images, channels, h, w), or (images, h, w, channels) if its attribute ``output_fmt`` or the
            shape says so, or vectors (images, channels), which become maps of one node.
        spec: Name in messages.
    """

    def __init__(self, network: nn.Module, spec: str) -> None:
        super().__init__()
        self.network = network
        self.spec = spec

    def forward(self, images: Tensor) -> Tensor:
        """Map (images, 3, height, width) to (images, channels, h, w).

        Raises:
            UserError: The network fails, or returns no maps.
        """
        try:
            output = self.network(images)
        except UserError:
            raise
        except Exception as error:  # the user's network may raise anything
            raise UserError(
                f"backbone {self.spec!r} fails on images of shape {tuple(images.shape)} with {plugins.told(error)}."
            ) from error
        if not isinstance(output, Tensor) or output.ndim not in {2, 4} or len(output) != len(images):
            got = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
            raise UserError(
                f"backbone {self.spec!r} must return maps (images, channels, h, w) or vectors (images, channels), "
                f"not {got}."
            )
        if output.ndim == 2:
            return output[:, :, None, None]
        return channels_first(output, images, declared(self.network), self.spec)


def from_factory(spec: str) -> Backbone:
    """Call a factory without arguments.

    Args:
        spec: ``package.module:factory``; the factory returns an ``nn.Module`` on normalised images (mean and deviation
            of ImageNet) or a ``Backbone`` with its own card.

    Returns:
        The backbone; its digest is also one of the factory's source, since a ``forward`` is code.

    Raises:
        UserError: Nothing there to call, the call fails or ends the program, its result is neither, or its weights hold
            no numbers.
    """
    made = make(spec)
    if isinstance(made, Backbone):
        _check_weights(made.module, spec)
        found = made
    else:
        found = of_module(made, spec)
    # Whatever a card says of its architecture, this is where the network is made.
    return Backbone(found.module, replace(found.card, architecture=spec), of_source(found.digest, spec))


def make(spec: str, **options: Any) -> nn.Module | Backbone:
    """Call a user's factory.

    Args:
        spec: ``package.module:factory``.
        **options: Of the call.

    Raises:
        UserError: Nothing there to call, the call fails, or its result is neither a module nor a ``Backbone``.
    """
    factory = plugins.load(spec, "backbone")
    if not callable(factory):
        raise UserError(f"backbone {spec!r} is of type {type(factory).__name__} and no function: name what makes one.")
    made = plugins.called(factory, spec, "backbone", **options)
    if not isinstance(made, nn.Module | Backbone):
        raise UserError(
            f"backbone {spec!r} must return a torch.nn.Module or an otfew Backbone, not {type(made).__name__}."
        )
    return made


def of_source(key: str, spec: str) -> str:
    """Hash a backbone's digest with that of the source of ``package.module:factory``."""
    return hashlib.sha256(f"{key} {plugins.digest(spec)}".encode()).hexdigest()


def of_module(module: nn.Module, name: str | None = None) -> Backbone:
    """Make a backbone of a module on normalised images (mean and deviation of ImageNet), which is frozen.

    Args:
        module: Returns what ``AsMaps`` takes.
        name: Name in reports; None takes that of its class.

    Raises:
        UserError: Its weights hold no numbers.
    """
    name = name or type(module).__name__
    return _wrap(module, Card(name=name, architecture=name, external=True, training_data=UNKNOWN))


def from_timm(name: str) -> Backbone:
    """Load a network of timm with its pretrained weights: its last map before pooling.

    Args:
        name: timm's name of the network, such as "resnet18.a1_in1k".

    Raises:
        UserError: timm is missing, does not know the name, or can't fetch the weights.
    """
    if find_spec("timm") is None:
        raise UserError(f'backbone "timm:{name}" needs timm: run pip install timm.')
    import timm

    base, _, _ = name.partition(".")
    if not timm.is_model(base):
        import difflib

        near = difflib.get_close_matches(base, timm.list_models(), n=1)
        hint = f"did you mean timm:{near[0]}?" if near else "timm.list_models() lists them."
        raise UserError(f'timm has no network "{name}": {hint}')
    try:
        network = timm.create_model(name, pretrained=True, num_classes=0, global_pool="")
    except Exception as error:  # hub, network and file errors come in many classes
        raise UserError(
            f'the weights of "timm:{name}" could not be fetched ({plugins.told(error)}): '
            "connect to the network once, or give another `backbone`."
        ) from error
    data = timm.data.resolve_model_data_config(network)
    # timm's tags end in the data the classifier was trained on; in21k, CLIP and the like have seen much else.
    tag = str(network.pretrained_cfg.get("tag") or "")
    only_imagenet = (tag == "in1k" or tag.endswith("_in1k")) and not any(w in tag for w in ("_ft_", "dist"))
    card = Card(
        name=f"timm:{name}",
        architecture=f"timm:{name}",
        resolution=int(data["input_size"][-1]),
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
        external=True,
        training_data=IMAGENET if only_imagenet else f"timm weights {tag or name} (external)",
    )
    return _wrap(network, card)


def _wrap(network: nn.Module, card: Card) -> Backbone:
    """Freeze a network and give it the shape of a backbone."""
    _check_weights(network, card.architecture)
    module = AsMaps(network, card.architecture).eval().requires_grad_(False)
    key = digest(module, card)
    if declared(network) == "NHWC":
        # The same weights read in the other layout are other features.
        key = hashlib.sha256(f"{key} NHWC".encode()).hexdigest()
    return Backbone(module, card, key)


def _check_weights(network: nn.Module, spec: str) -> None:
    """Raise ``UserError`` at the first weight without numbers that can be read."""
    if not isinstance(network, nn.Module):
        raise UserError(f"backbone {spec!r} holds a {type(network).__name__} in place of a torch.nn.Module.")
    for name, weight in network.state_dict().items():
        if isinstance(weight, UninitializedParameter | UninitializedBuffer) or not isinstance(weight, Tensor):
            raise UserError(f"backbone {spec!r}: its weight {name!r} is no tensor with numbers: initialise it first.")
        if weight.device.type == "meta":
            raise UserError(f"backbone {spec!r}: its weight {name!r} is on the meta device: load its numbers first.")
        if weight.layout != torch.strided or weight.is_quantized:
            raise UserError(f"backbone {spec!r}: its weight {name!r} is sparse or quantised: make it a dense tensor.")

"""Backbones from elsewhere: any torch module, by ``package.module:factory`` or as an object."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from otfew import plugins
from otfew.backbones.base import Backbone, digest
from otfew.backbones.cards import Card
from otfew.backbones.layout import channels_first, declared
from otfew.backbones.tokens import apart
from otfew.errors import UserError

UNKNOWN = "unknown (external)"


class AsMaps(nn.Module):
    """Brings a network's output to maps.

    Args:
        network: Returns (images, channels, h, w), or (images, h, w, channels) if its attribute ``output_fmt`` or the
            shape says so, or tokens (images, tokens, channels) of a transformer, whose patch tokens become maps (see
            ``otfew.backbones.tokens``), or vectors (images, channels), which become maps of one node.
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
        if not isinstance(output, Tensor) or output.ndim not in {2, 3, 4} or len(output) != len(images):
            got = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
            raise UserError(
                f"backbone {self.spec!r} must return maps (images, channels, h, w), tokens (images, tokens, channels) "
                f"or vectors (images, channels), not {got}."
            )
        if output.ndim == 2:
            return output[:, :, None, None]
        if output.ndim == 3:
            return apart(output, images, self.network, self.spec)[1]
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

    Returns:
        The backbone; its card says that nobody knows what it was trained on.

    Raises:
        UserError: Its weights hold no numbers.
    """
    name = name or type(module).__name__
    return wrap(module, Card(name=name, architecture=name, external=True, training_data=UNKNOWN))


def wrap(network: nn.Module, card: Card, notes: tuple[str, ...] = ()) -> Backbone:
    """Freeze a network and give it the shape of a backbone."""
    _check_weights(network, card.architecture)
    module = AsMaps(network, card.architecture).eval().requires_grad_(False)
    key = digest(module, card)
    if declared(network) == "NHWC":
        # The same weights read in the other layout are other features.
        key = hashlib.sha256(f"{key} NHWC".encode()).hexdigest()
    return Backbone(module, card, key, notes)


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

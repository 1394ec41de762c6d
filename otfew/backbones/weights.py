"""Checkpoints on disk: weights as safetensors, the card as JSON beside them; nothing is ever unpickled."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as decode
from safetensors.torch import save as encode
from torch import Tensor, nn

from otfew.backbones.architectures import ARCHITECTURES
from otfew.backbones.base import Backbone, digest
from otfew.backbones.cards import SUFFIX, Card, load_card
from otfew.errors import UserError
from otfew.plugins import is_plugin
from otfew.runs.files import reason, write_atomically
from otfew.runs.regular_file import GIB, read_regular

LARGEST = 32 * GIB
"""Bytes of the weights that are read."""


def save(path: Path, module: nn.Module, card: Card, *, half: bool = False) -> Card:
    """Write weights and card, each whole or not at all.

    Args:
        path: Of the weights; must end in .safetensors. The card goes beside it, ending in .json.
        module: Whose parameters and buffers are written.
        card: Its sha256 is filled in.
        half: Store matrices and kernels in half precision; vectors (batch normalisation) keep theirs, since running
            variances may leave half's range and weigh nothing.

    Returns:
        The card as written.

    Raises:
        ValueError: The path's ending, or a weight that is not finite as stored.
    """
    if path.suffix != SUFFIX:
        raise ValueError(f"a checkpoint's name must end in {SUFFIX}, not {path.name!r}")
    tensors = {}
    for name, tensor in module.state_dict().items():
        kept = tensor.detach().cpu().contiguous()
        if half and kept.is_floating_point() and kept.ndim > 1:
            kept = kept.half()
        if kept.is_floating_point() and not bool(torch.isfinite(kept).all()):
            raise ValueError(f"weight {name!r} is not finite in {kept.dtype}")
        tensors[name] = kept
    data = encode(tensors)
    stamped = replace(card, sha256=hashlib.sha256(data).hexdigest())
    text = json.dumps(stamped.to_json(), indent=1, ensure_ascii=False) + "\n"
    write_atomically(path, data)
    write_atomically(path.with_suffix(".json"), text.encode())
    return stamped


def load(path: Path, card: Card | None = None, *, build: Callable[..., nn.Module] | None = None) -> Backbone:
    """Read a checkpoint and check all of it.

    Args:
        path: Of the weights.
        card: Of the weights; None takes the one beside them.
        build: Makes the network of the card's options, where it is none of ours.

    Raises:
        UserError: A file is missing or damaged, or the weights do not fit the card.
    """
    card = load_card(path) if card is None else card
    tensors = _read(path, card)
    if build is None and card.architecture not in ARCHITECTURES:
        # Only our own names: a card must not be able to call whatever function it likes.
        if is_plugin(card.architecture):
            raise UserError(
                f"the card of {path} names {card.architecture!r}, code that is none of otfew's: where that is your own "
                f"network, give {card.architecture}@{path}."
            )
        raise UserError(
            f"the card of {path} names the architecture {card.architecture!r}, which is none of "
            f"{', '.join(ARCHITECTURES)}: give such a network as package.module:factory."
        )
    try:
        module = (build or ARCHITECTURES[card.architecture])(**card.options)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"the card of {path} gives options that {card.architecture} refuses: {error}.") from None
    _fit(path, module, tensors)
    return Backbone(module, card, digest(module, card))


def _read(path: Path, card: Card) -> dict[str, Tensor]:
    """Read the tensors, after comparing the file's hash with the card's."""
    again = "copy or train it again."
    try:
        data = read_regular(path, LARGEST)
    except OSError as error:
        raise UserError(f"checkpoint {path} cannot be read ({reason(error)}).") from error
    try:
        tensors = decode(data)
    except (SafetensorError, ValueError):
        raise UserError(f"checkpoint {path} is truncated or not a safetensors file: {again}") from None
    if hashlib.sha256(data).hexdigest() != card.sha256:
        raise UserError(f"checkpoint {path} is damaged or belongs to another card (sha256 differs): {again}")
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise UserError(f"checkpoint {path} holds NaN or infinite values in {name!r}: {again}")
    return tensors


def _fit(path: Path, module: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Put the tensors into the module, converting to its precision."""
    wanted = module.state_dict()
    for problem, names in (("lacks", wanted.keys() - tensors.keys()), ("holds", tensors.keys() - wanted.keys())):
        if names:
            extra = " which its architecture does not have" if problem == "holds" else ""
            raise UserError(
                f"checkpoint {path} {problem} the tensor {min(names)!r}{extra}: "
                "it does not fit the architecture in its card."
            )
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name].shape:
            raise UserError(
                f"checkpoint {path} has {name!r} of shape {tuple(tensor.shape)}, but the architecture in its card "
                f"needs {tuple(wanted[name].shape)}."
            )
    module.load_state_dict(tensors)

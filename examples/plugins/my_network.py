"""A network of one's own: ``otfew pretrain --backbone my_network:small`` trains it, ``compare`` takes it as it is."""

from __future__ import annotations

from torch import nn


def small(channels: int = 32, last_pool: bool = True) -> nn.Module:
    """Make three blocks of convolution, normalisation and ReLU: images (images, 3, side, side) become maps.

    Args:
        channels: Of the maps.
        last_pool: False keeps the last map at a quarter of the image's side, not an eighth: ``--no-last-pool``.
    """
    layers: list[nn.Module] = []
    for block, (before, after) in enumerate([(3, channels), (channels, channels), (channels, channels)]):
        layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        if block < 2 or last_pool:
            layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)

"""Kornia's crops, flips and colours by few operations, for devices to which the host must hand over each of them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from otfew.devices import send

Drawn = Mapping[str, Mapping[str, Tensor]]
"""Name of an augmentation of kornia -> what it has drawn, on the CPU."""
GREY = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in the brightness of a pixel."""


def augmented(images: Tensor, drawn: Drawn, side: int) -> Tensor:
    """Do what kornia does with what it has drawn; equal to its result up to rounding.

    Args:
        images: (images, 3, height, width) float in [0, 1], on a device.
        drawn: By "RandomResizedCrop", and where they take part "RandomHorizontalFlip" and "ColorJitter".
        side: Of the result.

    Returns:
        (images, 3, side, side), there.
    """
    grid = send(sampled(images.shape[2:], drawn, side), images.device)
    columns, rows = (grid[:, :, axis] for axis in range(2))
    places = torch.stack([columns[:, None, :].expand(-1, side, -1), rows[:, :, None].expand(-1, -1, side)], -1)
    cropped = functional.grid_sample(images, places, mode="bilinear", padding_mode="border", align_corners=True)
    return coloured(cropped, drawn["ColorJitter"]) if "ColorJitter" in drawn else cropped


def sampled(size: torch.Size, drawn: Drawn, side: int) -> Tensor:
    """Say where the columns and the rows of a crop lie in its image, from -1 (the first pixel) to 1 (the last).

    The corners of a crop are the centres of its corner pixels, as are those of the result. Mirrored crops are read from
    right to left.

    Args:
        size: Height and width of the images.
        drawn: As in ``augmented``.
        side: Of the result.

    Returns:
        (images, side, 2): of columns, of rows.
    """
    corners = drawn["RandomResizedCrop"]["src"]
    pixels = torch.lerp(corners[:, 0, None], corners[:, 2, None], torch.linspace(0, 1, side)[:, None])
    if "RandomHorizontalFlip" in drawn:
        mirrored = drawn["RandomHorizontalFlip"]["batch_prob"] > 0.5
        pixels[mirrored, :, 0] = pixels[mirrored, :, 0].flip(1)
    most = torch.tensor([size[1] - 1, size[0] - 1]).clamp_min(1)
    return 2 * pixels / most - 1


def coloured(images: Tensor, drawn: Mapping[str, Tensor]) -> Tensor:
    """Change brightness, contrast and saturation, in the order that was drawn; the hue stays.

    Args:
        images: (images, 3, height, width) in [0, 1], on a device.
        drawn: Factors (images,) of each, and "order" (4,), in which they are numbered as here and the hue is the last.
    """
    names = ("brightness", "contrast", "saturation")
    factors = send(torch.stack([drawn[f"{name}_factor"] for name in names]), images.device)[:, :, None, None, None]
    shares = torch.stack([torch.full((1, 1), share, device=images.device) for share in GREY])
    for number in drawn["order"].tolist():
        if number == len(names):
            continue
        factor = factors[number]
        if number == 0:
            images = images * factor
        else:
            grey = (images * shares).sum(1, keepdim=True)
            other = grey.mean((2, 3), keepdim=True) if number == 1 else grey
            images = torch.lerp(other, images, factor)
        images = images.clamp(0, 1)
    return images

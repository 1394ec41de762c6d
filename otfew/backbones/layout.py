"""Which axis of a feature map holds the channels: said by the network, else told by the shape."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from otfew.errors import UserError

Layout = Literal["NCHW", "NHWC"]
ATTRIBUTE = "output_fmt"
"""What timm's networks call their declaration; any network may have it."""


def declared(network: nn.Module) -> Layout | None:
    """Read what a network says of its maps, None where it says nothing about maps.

    Args:
        network: May have the attribute ``output_fmt``: "NCHW", "NHWC", or timm's enumeration of them.
    """
    said = getattr(network, ATTRIBUTE, None)
    text = str(getattr(said, "value", said)).upper()
    if text == "NHWC":
        return "NHWC"
    return "NCHW" if text == "NCHW" else None


def channels_first(
    maps: Tensor, images: Tensor, layout: Layout | None, spec: str, *, unless_told: Layout | None = None
) -> Tensor:
    """Bring maps to (images, channels, h, w).

    The map of a square image is square, so that the two axes of places are equal and the channels are the third. Maps
    of which all three axes are equal, or none are, need the network's word.

    Args:
        maps: (images, channels, h, w) or (images, h, w, channels).
        images: (images, 3, height, width) that they were made of.
        layout: What the network says, or None.
        spec: Name of the network, for messages.
        unless_told: What to take where neither the network nor the shape tells; None refuses such maps.

    Raises:
        UserError: Neither tells, or they contradict each other.
    """
    first, last = _alike(maps.shape[2:], images), _alike(maps.shape[1:3], images)
    if layout is None and first != last:
        layout = "NCHW" if first else "NHWC"
    layout = layout or unless_told
    wrong = {"NCHW": last and not first, "NHWC": first and not last}
    if layout is None and maps.shape[1:].numel() > 1:
        raise UserError(
            f"backbone {spec!r} returns maps of shape {tuple(maps.shape)}, of which the shape does not tell where the "
            f"channels are: set its attribute {ATTRIBUTE} to 'NCHW' or 'NHWC'."
        )
    if layout is not None and wrong[layout]:
        raise UserError(
            f"backbone {spec!r} says {ATTRIBUTE} = {layout!r}, but its maps have shape {tuple(maps.shape)}: "
            "set the attribute to what it returns."
        )
    return maps.permute(0, 3, 1, 2) if layout == "NHWC" else maps


def _alike(places: tuple[int, ...], images: Tensor) -> bool:
    """Tell whether two axes may be those of the images, made smaller and rounded."""
    height, width = images.shape[2:]
    h, w = places
    return h == w if height == width else abs(h * width - w * height) <= height + width

"""Tokens of vision transformers: patch tokens become a map of nodes, class and register tokens are kept apart."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from otfew.errors import UserError

ATTRIBUTE = "num_prefix_tokens"
"""What timm's transformers call the number of tokens before the patches; any network may have it."""


def apart(tokens: Tensor, images: Tensor, network: nn.Module, spec: str) -> tuple[Tensor, Tensor]:
    """Take the tokens before the patches off, and lay the patch tokens out as they lie in the image.

    How many stand before them is said by the network's attribute ``num_prefix_tokens`` (a class token, and as many
    registers as it has); the grid is the image's sides in patches where the network tells their size
    (``patch_embed.patch_size``), else it is square, as the image must be.

    Args:
        tokens: (images, tokens, channels).
        images: (images, 3, height, width) that they were made of.
        network: Which made them.
        spec: Its name, for messages.

    Returns:
        The prefix (images, prefix, channels), and the maps (images, channels, h, w).

    Raises:
        UserError: Neither tells how the tokens lie.
    """
    count = tokens.shape[1]
    height, width = images.shape[2:]
    patch = _patch(network)
    declared = getattr(network, ATTRIBUTE, None)
    prefix = declared if isinstance(declared, int) else None
    if patch is not None and height >= patch[0] and width >= patch[1]:
        h, w = height // patch[0], width // patch[1]
        prefix = count - h * w if prefix is None else prefix
    elif prefix is not None and height == width and count > prefix:
        h = w = round((count - prefix) ** 0.5)
    else:
        raise UserError(
            f"backbone {spec!r} returns {count} tokens an image, of which nothing tells how many are patches: set its "
            f"attribute {ATTRIBUTE} to the number of class and register tokens before them, and give square images."
        )
    if prefix < 0 or count - prefix != h * w:
        raise UserError(
            f"backbone {spec!r} returns {count} tokens for images of {height} x {width} pixels, {max(prefix, 0)} of "
            f"them before the patches, which leaves no grid of {h} x {w}: set its attribute {ATTRIBUTE}, or give "
            "another `resolution`."
        )
    patches = tokens[:, prefix:].transpose(1, 2).reshape(len(tokens), -1, h, w)
    return tokens[:, :prefix], patches


def _patch(network: nn.Module) -> tuple[int, int] | None:
    """Return the sides of a patch in pixels, where the network tells them."""
    size = getattr(getattr(network, "patch_embed", None), "patch_size", None)
    if isinstance(size, int):
        return size, size
    if isinstance(size, Sequence) and len(size) == 2 and all(isinstance(side, int) and side > 0 for side in size):
        return size[0], size[1]
    return None

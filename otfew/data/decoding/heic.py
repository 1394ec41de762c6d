"""HEIC, in which phones keep their photos: read where pillow-heif is installed."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from otfew.errors import UserError

SUFFIXES = frozenset({".heic", ".heif"})
"""Lower-case suffixes of such files."""


def installed() -> bool:
    """Whether such files can be read here."""
    return find_spec("pillow_heif") is not None


def decode(data: bytes, name: str, check: Callable[[int], None]) -> npt.NDArray[Any]:
    """Decode the main picture of a file, upright, with 8 bits a channel.

    Args:
        data: The whole file.
        name: What errors call it.
        check: Called with the number of pixels before they are decoded; raises where they are too many.

    Returns:
        (height, width, 1, 3 or 4) uint8.

    Raises:
        UserError: It is cut or damaged, or as ``check`` raises.
    """
    import pillow_heif

    try:
        # Turns and mirrorings that the file declares are carried out by the decoder.
        picture = pillow_heif.open_heif(data, convert_hdr_to_8bit=True)
        check(picture.size[0] * picture.size[1])
        return np.asarray(picture)
    except UserError:
        raise
    except Exception as error:  # a damaged file may raise nearly any exception
        raise UserError(f"{name} is not a complete HEIC image; replace or remove it.") from error

"""Coverage masks of single glyphs, drawn by FreeType from the fonts that ship inside matplotlib."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.uint8]
"""(height, width) coverage of a glyph, cropped to its ink: 0 outside, 255 inside."""

FONTS: tuple[str, ...] = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-Oblique",
    "DejaVuSans-BoldOblique",
    "DejaVuSansMono",
    "DejaVuSansMono-Bold",
    "DejaVuSansMono-Oblique",
    "DejaVuSansMono-BoldOblique",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "DejaVuSerif-Italic",
    "DejaVuSerif-BoldItalic",
    "STIXGeneral",
    "STIXGeneralBol",
    "STIXGeneralItalic",
    "STIXGeneralBolIta",
    "cmr10",
    "cmb10",
    "cmss10",
    "cmtt10",
)
"""The fonts used, by file name; a fixed order, because samples refer to fonts by their place in it.

Left out: matplotlib's Last Resort font (one picture per block) and the mathematical fonts.
"""


@lru_cache(maxsize=1)
def _no_hinting() -> Any:
    from matplotlib import ft2font

    # An enumeration since matplotlib 3.10, a constant of the module before.
    flags = getattr(ft2font, "LoadFlags", None)
    return vars(ft2font)["LOAD_NO_HINTING"] if flags is None else flags.NO_HINTING


@lru_cache(maxsize=len(FONTS))
def _face(font: str) -> Any:
    import matplotlib
    from matplotlib.ft2font import FT2Font

    return FT2Font(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{font}.ttf"))


def versions() -> dict[str, str]:
    """Name what decides the masks: the versions of matplotlib (its fonts) and of its FreeType (the rasteriser)."""
    import matplotlib
    from matplotlib import ft2font

    return {"matplotlib": matplotlib.__version__, "freetype": ft2font.__freetype_version__}


def covers(font: str, code: int) -> bool:
    """Tell whether a font has a glyph for a code point.

    Args:
        font: One of ``FONTS``.
        code: Unicode code point.

    Of the Computer Modern fonts only unaccented Latin letters and digits count: their other slots are not Unicode.
    """
    if font.startswith("cm") and not (code < 128 and chr(code).isalnum()):
        return False
    return bool(_face(font).get_char_index(code))


def fonts_of(code: int) -> tuple[int, ...]:
    """List the fonts that have a glyph for a code point, as places in ``FONTS``."""
    return tuple(place for place, font in enumerate(FONTS) if covers(font, code))


def draw(font: str, code: int, pixels: float) -> Mask:
    """Draw one glyph, antialiased and unhinted, at a font size given in pixels per em.

    Args:
        font: One of ``FONTS``; it has to cover the code point.
        code: Unicode code point.
        pixels: Font size, pixels per em (FreeType rounds it to 1/64).

    Returns:
        (height, width) uint8, cropped to the ink; (0, 0) for a blank glyph.
    """
    face = _face(font)
    face.set_size(pixels, 72)
    face.set_text(chr(code), 0.0, flags=_no_hinting())
    face.draw_glyphs_to_bitmap(antialiased=True)
    image = np.asarray(face.get_image(), dtype=np.uint8)
    rows, columns = np.flatnonzero(image.any(axis=1)), np.flatnonzero(image.any(axis=0))
    if not len(rows):
        return np.zeros((0, 0), dtype=np.uint8)
    return image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].copy()


@lru_cache(maxsize=16384)
def mask(font: str, code: int, side: int) -> Mask:
    """Draw one glyph so that the longer side of its ink is ``side`` pixels or one or two less.

    FreeType scales the outline itself, in integers, so that no resampling blurs the mask or makes it depend on the
    machine. The array is cached and read-only.

    Args:
        font: One of ``FONTS``; it has to cover the code point.
        code: Unicode code point.
        side: Longest side wanted, pixels.

    Returns:
        (height, width) uint8 with both at most ``side``.

    Raises:
        ValueError: If the glyph is blank or missing.
    """
    em = 128.0
    shape = draw(font, code, em).shape if covers(font, code) else (0, 0)
    if 0 in shape:
        raise ValueError(f"font {font} draws nothing for U+{code:04X}")
    pixels = np.floor(64.0 * em * (side - 1) / max(shape)) / 64.0
    drawn = draw(font, code, float(pixels))
    while max(drawn.shape) > side:
        pixels -= 0.25
        drawn = draw(font, code, float(pixels))
    drawn.flags.writeable = False
    return drawn

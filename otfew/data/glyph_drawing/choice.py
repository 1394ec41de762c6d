"""How the classes of ``glyphs`` were chosen: as many letters as possible of which no two look alike.

``splits/glyphs.json`` is what ``class_list`` once returned; no run calls it, and other versions of the fonts do not
change the file. ``Path("glyphs.json").write_text(class_list(), encoding="utf-8")`` makes another.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from otfew.data.glyph_drawing.alike import SOURCE, similarity, views
from otfew.data.glyph_drawing.fonts import FONTS, Mask, fonts_of, mask, versions
from otfew.random.keys import digest

Table = npt.NDArray[np.bool_]

SCRIPTS: tuple[str, ...] = (
    "DIGIT",
    "LATIN",
    "GREEK",
    "CYRILLIC",
    "ARMENIAN",
    "GEORGIAN",
    "HEBREW",
    "ARABIC",
    "LAO",
    "COPTIC",
    "OLD",  # Old Italic
    "LISU",
    "CANADIAN",
)
"""First words of the Unicode names of the letters considered."""

SYMBOLS: tuple[range, ...] = (
    range(0x20A0, 0x20C0),
    range(0x2100, 0x2150),
    range(0x2200, 0x2300),
    range(0x2600, 0x27C0),
)
"""Blocks of the symbols that fill up: currency, letter-like, mathematical, miscellaneous and dingbats."""

FAMILIES = frozenset(
    {
        "ARROW",
        "ARROWS",
        "BLACK",
        "CIRCLED",
        "DIE",
        "DIGRAM",
        "DIGRAPH",
        "DRAUGHTS",
        "EQUAL",
        "FEMALE",
        "MALE",
        "NEGATIVE",
        "NOT",
        "RECYCLED",
        "THAN",
        "TRIGRAM",
        "WITH",
    }
)
"""Words in the names of characters that are variants or compounds of others."""

MAX_SIMILARITY = 0.85
"""Two classes correlate less than this in every rotation and font. Rotated m and w reach 0.85, "C" and "G" 0.86."""

MAX_MIRRORED = 0.88
"""The same for mirror images, which samples never are, but which an augmentation may make of them."""

MAX_ASPECT = 2.6
"""Longest to shortest side of the ink, so that no class is a mere stroke."""

MIN_FONTS = 3
"""How many fonts have to draw a class, each in its own way."""

TRAIN, VAL = 134, 31


def candidates() -> list[int]:
    """List the code points considered: whole letters, digits and symbols in at least three fonts, sorted."""
    return [code for code in range(0x30, 0x11000) if tier(code) is not None and _well_shaped(code)]


def tier(code: int) -> int | None:
    """Tell when a code point is considered: letters first, then Canadian ones, then symbols; None is never.

    The Canadian syllabics, many of them each other's rotations, would otherwise crowd out the other scripts.
    """
    letter = chr(code)
    words = unicodedata.name(letter, "").split(" ")
    category = unicodedata.category(letter)
    if unicodedata.decomposition(letter) or FAMILIES.intersection(words):
        return None
    if words[0] in SCRIPTS and category in {"Lu", "Ll", "Lo", "Nd"}:
        return int(words[0] == "CANADIAN")
    symbol = category in {"So", "Sm", "Sc"} and any(code in block for block in SYMBOLS)
    return 2 if symbol else None


def _well_shaped(code: int) -> bool:
    if not views(code):
        return False
    try:
        inks = [mask(FONTS[font], code, SOURCE) for font in fonts_of(code)]
    except ValueError:  # a blank glyph
        return False
    # Slanted and bold fonts repeat many symbols of the upright ones.
    return len({ink.tobytes() for ink in inks}) >= MIN_FONTS and max(map(_aspect, inks)) <= MAX_ASPECT


def _aspect(ink: Mask) -> float:
    """Longest to shortest side of the ink, upright or of the smallest box at any turn: a slanted stroke is one too."""
    import cv2

    width, height = cv2.minAreaRect(np.argwhere(ink >= 128)[:, ::-1].astype(np.float32))[1]
    return float(max(max(ink.shape) / min(ink.shape), max(width, height) / max(min(width, height), 1.0)))


def look_alikes(codes: Sequence[int]) -> Table:
    """Tell which pairs cannot both be classes: they look alike at first sight, or are the two cases of one letter.

    Args:
        codes: Code points.

    Returns:
        (len(codes), len(codes)) bool, symmetric, False on the diagonal.
    """
    folded = np.array([chr(code).casefold() for code in codes])
    alike = np.asarray(folded[:, None] == folded[None, :])
    alike |= similarity(codes) >= MAX_SIMILARITY
    alike |= similarity(codes, mirrored=True) >= MAX_MIRRORED
    alike |= alike.T
    np.fill_diagonal(alike, False)
    return alike


def choose(codes: Sequence[int], alike: Table) -> list[int]:
    """Collect code points tier by tier, fewest look-alikes first, each unlike all before it at a closer look.

    Args:
        codes: Candidates.
        alike: (len(codes), len(codes)) which pairs exclude each other.

    Returns:
        Code points of which no two look alike, sorted.
    """
    chosen: list[int] = []
    excluded = np.zeros(len(codes), dtype=np.bool_)
    tiers = np.array([tier(code) for code in codes])
    for number in sorted(set(tiers.tolist())):
        while (free := (tiers == number) & ~excluded).any():
            best = int(np.where(free, alike[:, free].sum(axis=1), len(codes)).argmin())
            excluded[best] = True
            others = [codes[place] for place in chosen]
            if not others or similarity(others, [codes[best]], fine=True).max() < MAX_SIMILARITY:
                chosen.append(best)
                excluded |= alike[best]
    return sorted(codes[place] for place in chosen)


def split(names: Sequence[str]) -> dict[str, list[str]]:
    """Deal class names to train, val and test in the order of their hashes: by chance, but the same everywhere."""
    dealt = sorted(names, key=digest)
    return {
        "train": sorted(dealt[:TRAIN]),
        "val": sorted(dealt[TRAIN : TRAIN + VAL]),
        "test": sorted(dealt[TRAIN + VAL :]),
    }


def record(chosen: Sequence[int]) -> dict[str, object]:
    """Lay out the class list as the other split files are: source, counts and the names of each split."""
    splits = split([f"U+{code:04X} {unicodedata.name(chr(code))}" for code in chosen])
    used = " and ".join(f"{name} {number}" for name, number in versions().items())
    return {
        "source": f"chosen by otfew.data.glyph_drawing.choice with {used}: a demonstration, not a published split",
        "counts": {part: len(names) for part, names in splits.items()},
        **splits,
    }


def class_list() -> str:
    """Choose the classes anew, which takes some minutes: the text of ``splits/glyphs.json``."""
    codes = candidates()
    return json.dumps(record(choose(codes, look_alikes(codes))), indent=1) + "\n"

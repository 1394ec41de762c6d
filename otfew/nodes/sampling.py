"""Sampling nodes: random crops of the image, each one node."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from otfew.errors import UserError
from otfew.nodes.numbers import check_count, whole_numbers
from otfew.nodes.patches import Patch, PatchExtractor
from otfew.random.draws import uniforms

SCALE = (0.08, 1.0)
"""Range of a crop's share of the image's area."""
ASPECT = (3 / 4, 4 / 3)
"""Range of a crop's width over its height, drawn on a logarithmic scale."""
ATTEMPTS = 10


@dataclass(frozen=True)
class Sampling(PatchExtractor):
    """Random crops (DeepEMD-Sampling, Zhang et al. 2022, section 4.2).

    Area, aspect ratio and mirroring are those of the released code, which crops at random in evaluation too. There,
    each visit to an image draws anew; here, crops depend on the image's name and the seed alone, so that an image has
    the same nodes in every episode and run. The first k of n crops are those of k crops.

    Args:
        count: Crops of each image.
        seed: Of all draws.
        flip: Mirror every second crop or so; off where mirroring makes another class (characters).
    """

    count: int = 9
    seed: int = 0
    flip: bool = True

    @property
    def spec(self) -> str:
        """Return the canonical specification."""
        seed = f",seed={self.seed}" if self.seed else ""
        return f"sampling:{self.count}{seed}{'' if self.flip else ',noflip'}"

    @property
    def n_views(self) -> int:
        """Count the crops."""
        return self.count

    def patches(self, height: int, width: int, name: str) -> list[Patch]:
        """Draw the crops of an image."""
        return [_crop(height, width, uniforms("crop", self.seed, name, k), self.flip) for k in range(self.count)]


def _crop(height: int, width: int, draws: Iterator[float], flip: bool) -> Patch:
    """Draw one crop: some attempts at a random area and aspect ratio, then the middle of the image."""
    mirrored = next(draws) < 0.5 and flip
    for _ in range(ATTEMPTS):
        area = height * width * (SCALE[0] + (SCALE[1] - SCALE[0]) * next(draws))
        low, high = map(math.log, ASPECT)
        aspect = math.exp(low + (high - low) * next(draws))
        columns, rows = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        place = next(draws), next(draws)
        if 0 < columns <= width and 0 < rows <= height:
            top, left = int(place[0] * (height - rows + 1)), int(place[1] * (width - columns + 1))
            return Patch(top, top + rows, left, left + columns, mirrored)
    rows = min(height, max(1, round(width / ASPECT[0])))
    columns = min(width, max(1, round(height * ASPECT[1])))
    top, left = (height - rows) // 2, (width - columns) // 2
    return Patch(top, top + rows, left, left + columns, mirrored)


def parse(arguments: str) -> Sampling:
    """Crop each image at random, as sampling:9 or sampling:9,seed=1,noflip; a crop is one node.

    Args:
        arguments: What follows "sampling:": how many crops, then "seed=N" and "noflip" where wanted.

    Raises:
        UserError: Not a number of crops, an unknown option, or too many crops.
    """
    number, *options = arguments.split(",")
    (count,) = whole_numbers("sampling", [number], "sampling:9")
    seed, flip = 0, True
    for option in options:
        given = re.fullmatch("seed=([0-9]{1,9})", option)
        if given:
            seed = int(given[1])
        elif option == "noflip":
            flip = False
        else:
            raise UserError(
                f"nodes 'sampling:{arguments}': {option!r} cannot follow the number of crops, only seed=N and noflip "
                "can; write for example sampling:9,seed=1."
            )
    sampling = Sampling(count, seed, flip)
    check_count(sampling.spec, count)
    return sampling

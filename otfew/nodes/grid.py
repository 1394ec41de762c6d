"""Grid nodes: the cells of one or several grids over the image, each enlarged, each one node."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from otfew.errors import UserError
from otfew.nodes.numbers import check_count, whole_numbers
from otfew.nodes.patches import Patch, PatchExtractor
from otfew.random.draws import uniforms

RATIO = 2.0
"""Sides of a patch over those of its cell at inference."""
TRAINING_RATIOS = (1.0, 3.0)
"""Range of the random ratio in training."""


@dataclass(frozen=True)
class Grid(PatchExtractor):
    """An image pyramid of grids (DeepEMD-Grid, Zhang et al. 2022, section 4.2; boxes as in the released code).

    A grid of g x g cells gives g * g patches, row by row; the grids follow each other in the order of ``sizes``. A
    patch has the centre of its cell and twice the cell's sides, and ends where the image ends.

    Args:
        sizes: g of each grid.
        training: Draw the ratio from [1, 3), once for an image and grid, and mirror every second patch or so.
        seed: Of these draws, beside the image's name; give another one in each epoch.
    """

    sizes: tuple[int, ...] = (2, 3)
    training: bool = False
    seed: int = 0

    @property
    def spec(self) -> str:
        """Return the canonical specification."""
        suffix = f" in training, seed {self.seed}" if self.training else ""
        return f"grid:{','.join(map(str, self.sizes))}{suffix}"

    @property
    def draws(self) -> bool:
        """Whether patches depend on the image's name."""
        return self.training

    @property
    def n_views(self) -> int:
        """Count the cells of all grids."""
        return sum(size * size for size in self.sizes)

    def patches(self, height: int, width: int, name: str) -> list[Patch]:
        """Enlarge the cells of all grids; ``name`` counts in training only.

        Raises:
            UserError: A grid has more cells to a side than the image has pixels.
        """
        if max(self.sizes) > min(height, width):
            raise UserError(
                f"nodes {self.spec!r} cut {max(self.sizes)} cells to a side out of an image of {height} x {width} "
                f"pixels: give grids of at most {min(height, width)}."
            )
        draws = uniforms("grid", self.seed, name) if self.training else None
        return [patch for size in self.sizes for patch in _cells(height, width, size, draws)]


def _cells(height: int, width: int, size: int, draws: Iterator[float] | None) -> Iterator[Patch]:
    """Yield the patches of one grid, row by row."""
    low, high = TRAINING_RATIOS
    ratio = RATIO if draws is None else low + (high - low) * next(draws)
    columns = _intervals(width, size, ratio)
    for top, bottom in _intervals(height, size, ratio):
        for left, right in columns:
            yield Patch(top, bottom, left, right, flip=draws is not None and next(draws) < 0.5)


def _intervals(length: int, size: int, ratio: float) -> list[tuple[int, int]]:
    """Divide an axis: centres are a whole cell apart, intervals end at the borders and hold a pixel at least."""
    cell = length // size
    half = max(1, math.floor(length / size * ratio) // 2)
    centres = [cell // 2 + cell * k for k in range(size)]
    return [(max(0, centre - half), min(length, centre + half)) for centre in centres]


def parse(arguments: str) -> Grid:
    """Cut each image into grids of patches, as grid:2,3 for 4 + 9; a patch is one node.

    Args:
        arguments: What follows "grid:": the grids' sizes.

    Raises:
        UserError: Not a list of sizes, or too many patches.
    """
    grid = Grid(whole_numbers("grid", arguments.split(","), "grid:2,3"))
    check_count(grid.spec, grid.n_views)
    return grid

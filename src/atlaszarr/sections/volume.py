"""The 3-D pull-back of a whole dataset: which chunk shows which images or windows, and what it makes of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..allen.images import ImageRequest, MissingImage, Pixels, SectionImage, TierImage, pixels_of, tier_image
from ..boxes import Index, Region, blocks
from ..errors import InputError
from .stack import Stack

#: Each costs about a millisecond before anything is fetched.
_MOST_CHUNKS = 1_000_000


@dataclass(frozen=True)
class Volume:
    """A stack of sections cut into chunks, each knowing the images it shows.

    Attributes
    ----------
    stack : Stack
    chunk : int
        Side of a chunk in voxels.
    shown : dict of tuple of int to tuple of int
        For every chunk index, the sections it shows; a chunk that is empty by geometry is not in it.
    """

    stack: Stack
    chunk: int
    shown: dict[Index, tuple[int, ...]]

    @classmethod
    def cut(cls, stack: Stack, chunk: int) -> Volume:
        """Cut the grid of a stack into chunks.

        Raises
        ------
        InputError
            If there would be more chunks than one build can keep track of.
        """
        count = math.prod(-(-n // chunk) for n in stack.grid.shape)
        if count > _MOST_CHUNKS:
            raise InputError(
                f"resolution {stack.grid.resolution:g} um makes {count:,} chunks, more than {_MOST_CHUNKS:,}; "
                "ask for a coarser resolution or larger chunks"
            )
        cubes = list(blocks(stack.grid.shape, chunk))
        with ThreadPoolExecutor() as threads:
            found = threads.map(lambda cube: stack.shown(cube[1]), cubes)
        return cls(stack, chunk, {index: shown for (index, _), shown in zip(cubes, found, strict=True) if shown})

    @cached_property
    def tiers(self) -> tuple[TierImage, ...]:
        """How the image of each section is fetched: whole, unless that is too large."""
        return tuple(map(tier_image, self.stack.sections, self.stack.requests))

    def requests(self, region: Region, sections: Sequence[int]) -> tuple[ImageRequest, ...]:
        """The images, or windows of them, that a block takes of the sections that it shows."""
        boxes = self.stack.boxes(region)
        return tuple(request for s in sections for request in self.tiers[s].requests(boxes[s]))


def compute_block(
    stack: Stack,
    tiers: Sequence[TierImage],
    region: Region,
    images: Sequence[SectionImage | MissingImage],
    background: int,
) -> tuple[Pixels, NDArray[np.uint32]]:
    """A block from the images that it shows; a section of which one is missing leaves its voxels empty."""
    fetched = pixels_of(images)
    return stack.pull_back(region, lambda section, box: tiers[section].crop(box, fetched), background)

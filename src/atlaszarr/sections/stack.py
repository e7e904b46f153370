"""A stack of sections over a grid: which section fills which voxel, and where in its image. No I/O.

The volume way to register: every voxel of the grid is pulled back through the full 3-D and 2-D affines to
(x, y, depth) and takes the section nearest in depth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import product

import numpy as np
from numpy.typing import NDArray

from ..allen.images import (
    ImagedSections,
    ImageRequest,
    MissingImage,
    Pixels,
    SectionImage,
    TierImage,
    pixels_of,
    tier_image,
)
from ..allen.records import Section
from ..boxes import Box, Index, Region, area, blocks, shape_of
from ..displacement.displacement import Displacement
from ..errors import InputError
from ..geometry.grid import Grid
from ..geometry.plane import Plane
from ..resampling.coverage import inside_image
from ..resampling.weights import TAPS
from ..transforms import compose
from . import stack_kernels
from .alignment import AlignedSections, check_fields, plane_of
from .depth_intervals import FILLS, MAX_GAP, depth_intervals
from .stack_kernels import Placement

#: Each costs about a millisecond before anything is fetched.
_MOST_CHUNKS = 1_000_000


@dataclass(frozen=True, eq=False)
class Stack:
    """The sections of one dataset over the voxels of a grid.

    Attributes
    ----------
    grid : Grid
    imaged : ImagedSections
        In order of depth, and the whole image of each at its tier.
    depth_row : ndarray, float64, shape (4,)
        Depth (um) = depth_row . (z, y, x, 1), for voxel indices.
    affines : ndarray, float64, shape (sections, 2, 4)
        Pixel (X, Y) of the tier = affines[s] . (z, y, x, 1), for voxel indices; NaN for a section with a field.
    edges, nearest, neighbour : ndarray
        Intervals of depth [edges[j], edges[j + 1]): the section that fills each, and the one blended in; -1 none.
    taps : int
        Pixels that the interpolation within an image takes along an axis; see `atlaszarr.resampling.weights`.
    fields : mapping of int to callable
        By section, what replaces its affine: region to (X, Y), float64, shape (2, z, y, x), of length 1 across the
        plane of section.
    """

    grid: Grid
    imaged: ImagedSections
    depth_row: NDArray[np.float64]
    affines: NDArray[np.float64]
    edges: NDArray[np.float64]
    nearest: NDArray[np.int32]
    neighbour: NDArray[np.int32]
    taps: int
    fields: Mapping[int, Callable[[Region], NDArray[np.float64]]] = field(default_factory=dict)

    @property
    def sections(self) -> tuple[Section, ...]:
        """In order of depth."""
        return self.imaged.sections

    @property
    def requests(self) -> tuple[ImageRequest, ...]:
        """The whole image of each section, at its tier."""
        return self.imaged.requests

    @cached_property
    def tiers(self) -> tuple[TierImage, ...]:
        """How the image of each section is fetched: whole, or in windows if it is too large."""
        return tuple(map(tier_image, self.sections, self.requests))

    @cached_property
    def depths(self) -> NDArray[np.float64]:
        """Depth of each section, in um."""
        return np.array([section.depth for section in self.sections])

    @cached_property
    def ids(self) -> NDArray[np.uint32]:
        """SectionImage id of each section."""
        return np.array([section.image_id for section in self.sections], dtype=np.uint32)

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """(width, height) of each section's tier image, shape (sections, 2)."""
        return np.array([(request.width, request.height) for request in self.requests], dtype=np.int64)

    def sections_by_chunk(self, side: int) -> dict[Index, tuple[int, ...]]:
        """Cut the grid into chunks, and find the sections that each samples.

        Parameters
        ----------
        side : int
            Of a chunk, in voxels.

        Returns
        -------
        dict of tuple of int to tuple of int
            Sections by chunk index, without the chunks that sample none.

        Raises
        ------
        InputError
            If there are more chunks than one build can keep track of.
        """
        count = math.prod(-(-n // side) for n in self.grid.shape)
        if count > _MOST_CHUNKS:
            raise InputError(
                f"resolution {self.grid.resolution:g} um makes {count:,} chunks, more than {_MOST_CHUNKS:,}; "
                "ask for a coarser resolution or larger chunks"
            )
        cubes = list(blocks(self.grid.shape, side))
        with ThreadPoolExecutor() as threads:
            found = threads.map(lambda cube: self.sampled(cube[1]), cubes)
        return {index: sections for (index, _), sections in zip(cubes, found, strict=True) if sections}

    def sampled(self, region: Region) -> tuple[int, ...]:
        """The sections that a block samples: exactly those, by the arithmetic of the sampling itself."""
        placement, boxes = self._placed(region)
        candidate = np.zeros(len(self.sections), bool)
        candidate[list(boxes)] = True
        sampled = np.zeros_like(candidate)
        if boxes:
            start, shape = _start(region), np.array(shape_of(region), dtype=np.int64)
            stack_kernels.find_sampled(start, shape, placement, self.nearest, self.neighbour, candidate, sampled)
        return tuple(int(s) for s in np.flatnonzero(sampled))

    def displacement(self, region: Region) -> NDArray[np.float64]:
        """Where each voxel of a block lies in the image of the section that fills it.

        Returns
        -------
        ndarray, float64, shape (2, z, y, x)
            (X, Y) in FULL-RESOLUTION pixels of the section image; NaN where no section is.
        """
        out = np.empty((2, *shape_of(region)))
        section = np.empty(out.shape[1:], np.int32)
        stack_kernels.field(_start(region), self._placed(region)[0], self.nearest, section, out)
        pixel = np.array([2.0**request.downsample for request in self.requests])[section]
        return np.asarray((out + 0.5) * pixel - 0.5)

    def needs(self, region: Region, sections: Sequence[int]) -> tuple[ImageRequest, ...]:
        """The images, or windows of them, that a block takes from the sections that it samples."""
        boxes = self.boxes(region)
        return tuple(request for s in sections for request in self.tiers[s].requests(boxes[s]))

    def compute(
        self, region: Region, images: Sequence[SectionImage | MissingImage], background: int = 0
    ) -> tuple[Pixels, NDArray[np.uint32]]:
        """Compute a block from the images that it `needs`; where one is missing, its section's voxels stay empty.

        See `pull_back` for what is returned.
        """
        fetched = pixels_of(images)
        return self.pull_back(region, lambda section, box: self.tiers[section].crop(box, fetched), background)

    def pull_back(
        self, region: Region, crop: Callable[[int, Box], Pixels | None], background: int = 0
    ) -> tuple[Pixels, NDArray[np.uint32]]:
        """Compute a block from pixels.

        Parameters
        ----------
        region : tuple of slice
            The block, in voxel indices of the grid.
        crop : callable
            Given the index of a section and a box of its tier image, the pixels there: uint8, (height, width, 3). None
            for an image that is missing, which leaves its voxels empty, or that the block does not sample. Called
            once for each of `boxes`, one after another.
        background : int
            Grey level where no section is.

        Returns
        -------
        image : ndarray, uint8, shape (3, z, y, x)
        section : ndarray, uint32, shape (z, y, x)
            SectionImage id that made each voxel; 0 where none.
        """
        shape = shape_of(region)
        image = np.full((3, *shape), background, np.uint8)
        label = np.zeros(shape, np.uint32)
        placement, boxes = self._placed(region)
        crops = np.zeros((len(self.sections), 4), np.int64)
        sizes = np.zeros_like(self.sizes)
        flat = np.empty((sum(map(area, boxes.values())), 3), np.uint8)
        end = 0
        for s, box in boxes.items():
            if (pixels := crop(s, box)) is not None:
                start, end = end, end + area(box)
                flat[start:end] = pixels.reshape(-1, 3)
                left, top, right, _ = box
                crops[s] = start, left, top, right - left
                sizes[s] = self.sizes[s]
        if end == 0:
            return image, label
        stack_kernels.pull_back(
            _start(region), placement._replace(sizes=sizes), self.nearest, self.neighbour,
            self.depths, self.ids, flat, crops, self.taps, image, label,
        )  # fmt: skip
        return image, label

    def boxes(self, region: Region) -> dict[int, Box]:
        """The pixels that `pull_back` takes for a block, from the tier image of every section that it could sample."""
        return self._placed(region)[1]

    def _placed(self, region: Region) -> tuple[Placement, dict[int, Box]]:
        """The `Placement` of the sections over a block, and all the pixels that it could sample of each."""
        corners = np.array([(*corner, 1.0) for corner in product(*((s.start, s.stop - 1) for s in region))])
        depth = corners @ self.depth_row
        # The corners bound the block but for rounding, which a micron and a pixel of margin cover.
        first, last = np.searchsorted(self.edges, [depth.min() - 1.0, depth.max() + 1.0], side="right")
        reached = slice(max(first - 1, 0), last)
        sections = sorted({*self.nearest[reached].tolist(), *self.neighbour[reached].tolist()} - {-1})
        fields = {s: self.fields[s](region) for s in sections if s in self.fields}
        boxes = {}
        margin = max(self.taps // 2, 1)
        for s in sections:
            width, height = self.sizes[s].tolist()
            xy = fields[s][:, inside_image(fields[s], (width, height))] if s in fields else self.affines[s] @ corners.T
            if not xy.size:
                continue
            low = np.maximum(np.floor(xy.min(axis=1)).astype(int) - margin, 0)
            high = np.minimum(np.floor(xy.max(axis=1)).astype(int) + margin + 2, self.sizes[s])
            if (low < high).all():
                boxes[s] = (int(low[0]), int(low[1]), int(high[0]), int(high[1]))
        field_of = np.full(len(self.sections), -1, np.int32)
        field_of[list(fields)] = np.arange(len(fields))
        stacked = np.stack(list(fields.values())) if fields else np.empty((0, 2, 1, 1, 1))
        return Placement(self.depth_row, self.edges, self.sizes, self.affines, field_of, stacked), boxes


def stack_sections(
    aligned: AlignedSections,
    *,
    fill: str = "nearest",
    max_gap: float = MAX_GAP,
    interpolation: str = "linear",
    displacement: Mapping[int, Displacement] | None = None,
) -> Stack:
    """Lay sections over the grid that they are aligned with.

    Parameters
    ----------
    aligned : AlignedSections
    fill : str
        ``none``: a section fills only its own thickness; ``nearest``: every voxel takes the section nearest in
        depth; ``linear``: that one blended with its neighbour on the voxel's other side. In a gap wider than
        `max_gap`, and at both ends, a section fills half a nominal interval and no more.
    max_gap : float
        The widest gap between two sections that is bridged, in nominal intervals (the most common step of depth
        between neighbouring sections): at least 1, finite. ``nearest`` gives each section its half of the gap,
        ``linear`` blends across all of it, ``none`` ignores it. With 2.5, one missing section is bridged.
    interpolation : str
        Within the plane of the section: ``nearest`` (of two equally near pixels the even one), ``linear``, ``cubic``
        (a = -3/4) or ``lanczos`` (8 x 8 pixels).
    displacement : mapping of int to Displacement, optional
        By SectionImage id, fields that replace the alignment within the plane of section: from pixel
        (column, row) of the plane, over the whole of the grid's, to pixel (X, Y) of the section's tier image. Depth
        alone decides which section fills a voxel.

    Raises
    ------
    InputError
        If an option is not known or does not fit the dataset.
    """
    if fill not in FILLS:
        raise InputError(f"fill {fill!r} is not known; choose from {', '.join(FILLS)}")
    if not 1 <= max_gap < math.inf:
        raise InputError(
            f"max_gap {max_gap:g} must be finite and at least 1: sections one nominal interval apart are neighbours; "
            "give a large number to bridge every gap"
        )
    if interpolation not in TAPS:
        raise InputError(f"interpolation {interpolation!r} is not known; choose from {', '.join(TAPS)}")
    dataset, grid, sections = aligned.dataset, aligned.grid, aligned.imaged.sections
    to_plane = compose(aligned.to_section, grid.to_reference)
    fields: dict[int, Callable[[Region], NDArray[np.float64]]] = {}
    if displacement:
        plane = plane_of(dataset)
        check_fields(displacement, dataset, plane, grid)
        for s, section in enumerate(sections):
            if section.image_id in displacement:
                fields[s] = partial(_over, plane, displacement[section.image_id])
    affines = np.array([compose(to_tier, to_plane[:2]) for to_tier in aligned.to_tiers])
    affines[list(fields)] = np.nan
    edges, nearest, neighbour = depth_intervals(
        [section.depth for section in sections], dataset.section_thickness, dataset.nominal_interval, fill, max_gap
    )
    return Stack(
        grid=grid,
        imaged=aligned.imaged,
        depth_row=to_plane[2],
        affines=affines,
        edges=edges,
        nearest=nearest,
        neighbour=neighbour,
        taps=TAPS[interpolation],
        fields=fields,
    )


def _over(plane: Plane, field: Displacement, region: Region) -> NDArray[np.float64]:
    """A field over a plane at the voxels of a region, the same wherever across the plane they lie."""
    rows, columns = plane.rows, plane.columns
    xy = field.coordinates(region[rows], region[columns])
    return np.expand_dims(xy if rows < columns else xy.swapaxes(1, 2), 1 + plane.fixed)


def _start(region: Region) -> NDArray[np.int64]:
    return np.array([axis.start for axis in region], dtype=np.int64)

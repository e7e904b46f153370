"""A stack of sections over a grid: which section shows which voxel, and where in its image. No I/O.

The volume way to register: every voxel of the grid is pulled back through the full 3-D and 2-D affines to
(x, y, depth) and takes the section nearest in depth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product

import numpy as np
from numpy.typing import NDArray

from ..allen.images import ImagedSections, ImageRequest, Pixels
from ..allen.records import Section
from ..boxes import Box, Region, area, shape_of
from ..displacement.displacement import Displacement
from ..errors import InputError
from ..geometry.grid import Grid
from ..resampling.coverage import covered
from ..resampling.weights import TAPS
from ..transforms import compose
from . import stack_kernels
from .alignment import AlignedSections
from .depth_intervals import FILLS, MAX_GAP, depth_intervals
from .stack_kernels import Placement
from .user_fields import PlaneField, plane_fields


@dataclass(frozen=True, eq=False)
class Stack:
    """The sections of one dataset, as the voxels of a grid see them.

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
    fields : mapping of int to PlaneField
        By section, a field that says so in place of an affine.
    """

    grid: Grid
    imaged: ImagedSections
    depth_row: NDArray[np.float64]
    affines: NDArray[np.float64]
    edges: NDArray[np.float64]
    nearest: NDArray[np.int32]
    neighbour: NDArray[np.int32]
    taps: int
    fields: Mapping[int, PlaneField] = field(default_factory=dict)

    @property
    def sections(self) -> tuple[Section, ...]:
        """In order of depth."""
        return self.imaged.sections

    @property
    def requests(self) -> tuple[ImageRequest, ...]:
        """The whole image of each section, at its tier."""
        return self.imaged.requests

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

    def shown(self, region: Region) -> tuple[int, ...]:
        """The sections that a block samples: exactly those, by the arithmetic of the sampling itself."""
        place, boxes = self._placed(region)
        candidate = np.zeros(len(self.sections), bool)
        candidate[list(boxes)] = True
        shown = np.zeros_like(candidate)
        if boxes:
            start, shape = _start(region), np.array(shape_of(region), dtype=np.int64)
            stack_kernels.find_shown(start, shape, place, self.nearest, self.neighbour, candidate, shown)
        return tuple(int(s) for s in np.flatnonzero(shown))

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

    def pull_back(
        self, region: Region, crop: Callable[[int, Box], Pixels | None], background: int = 0
    ) -> tuple[Pixels, NDArray[np.uint32]]:
        """Compute a block.

        Parameters
        ----------
        region : tuple of slice
            The block, in voxel indices of the grid.
        crop : callable
            Given the index of a section and a box of its tier image, the pixels there: uint8, (height, width, 3). None
            for an image that could not be had, which leaves its voxels empty, or that the block does not show. Asked
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
        place, boxes = self._placed(region)
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
            _start(region), place._replace(sizes=sizes), self.nearest, self.neighbour,
            self.depths, self.ids, flat, crops, self.taps, image, label,
        )  # fmt: skip
        return image, label

    def boxes(self, region: Region) -> dict[int, Box]:
        """The pixels that `pull_back` takes for a block, of the tier image of every section that it could show."""
        return self._placed(region)[1]

    def _placed(self, region: Region) -> tuple[Placement, dict[int, Box]]:
        """How the sections lie to a block, and for every one it could show all the pixels that it could sample."""
        corners = np.array([(*corner, 1.0) for corner in product(*((s.start, s.stop - 1) for s in region))])
        depth = corners @ self.depth_row
        # The corners bound the block but for rounding, which a micron and a pixel of margin cover.
        first, last = np.searchsorted(self.edges, [depth.min() - 1.0, depth.max() + 1.0], side="right")
        reached = slice(max(first - 1, 0), last)
        sections = sorted({*self.nearest[reached].tolist(), *self.neighbour[reached].tolist()} - {-1})
        fields = {s: self.fields[s].over(region) for s in sections if s in self.fields}
        boxes = {}
        margin = max(self.taps // 2, 1)
        for s in sections:
            width, height = self.sizes[s].tolist()
            xy = fields[s][:, covered(fields[s], (width, height))] if s in fields else self.affines[s] @ corners.T
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
        between neighbouring sections): at least 1, finite. ``nearest`` gives each its half of the gap, ``linear``
        blends across all of it, ``none`` ignores it. With 2.5, one missing section is bridged.
    interpolation : str
        Within the plane of the section: ``nearest`` (of two equally near pixels the even one), ``linear``, ``cubic``
        (a = -3/4) or ``lanczos`` (8 x 8 pixels).
    displacement : mapping of int to Displacement, optional
        By SectionImage id, fields that take the place of the alignment within the plane of section: from pixel
        (column, row) of the plane, over the whole of the grid's, to pixel (X, Y) of the section's tier image. Which
        section fills a voxel is decided by depth as ever.

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
    given = plane_fields(displacement or {}, dataset, grid)
    fields = {s: given[one.image_id] for s, one in enumerate(sections) if one.image_id in given}
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


def _start(region: Region) -> NDArray[np.int64]:
    return np.array([axis.start for axis in region], dtype=np.int64)

"""A stack of sections over a 3-D grid: the section and the image pixel of each voxel. No I/O.

Each voxel of the grid is mapped through the 3-D and 2-D alignments to (x, y, depth) and takes its value from the
section nearest in depth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import pairwise, product

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
from ..resampling.sampler import validate_names
from ..transforms import compose
from . import stack_kernels
from .alignment import AlignedSections, plane_of, validate_chunk_count
from .stack_kernels import StackGeometry

FILLS = ("none", "nearest", "linear")
#: The widest gap that is filled, in nominal intervals: one missing section is bridged, two are not.
MAX_GAP = 2.5


@dataclass(frozen=True, eq=False)
class Stack:
    """The sections of one dataset, stacked over the voxels of a grid.

    Attributes
    ----------
    grid : Grid
    imaged : ImagedSections
        The sections in order of depth, with the whole image of each at its tier.
    depth_row : ndarray, float64, shape (4,)
        Depth (um) = depth_row . (z, y, x, 1), for voxel indices.
    affines : ndarray, float64, shape (sections, 2, 4)
        Pixel (X, Y) of the tier image = affines[s] . (z, y, x, 1), for voxel indices; of a section with a field, what
        is added to it.
    edges, nearest, neighbour : ndarray
        Depth intervals [edges[j], edges[j + 1]), the section that fills each, and the section to blend with, or -1.
    support : int
        Pixels along an axis that the interpolation uses; see `atlaszarr.resampling.weights`.
    fields : mapping of int to callable
        Fields of sections: region to (X, Y), float64, shape (2, z, y, x), of length 1 across the plane of section.
    """

    grid: Grid
    imaged: ImagedSections
    depth_row: NDArray[np.float64]
    affines: NDArray[np.float64]
    edges: NDArray[np.float64]
    nearest: NDArray[np.int32]
    neighbour: NDArray[np.int32]
    support: int
    fields: Mapping[int, Callable[[Region], NDArray[np.float64]]] = field(default_factory=dict)

    @property
    def sections(self) -> tuple[Section, ...]:
        """The sections in order of depth."""
        return self.imaged.sections

    @property
    def requests(self) -> tuple[ImageRequest, ...]:
        """The whole image of each section, at its tier."""
        return self.imaged.requests

    @cached_property
    def tiers(self) -> tuple[TierImage, ...]:
        """The image of each section as it is fetched: whole, or in windows if it is large."""
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
        """List the sections that each chunk of the grid samples.

        Parameters
        ----------
        side : int
            Side of a chunk, in voxels.

        Returns
        -------
        dict of tuple of int to tuple of int
            Sections by chunk index; chunks that sample no section are left out.

        Raises
        ------
        InputError
            If there are more than a million chunks.
        """
        validate_chunk_count(math.prod(-(-n // side) for n in self.grid.shape), self.grid.resolution)
        if self.fields:
            # In order of depth, so that a field is read once even if not all of them are kept.
            chunks = sorted(
                blocks(self.grid.shape, side), key=lambda chunk: float(self.depth_row[:3] @ _start(chunk[1]))
            )
            with ThreadPoolExecutor() as threads:
                found = threads.map(self.sampled, (cube for _, cube in chunks))
                return {index: sections for (index, _), sections in zip(chunks, found, strict=True) if sections}
        slabs = range(-(-self.grid.shape[0] // side))
        known: dict[bytes, tuple[int, ...]] = {}  # few sets of sections, each shared by many chunks
        sections_of: dict[Index, tuple[int, ...]] = {}
        with ThreadPoolExecutor() as threads:
            for first, sampled in zip(slabs, threads.map(partial(self._sampled_slab, side), slabs), strict=True):
                for j, k in np.argwhere(sampled.any(axis=2)).tolist():
                    sections = sampled[j, k]
                    key = sections.tobytes()
                    if key not in known:
                        known[key] = tuple(np.flatnonzero(sections).tolist())
                    sections_of[first, j, k] = known[key]
        return sections_of

    def _sampled_slab(self, side: int, first: int) -> NDArray[np.bool_]:
        """The sections that the chunks of a slab sample: bool, shape (chunks along y, chunks along x, sections)."""
        _, rows, columns = self.grid.shape
        sampled = np.zeros((-(-rows // side), -(-columns // side), len(self.sections)), np.bool_)
        shape = np.array(self.grid.shape, dtype=np.int64)
        geometry = self._geometry_of({})
        stack_kernels.find_sampled_chunks(first, side, shape, geometry, self._margin, sampled)
        return sampled

    def sampled(self, region: Region) -> tuple[int, ...]:
        """The indices of the sections that a block samples: exact, by the arithmetic of the sampling."""
        geometry, boxes = self._geometry(region)
        candidate = np.zeros(len(self.sections), bool)
        candidate[list(boxes)] = True
        sampled = np.zeros_like(candidate)
        if boxes:
            start, shape = _start(region), np.array(shape_of(region), dtype=np.int64)
            stack_kernels.find_sampled(start, shape, geometry, candidate, sampled)
        return tuple(int(s) for s in np.flatnonzero(sampled))

    def displacement(self, region: Region) -> NDArray[np.float64]:
        """The position of each voxel of a block in the image of the section that fills it.

        Returns
        -------
        ndarray, float64, shape (2, z, y, x)
            (X, Y) in FULL-RESOLUTION pixels of the section image; NaN for a voxel without a section.
        """
        out = np.empty((2, *shape_of(region)))
        section = np.empty(out.shape[1:], np.int32)
        stack_kernels.field(_start(region), self._geometry(region)[0], section, out)
        pixel = np.array([2.0**request.downsample for request in self.requests])[section]
        offset = np.array([request.offset for request in self.requests]).T[:, section]
        return np.asarray((out + 0.5) * pixel - 0.5 + offset)

    def needs(self, region: Region, sections: Sequence[int]) -> tuple[ImageRequest, ...]:
        """The images, or windows of images, that a block needs from the sections that it samples."""
        boxes = self.boxes(region)
        return tuple(request for s in sections for request in self.tiers[s].requests(boxes[s]))

    def compute(
        self, region: Region, images: Sequence[SectionImage | MissingImage], background: int = 0
    ) -> tuple[Pixels, NDArray[np.uint32]]:
        """Compute a block from the images that it `needs`; voxels of a missing image stay empty.

        Returns the same as `pull_back`.
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
            Takes the index of a section and a box of its tier image; returns the pixels in the box, uint8,
            (height, width, 3), or None for an image that is missing, whose voxels stay empty, or that the block does
            not sample. Called once for each of `boxes`, one after another.
        background : int
            Grey level of voxels without a section.

        Returns
        -------
        image : ndarray, uint8, shape (3, z, y, x)
        section : ndarray, uint32, shape (z, y, x)
            SectionImage id of each voxel; 0 for a voxel without a section.
        """
        shape = shape_of(region)
        image = np.full((3, *shape), background, np.uint8)
        label = np.zeros(shape, np.uint32)
        geometry, boxes = self._geometry(region)
        crops = np.zeros((len(self.sections), 5), np.int64)
        sizes = np.zeros_like(self.sizes)
        flat = np.empty((sum(map(area, boxes.values())), 3), np.uint8)
        end = 0
        for s, box in boxes.items():
            if (pixels := crop(s, box)) is not None:
                start, end = end, end + area(box)
                flat[start:end] = pixels.reshape(-1, 3)
                crops[s] = start, *box
                sizes[s] = self.sizes[s]
        if end == 0:
            return image, label
        stack_kernels.pull_back(
            _start(region), geometry._replace(sizes=sizes),
            self.depths, self.ids, flat, crops, self.support, image, label,
        )  # fmt: skip
        return image, label

    def boxes(self, region: Region) -> dict[int, Box]:
        """The box of the tier image that `pull_back` needs, for each section that a block could sample."""
        return self._geometry(region)[1]

    def _geometry(self, region: Region) -> tuple[StackGeometry, dict[int, Box]]:
        """The geometry of the sections over a block, and the box of each that the block could sample."""
        corners = np.array([(*corner, 1.0) for corner in product(*((s.start, s.stop - 1) for s in region))])
        depth = corners @ self.depth_row
        # The corners bound the block up to rounding; margins of 1 um and 1 pixel allow for it.
        first, last = np.searchsorted(self.edges, [depth.min() - 1.0, depth.max() + 1.0], side="right")
        reached = slice(max(first - 1, 0), last)
        sections = sorted({*self.nearest[reached].tolist(), *self.neighbour[reached].tolist()} - {-1})
        fields = {s: self.fields[s](region) for s in sections if s in self.fields}
        boxes = {}
        margin = self._margin
        for s in sections:
            xy = self.affines[s] @ corners.T
            if s in fields:
                xy = self._extent(fields[s], xy, s)
            if not xy.size:
                continue
            low = np.maximum(np.floor(xy.min(axis=1)).astype(int) - margin, 0)
            high = np.minimum(np.floor(xy.max(axis=1)).astype(int) + margin + 2, self.sizes[s])
            if (low < high).all():
                boxes[s] = (int(low[0]), int(low[1]), int(high[0]), int(high[1]))
        return self._geometry_of(fields), boxes

    def _extent(self, field: NDArray[np.float64], added: NDArray[np.float64], section: int) -> NDArray[np.float64]:
        """Two points (X, Y) that bound the points of a field inside the image, given what is added to it at corners.

        Returns
        -------
        ndarray, float64, shape (2, 2)
            X and Y of each; of length 0 if all points are outside.
        """
        low, high = added.min(axis=1), added.max(axis=1)
        width, height = (self.sizes[section] + np.ceil(high - low)).tolist()
        inside = inside_image(field + high.reshape(2, *(1,) * (field.ndim - 1)), (width, height))
        x, y = (part[inside] for part in field)  # one by one: both at once would not be contiguous
        if not x.size:
            return np.empty((2, 0))
        return np.array([[x.min() + low[0], x.max() + high[0]], [y.min() + low[1], y.max() + high[1]]])

    def _geometry_of(self, fields: Mapping[int, NDArray[np.float64]]) -> StackGeometry:
        """The geometry of the sections, with fields over a block."""
        field_of = np.full(len(self.sections), -1, np.int32)
        field_of[list(fields)] = np.arange(len(fields))
        stacked = np.ascontiguousarray(np.stack(list(fields.values()))) if fields else np.empty((0, 2, 1, 1, 1))
        return StackGeometry(
            self.depth_row, self.edges, self.nearest, self.neighbour, self.sizes, self.affines, field_of, stacked
        )

    @property
    def _margin(self) -> int:
        """Pixels around a voxel's point that the interpolation uses."""
        return max(self.support // 2, 1)


def validate_fill(fill: str, max_gap: float) -> None:
    """Raise InputError if `fill` or `max_gap` of `stack_sections` is not valid."""
    if fill not in FILLS:
        raise InputError(f"fill {fill!r} is not known; choose from {', '.join(FILLS)}", code="unknown-value")
    if not 1 <= max_gap < math.inf:
        raise InputError(
            f"max_gap {max_gap:g} must be finite and at least 1; give a large number to fill every gap",
            code="out-of-range",
        )


def stack_sections(
    aligned: AlignedSections,
    *,
    fill: str = "nearest",
    max_gap: float = MAX_GAP,
    interpolation: str = "linear",
) -> Stack:
    """Make a stack of sections over the grid that they are aligned with.

    Parameters
    ----------
    aligned : AlignedSections
    fill : str
        ``none``: a section fills only its own thickness. ``nearest``: a voxel takes the section nearest in depth.
        ``linear``: the nearest section is blended with the section on the other side of the voxel. In a gap wider
        than `max_gap`, and at both ends of the stack, a section fills half a nominal interval.
    max_gap : float
        The widest gap between two sections that is filled, in nominal intervals (the most common step of depth
        between neighbouring sections): at least 1, finite. ``nearest`` gives each section half of the gap,
        ``linear`` blends across all of it, ``none`` ignores `max_gap`. With 2.5, one missing section is bridged.
    interpolation : str
        Interpolation within the image: ``nearest`` (the even one of two equally near pixels), ``linear``, ``cubic``
        (a = -3/4) or ``lanczos`` (8 x 8 pixels).

    Raises
    ------
    InputError
        If an option is unknown or does not fit the dataset.
    """
    validate_fill(fill, max_gap)
    support, _ = validate_names(interpolation, "constant")
    dataset, grid, sections = aligned.dataset, aligned.grid, aligned.imaged.sections
    to_plane = compose(aligned.to_section, grid.to_reference)
    affines = np.array([compose(to_tier, to_plane[:2]) for to_tier in aligned.to_tiers])
    fields: dict[int, Callable[[Region], NDArray[np.float64]]] = {}
    if aligned.fields is not None:
        plane = plane_of(dataset).as_stored
        pixels, within = aligned.pixels(plane), [plane.columns, plane.rows, 3]
        for s, section in enumerate(sections):
            field = aligned.fields.displacement(section.image_id, pixels, affines[s][:, within])
            if field is not None:
                fields[s] = partial(_field_over, plane, field)
                # Across the plane, the alignment is followed; within it, the field has replaced it.
                affines[s][:, within if aligned.fields.follows_tilt else slice(None)] = 0.0
    edges, nearest, neighbour = depth_intervals(
        [section.depth for section in sections], dataset.thickness, dataset.nominal_interval, fill, max_gap
    )
    return Stack(grid, aligned.imaged, to_plane[2], affines, edges, nearest, neighbour, support, fields)


def _field_over(plane: Plane, field: Displacement, region: Region) -> NDArray[np.float64]:
    """A field of a plane, as stored, at the voxels of a region: (X, Y), float64, of length 1 across the plane."""
    return np.expand_dims(field.coordinates(region[plane.rows], region[plane.columns]), 1 + plane.fixed)


def depth_intervals(
    depths: list[float], thickness: float, nominal: float, fill: str, max_gap: float = MAX_GAP
) -> tuple[NDArray[np.float64], NDArray[np.int32], NDArray[np.int32]]:
    """Divide the depth axis into intervals, each filled by one section.

    Parameters
    ----------
    depths : list of float
        Depths of the sections in ascending order, in um.
    thickness, nominal : float
        Section thickness and nominal interval, in um.
    fill, max_gap
        See `stack_sections`. Gaps within a millionth of a nominal interval of `max_gap` are filled, since depths are
        rounded products.

    Returns
    -------
    edges : ndarray, float64, shape (m + 1,)
        Interval j is [edges[j], edges[j + 1]).
    nearest, neighbour : ndarray, int32, shape (m,)
        The section that fills each interval, and the section to blend with; -1 for none.
    """
    reach = (thickness if fill == "none" else nominal) / 2
    intervals: list[tuple[float, int, int]] = []
    widest = thickness if fill == "none" else (max_gap + 1e-6) * nominal
    joined = [b - a <= widest for a, b in pairwise(depths)]
    for s, depth in enumerate(depths):
        before, after = s > 0 and joined[s - 1], s + 1 < len(depths) and joined[s]
        low = (depths[s - 1] + depth) / 2 if before else depth - reach
        high = (depth + depths[s + 1]) / 2 if after else depth + reach
        if fill == "linear":
            intervals += [(low, s, s - 1 if before else -1), (depth, s, s + 1 if after else -1)]
        else:
            intervals.append((low, s, -1))
        if not after:
            intervals.append((high, -1, -1))
    edges, nearest, neighbour = zip(*intervals, strict=True)
    return np.array(edges), np.array(nearest[:-1], np.int32), np.array(neighbour[:-1], np.int32)


def _start(region: Region) -> NDArray[np.int64]:
    return np.array([axis.start for axis in region], dtype=np.int64)

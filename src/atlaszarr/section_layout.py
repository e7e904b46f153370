"""What a build of registered sections is made of: planes over one grid, each an image, fetched whole or in windows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from . import metadata
from .allen.decoded import pixels_of
from .allen.images import ImagedSections, ImageRequest, MissingImage, SectionImage
from .allen.records import SectionDataset
from .allen.windows import TierImage, tier_image
from .boxes import Box
from .collection import Collection, member_pyramid
from .encoding import Encoding
from .errors import RecordError
from .grid import Grid, Region, shape_of
from .layout import DISPLACEMENT, IMAGE, SECTION, image_spec, section_spec
from .multiscale import ArraySpec, Blocks
from .occupancy import Occupancy
from .ome import displacement_field, zarr_format
from .planes import SectionPlanes
from .pyramid import Index, Pyramid, everywhere
from .request import SectionsRequest
from .section_field import field_in_mm, image_frame
from .store import Target

#: Bytes a pixel while it is computed: two coordinates, each with temporaries, the image, the label.
_WORKING = 80
#: And for its field: three components of float64, and what they are made from.
_FIELD_WORKING = 2 * 3 * 8
#: Of one level: the mean of coordinates is not at the centre of a voxel that lies over the edge.
_FIELD = ArraySpec(DISPLACEMENT, "float64", ("c", "z", "y", "x"), 3, math.nan, levels=1)


@dataclass(frozen=True)
class SectionSource:
    """Makes the blocks of registered sections, on any worker.

    Attributes
    ----------
    planes : SectionPlanes
    tiers : tuple of TierImage
        How the image of each section is fetched.
    background : int
    displacement : bool
        Whether the fields are wanted too.
    """

    planes: SectionPlanes
    tiers: tuple[TierImage, ...]
    background: int
    displacement: bool

    def compute(self, region: Region, images: Sequence[SectionImage | MissingImage]) -> Blocks:
        """A block of one plane from the windows that it shows; empty where one of them could not be had."""
        section, rows, columns = region[0].start, *region[1:]
        box = self.planes.box(section, rows, columns)
        pixels = None if box is None else self.tiers[section].crop(box, pixels_of(images))
        image, shown = self.planes.register(section, rows, columns, box, pixels, self.background)
        label = np.where(shown, np.uint32(self.planes.imaged.sections[section].image_id), np.uint32(0))
        blocks = {IMAGE: np.ascontiguousarray(np.moveaxis(image, 2, 0)[:, np.newaxis]), SECTION: label[np.newaxis]}
        if self.displacement:
            blocks[DISPLACEMENT] = field_in_mm(self.planes, section, rows, columns)[:, np.newaxis]
        return blocks


@dataclass(frozen=True)
class SectionLayout:
    """Everything about a build of registered sections that follows from the records and the request alone.

    Attributes
    ----------
    dataset : SectionDataset
    request : SectionsRequest
    planes : SectionPlanes
    pyramid : Pyramid
        Of the stack of planes (section, rows, columns).
    tiers : tuple of TierImage
        How the image of each section is fetched.
    occupancy : Occupancy
        The objects that hold anything.
    """

    dataset: SectionDataset
    request: SectionsRequest
    planes: SectionPlanes
    pyramid: Pyramid
    tiers: tuple[TierImage, ...]
    occupancy: Occupancy

    @classmethod
    def of(cls, dataset: SectionDataset, request: SectionsRequest) -> SectionLayout:
        """Lay a dataset out as a request has it.

        Raises
        ------
        RecordError
            If no section shows anything.
        """
        planes = request.planes(dataset)
        pyramid = request.pyramid(planes)
        level = pyramid.levels[0]
        boxes: list[list[Box]] = [[] for _ in planes.displacements]
        base = set()
        for unit in level.units(everywhere(level.shape)):
            section, rows, columns = level.region(unit)
            if (box := planes.box(section.start, rows, columns)) is not None:
                boxes[section.start].append(box)
                base.add(unit)
        if not base:
            raise RecordError(
                f"no section of dataset {dataset.id} shows a pixel of reference space {planes.grid.space.id} "
                f"at {planes.grid.resolution:g} um; try a finer resolution or another space"
            )
        imaged = planes.imaged
        tiers = tuple(map(tier_image, imaged.sections, imaged.requests, boxes))
        return cls(dataset, request, planes, pyramid, tiers, Occupancy(pyramid, frozenset(base)))

    @property
    def grid(self) -> Grid:
        """What it is registered to."""
        return self.planes.grid

    @property
    def imaged(self) -> ImagedSections:
        """The sections and their images."""
        return self.planes.imaged

    @property
    def source(self) -> SectionSource:
        """What makes its blocks."""
        return SectionSource(self.planes, self.tiers, self.request.background, self.request.displacement)

    @property
    def extent(self) -> str:
        """What it will be, in words."""
        sections, rows, columns = self.pyramid.shape
        plane, levels = self.planes.plane.name, len(self.pyramid.levels)
        return f"{sections} {plane} planes of {rows} x {columns} pixels, {levels} levels"

    def multiscale(self, target: Target) -> Collection:
        """The images, the labels that say where they come from, and the fields, in a target."""
        arrays = (image_spec(self.request.background), section_spec(), *((_FIELD,) * self.request.displacement))
        encoding = Encoding(zarr_format=zarr_format(self.request.ome_zarr))
        return Collection(target, arrays, self.occupancy, encoding, fixed=self.planes.plane.fixed)

    def blocks(self) -> list[Index]:
        """The blocks of level 0, section by section."""
        return sorted(self.occupancy.blocks(self.pyramid.passes[0]))

    def requests(self, block: Index) -> tuple[ImageRequest, ...]:
        """The windows that a block of level 0 shows."""
        return self._requests[block]

    def block_bytes(self, block: Index) -> int:
        """What computing a block holds in memory at most."""
        pixels, windows = math.prod(shape_of(self._region(block))), self.requests(block)
        largest: int = max(request.width * request.height for request in windows)
        return pixels * (_WORKING + _FIELD_WORKING * self.request.displacement) + 3 * largest * (len(windows) + 1)

    def groups(self) -> dict[str, dict[str, Any]]:
        """What OME-Zarr has to say of each group: those of the images, and of the collection."""
        version, title, fixed = self.request.ome_zarr, metadata.title(self.dataset), self.planes.plane.fixed
        pyramid = member_pyramid(self.pyramid, fixed)
        groups: dict[str, dict[str, Any]] = {}
        sections = zip(self.imaged.sections, self.planes.coordinates, strict=True)
        for member, (section, coordinate) in enumerate(sections):
            geometry = metadata.plane_geometry(self.grid, fixed, coordinate, self.dataset.section_thickness)
            name = f"{title}, section {section.section_number}"
            groups[f"{member}/{SECTION}"] = metadata.provenance(version, geometry, pyramid, [section])
            groups[f"{member}/labels"] = {"labels": ["section"]}
            if self.request.displacement:
                field = displacement_field(version, f"{name}, displacement", geometry, pyramid)
                frame = image_frame(self.planes, member, self.dataset.section_thickness)
                groups[f"{member}/{DISPLACEMENT}"] = {**field, "atlaszarr": {"image": frame}}
            groups[f"{member}"] = metadata.image(version, geometry, pyramid, name)
        groups["OME"] = {"series": list(map(str, range(len(self.tiers))))}
        groups[""] = {"bioformats2raw.layout": 3}
        return groups

    def columns(self) -> dict[str, list[Any]]:
        """What there is to say of each section beyond its image."""
        windows = [math.prod(tier.windows) for tier in self.tiers]
        paths = list(map(str, range(len(self.tiers))))
        return {"path": paths, "coordinate_um": self.planes.coordinates.tolist(), "windows": windows}

    @cached_property
    def _requests(self) -> dict[Index, tuple[ImageRequest, ...]]:
        found = {}
        for block in self.blocks():
            section, rows, columns = self._region(block)
            box = self.planes.box(section.start, rows, columns)
            found[block] = () if box is None else tuple(self.tiers[section.start].requests(box))
        return found

    def _region(self, block: Index) -> Region:
        return self.pyramid.region(self.pyramid.passes[0], block)

"""What a build of a volume is made of: the stack of sections over the grid, cut into chunks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from . import metadata
from .allen.images import ImagedSections, ImageRequest, MissingImage, SectionImage
from .allen.records import SectionDataset
from .allen.windows import TierImage
from .boxes import area
from .encoding import Encoding
from .errors import RecordError
from .grid import Grid, Region, shape_of
from .layout import IMAGE, SECTION, image_spec, section_spec
from .multiscale import Blocks, Multiscale
from .occupancy import Occupancy
from .ome import zarr_format
from .pyramid import Index, Pyramid, cells
from .request import VolumeRequest
from .stack import Stack
from .store import Target
from .volume import Volume, compute_block

_VOXEL_BYTES = 3 + 4


@dataclass(frozen=True)
class VolumeSource:
    """Makes the blocks of a volume, on any worker.

    Attributes
    ----------
    stack : Stack
    tiers : tuple of TierImage
        How the image of each section is fetched.
    background : int
    """

    stack: Stack
    tiers: tuple[TierImage, ...]
    background: int

    def compute(self, region: Region, images: Sequence[SectionImage | MissingImage]) -> Blocks:
        """A block of level 0 from the images that it shows."""
        image, section = compute_block(self.stack, self.tiers, region, images, self.background)
        return {IMAGE: image, SECTION: section}


@dataclass(frozen=True)
class VolumeLayout:
    """Everything about a build of a volume that follows from the records and the request alone.

    Attributes
    ----------
    dataset : SectionDataset
    request : VolumeRequest
    volume : Volume
    pyramid : Pyramid
    """

    dataset: SectionDataset
    request: VolumeRequest
    volume: Volume
    pyramid: Pyramid

    @classmethod
    def of(cls, dataset: SectionDataset, request: VolumeRequest) -> VolumeLayout:
        """Lay a dataset out as a request has it.

        Raises
        ------
        RecordError
            If no section lies within the grid.
        """
        stack = request.stack(dataset)
        pyramid = request.pyramid(stack)
        volume = Volume.cut(stack, request.chunk)
        if not volume.shown:
            raise RecordError(
                f"no section of dataset {dataset.id} shows a voxel of reference space {stack.grid.space.id} "
                f"at {stack.grid.resolution:g} um; try a finer resolution or another space"
            )
        return cls(dataset, request, volume, pyramid)

    @property
    def grid(self) -> Grid:
        """What it is registered to."""
        return self.volume.stack.grid

    @property
    def imaged(self) -> ImagedSections:
        """The sections and their images."""
        return self.volume.stack.imaged

    @property
    def source(self) -> VolumeSource:
        """What makes its blocks."""
        return VolumeSource(self.volume.stack, self.volume.tiers, self.request.background)

    @cached_property
    def occupancy(self) -> Occupancy:
        """The objects that hold anything."""
        chunk, (a, b, c) = self.volume.chunk, self.pyramid.levels[0].unit
        base = {(z * chunk // a, y * chunk // b, x * chunk // c) for z, y, x in self.volume.shown}
        return Occupancy(self.pyramid, frozenset(base))

    @property
    def extent(self) -> str:
        """What it will be, in words."""
        return f"{' x '.join(map(str, self.pyramid.shape))} voxels, {len(self.pyramid.levels)} levels"

    def multiscale(self, target: Target) -> Multiscale:
        """The image and the label that says where it comes from, in a target."""
        arrays = (image_spec(self.request.background), section_spec())
        return Multiscale(target, arrays, self.occupancy, Encoding(zarr_format=zarr_format(self.request.ome_zarr)))

    def blocks(self) -> list[Index]:
        """The blocks of level 0, in the order of the section stack."""
        return sorted(self.occupancy.blocks(self.pyramid.passes[0]), key=lambda index: (self._sections(index), index))

    def requests(self, block: Index) -> tuple[ImageRequest, ...]:
        """The images, or windows of them, that a block of level 0 shows."""
        return self._requests[block]

    def block_bytes(self, block: Index) -> int:
        """What computing a block holds: itself and its coarser levels, parts of images, and one decoded image."""
        region = self._region(block)
        parts = 3 * sum(map(area, self.volume.stack.boxes(region).values()))
        image: int = max(3 * request.width * request.height for request in self.requests(block))
        return math.prod(shape_of(region)) * _VOXEL_BYTES * 9 // 8 + parts + image

    def groups(self) -> dict[str, dict[str, Any]]:
        """What OME-Zarr has to say of each group."""
        version, geometry = self.request.ome_zarr, metadata.geometry(self.grid)
        return {
            SECTION: metadata.provenance(version, geometry, self.pyramid, self.imaged.sections),
            "labels": {"labels": ["section"]},
            IMAGE: metadata.image(version, geometry, self.pyramid, metadata.title(self.dataset)),
        }

    def columns(self) -> dict[str, list[Any]]:
        """Nothing more to say of each section."""
        return {}

    @cached_property
    def _requests(self) -> dict[Index, tuple[ImageRequest, ...]]:
        return {block: self.volume.requests(self._region(block), self._sections(block)) for block in self.blocks()}

    def _region(self, block: Index) -> Region:
        return self.pyramid.region(self.pyramid.passes[0], block)

    def _sections(self, block: Index) -> tuple[int, ...]:
        chunks = cells(self._region(block), (self.volume.chunk,) * 3)
        return tuple(sorted({s for chunk in chunks for s in self.volume.shown.get(chunk, ())}))

"""What a build has to know of any layout of a dataset, and the arrays that all of them have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from .allen.images import ImagedSections, ImageRequest, SectionImage
from .allen.records import SectionDataset
from .grid import Grid, Region
from .multiscale import ArraySpec, Blocks, Multiscale
from .occupancy import Occupancy
from .pyramid import Index, Pyramid
from .request import Request
from .store import Target

#: Paths of the arrays: the image, the label that says which section image made each voxel, and the field.
IMAGE, SECTION, DISPLACEMENT = "", "labels/section", "displacement"


class Source(Protocol):
    """Makes blocks of level 0, on any worker."""

    def compute(self, region: Region, images: Mapping[ImageRequest, SectionImage]) -> Blocks:
        """A block from the images that it shows, as far as they could be had."""
        ...


class Layout(Protocol):
    """Everything about a build that follows from the records and the request alone."""

    @property
    def dataset(self) -> SectionDataset:
        """What is built."""
        ...

    @property
    def request(self) -> Request:
        """How."""
        ...

    @property
    def grid(self) -> Grid:
        """What it is registered to."""
        ...

    @property
    def imaged(self) -> ImagedSections:
        """The sections and their images."""
        ...

    @property
    def source(self) -> Source:
        """What makes its blocks."""
        ...

    @property
    def pyramid(self) -> Pyramid:
        """Its levels."""
        ...

    @property
    def occupancy(self) -> Occupancy:
        """The objects that hold anything."""
        ...

    @property
    def extent(self) -> str:
        """What it will be, in words."""
        ...

    def multiscale(self, target: Target) -> Multiscale:
        """Its arrays in a target."""
        ...

    def blocks(self) -> list[Index]:
        """The blocks of level 0, in an order in which neighbours show the same images."""
        ...

    def requests(self, block: Index) -> tuple[ImageRequest, ...]:
        """The images, or windows of them, that a block of level 0 shows."""
        ...

    def block_bytes(self, block: Index) -> int:
        """What computing a block holds in memory at most."""
        ...

    def groups(self) -> Mapping[str, Mapping[str, Any]]:
        """What OME-Zarr has to say of each group, by its path."""
        ...

    def columns(self) -> Mapping[str, list[Any]]:
        """What there is to say of each section beyond its image, by column."""
        ...


def image_spec(background: int) -> ArraySpec:
    """Red, green and blue; coarser levels are the mean of what a section image covers."""
    return ArraySpec(IMAGE, "uint8", ("c", "z", "y", "x"), 3, background, rule="mean", mask=SECTION)


def section_spec() -> ArraySpec:
    """SectionImage id that made each voxel; 0 where none."""
    return ArraySpec(SECTION, "uint32", rule="mode_of_nonzero")

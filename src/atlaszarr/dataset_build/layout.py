"""What a build has to know of a dataset, whatever it makes of it, and the arrays that are always there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..allen.images import ImagedSections, ImageRequest, MissingImage, SectionImage
from ..allen.records import SectionDataset
from ..boxes import Index, Region
from ..engine.codecs import Encoding
from ..engine.collection import Collection
from ..engine.multiscale import ArraySpec, Blocks, Multiscale
from ..engine.ome import zarr_format
from ..engine.pyramid import Occupancy
from ..geometry.grid import Grid
from ..sections.options import Options
from ..stores.target import Target

#: Paths of the arrays: the image, the label that says which section image made each voxel, and the field.
IMAGE, SECTION, DISPLACEMENT = "", "labels/section", "displacement"


#: Makes a block of level 0 on any worker: given its region, and the images that it shows.
Source = Callable[[Region, Sequence[SectionImage | MissingImage]], Blocks]


@dataclass(frozen=True)
class Layout:
    """Everything about a build that follows from the records and the request alone.

    Attributes
    ----------
    dataset : SectionDataset
    request : Options
    grid : Grid
        What it is registered to.
    imaged : ImagedSections
        The sections and their images.
    source : callable
        See `Source`; picklable.
    occupancy : Occupancy
        The objects that hold anything.
    shows : mapping of tuple of int to tuple of ImageRequest
        The images, or windows of them, that each block of level 0 shows; neighbours show the same.
    block_bytes : int
        What computing a block holds in memory at most.
    arrays : tuple of ArraySpec
    groups : mapping
        What OME-Zarr has to say of each group, by its path; see `atlaszarr.engine.job.ImageJob`.
    extent : str
        What it will be, in words.
    columns : mapping of str to list
        What there is to say of each section beyond its image.
    fixed : int or None
        Of a collection of planes, the axis (z, y, x) across them.
    """

    dataset: SectionDataset
    request: Options
    grid: Grid
    imaged: ImagedSections
    source: Source
    occupancy: Occupancy
    shows: Mapping[Index, tuple[ImageRequest, ...]]
    block_bytes: int
    arrays: tuple[ArraySpec, ...]
    groups: Mapping[str, Mapping[str, Any]]
    extent: str
    columns: Mapping[str, list[Any]] = field(default_factory=dict)
    fixed: int | None = None

    def multiscale(self, target: Target) -> Multiscale:
        """Its arrays in a target."""
        encoding = Encoding(zarr_format=zarr_format(self.request.ome_zarr))
        if self.fixed is None:
            return Multiscale(target, self.arrays, self.occupancy, encoding)
        return Collection(target, self.arrays, self.occupancy, encoding, fixed=self.fixed)


def image_spec(background: int) -> ArraySpec:
    """Red, green and blue; coarser levels are the mean of what a section image covers."""
    return ArraySpec(IMAGE, "uint8", ("c", "z", "y", "x"), 3, background, rule="mean", mask=SECTION)


def section_spec() -> ArraySpec:
    """SectionImage id that made each voxel; 0 where none."""
    return ArraySpec(SECTION, "uint32", rule="mode_of_nonzero")

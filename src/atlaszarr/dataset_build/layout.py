"""The layout of a build, whatever its mode: its arrays, its blocks and the images that they are computed from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..allen.images import ImagedSections, ImageRequest, MissingImage, SectionImage
from ..allen.records import SectionDataset
from ..allen.slide_images import SlideImage
from ..boxes import Index, Region
from ..engine.array_layout import Encoding
from ..engine.blocks import Block, BlockSource
from ..engine.collection import Collection
from ..engine.multiscale import ArraySpec, Blocks, Multiscale
from ..engine.ome import zarr_format
from ..engine.pyramid import NonEmptyChunks
from ..engine.schedulers import Future
from ..errors import RecordError
from ..geometry.grid import Grid
from ..geometry.spaces import ORIENTATION
from ..sections.fields import SectionFields
from ..sections.options import Options
from ..stores.target import Target

#: Paths of the arrays: the image, the label with the id of the section image of each voxel, the displacement field.
IMAGE, SECTION, DISPLACEMENT = "", "labels/section", "displacement"


@dataclass(frozen=True)
class BuildLayout:
    """Everything about the build of one view that its records and options determine.

    Attributes
    ----------
    dataset : SectionDataset
        With the depths of its records.
    options : Options
    grid : Grid
        The grid that the sections are registered to.
    imaged : ImagedSections
        The sections, at the depths that `fields` corrects, and their images.
    source : callable
        Computes blocks of level 0 from section images, see `atlaszarr.engine.blocks.BlockSource`; can be pickled.
    non_empty : NonEmptyChunks
        The chunks and blocks that hold data.
    inputs : mapping of tuple of int to tuple of ImageRequest
        The images, or windows of images, that each block of level 0 is computed from. Blocks with the same images
        follow one another.
    block_bytes : int
        Upper limit of the memory that a block takes while it is computed.
    arrays : tuple of ArraySpec
    groups : mapping
        OME-Zarr metadata of each group, by its path; see `atlaszarr.engine.job.ImageJob`.
    extent : str
        The shape and the number of levels in words.
    columns : mapping of str to list
        Further columns of sections.csv, one value for each of `imaged.sections`.
    files : mapping of str to bytes
        Further sidecars, by key.
    fixed : int or None
        For a collection of planes, the axis (z, y, x) across them.
    sides : str
        The orientation of x in the metadata: that of the Allen Institute, or of the atlas that the target belongs to.
    changes : mapping
        What the voxels depend on besides the options and the records, as JSON values: a user's own steps.
    together : callable, optional
        Sorts blocks of level 0 into groups that are computed in one call, see `atlaszarr.engine.job.ImageJob`.
    fields : SectionFields or None
        What registers sections beyond their records.
    held : callable
        Futures that a region of level 0 depends on, see `atlaszarr.engine.job.ImageJob`.
    """

    dataset: SectionDataset
    options: Options
    grid: Grid
    imaged: ImagedSections
    source: BlockSource
    non_empty: NonEmptyChunks
    inputs: Mapping[Index, tuple[ImageRequest, ...]]
    block_bytes: int
    arrays: tuple[ArraySpec, ...]
    groups: Mapping[str, Mapping[str, Any]]
    extent: str
    columns: Mapping[str, list[Any]] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    fixed: int | None = None
    sides: str = ORIENTATION["x"]
    changes: Mapping[str, Any] = field(default_factory=dict)
    together: Callable[[Sequence[Index]], Sequence[Sequence[Index]]] | None = None
    held: Callable[[Region], Sequence[Future]] = lambda _: ()
    fields: SectionFields | None = None

    @property
    def request(self) -> dict[str, Any]:
        """Everything that the bytes of the target depend on, as JSON values."""
        sides = {} if self.sides == ORIENTATION["x"] else {"sides": self.sides}
        return {**self.options.identity(self.dataset, self.fields), **sides, **self.changes}

    @property
    def images(self) -> set[ImageRequest]:
        """The images, or windows of images, of all blocks."""
        return {request for requests in self.inputs.values() for request in requests}

    def multiscale(self, target: Target) -> Multiscale:
        """The arrays in a target."""
        encoding = Encoding(zarr_format=zarr_format(self.options.ome_zarr))
        if self.fixed is None:
            return Multiscale(target, self.arrays, self.non_empty, encoding)
        return Collection(target, self.arrays, self.non_empty, encoding, fixed=self.fixed)


def no_section(dataset: SectionDataset, grid: Grid, fields: SectionFields | None) -> RecordError:
    """The error of a dataset of which no section is inside the grid."""
    advice = "try a finer resolution"
    if fields is not None:
        advice += ", or build without fields: they may lead outside the images, or their depths outside the grid"
    return RecordError(
        f"no section of dataset {dataset.id} samples a voxel of reference space {grid.space.id} "
        f"at {grid.resolution:g} um; {advice}",
        code="no-section-in-grid",
    )


def image_spec(background: int, grey: bool = False) -> ArraySpec:
    """Red, green and blue, or their mean; a voxel of a coarser level is the mean of those inside a section image."""
    if grey:
        return ArraySpec(IMAGE, "uint8", fill=background, rule="mean", mask=SECTION)
    return ArraySpec(IMAGE, "uint8", ("c", "z", "y", "x"), 3, background, rule="mean", mask=SECTION)


def channels_of(grey: bool) -> dict[str, Any]:
    """The argument of `records.image` for an image in colour or grey."""
    return {"channels": None} if grey else {}


def grey_of(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The mean of red, green and blue, rounded to the nearest whole number; a third is never half-way between two.

    It is the mean of the rounded channels, so that a grey target equals the mean of the colour target of the same
    options.

    Parameters
    ----------
    image : ndarray, uint8, shape (3, ...)

    Returns
    -------
    ndarray, uint8, shape (...)
    """
    total: NDArray[np.uint16] = image.sum(axis=0, dtype=np.uint16)
    total += 1
    total //= 3
    return total.astype(np.uint8)


def section_spec() -> ArraySpec:
    """The id of the section image that each voxel is sampled from; 0 for background."""
    return ArraySpec(SECTION, "uint32", rule="mode_of_nonzero")


def block_of(values: Blocks, images: Sequence[SectionImage | MissingImage]) -> Block:
    """A block of level 0 with the digests of its images for the ledger, and notes of those that are missing."""
    digests = {image.request.name: image.sha256 if isinstance(image, SectionImage) else None for image in images}
    missing = {image.request.name: image for image in images if isinstance(image, MissingImage)}
    etags = {image.request.name: image.etag for image in images if isinstance(image, SlideImage)}
    return Block(values, {"images": digests, **({"etags": etags} if etags else {})}, missing)

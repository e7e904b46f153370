"""The layout of a volume: the stack of sections over a 3-D grid, cut into chunks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from ..allen.images import ImageRequest, MissingImage, SectionImage
from ..allen.records import SectionDataset
from ..boxes import Region, area, cells, shape_of
from ..engine.blocks import Block
from ..engine.pyramid import NonEmptyChunks
from ..geometry.spaces import ORIENTATION
from ..sections.fields import SectionFields
from ..sections.options import VolumeOptions
from ..sections.stack import Stack
from . import records
from .layout import IMAGE, SECTION, BuildLayout, block_of, channels_of, grey_of, image_spec, no_section, section_spec

_VOXEL_BYTES = 3 + 4
#: Further bytes per voxel while the mean of the channels is computed: their sum, as uint16, and the mean.
_GREY_BYTES = 2 + 1
#: Bytes per pixel of the field of a section: its points, once alone and once among those of all sections.
_FIELD_BYTES = 2 * 2 * 8


def volume_layout(
    dataset: SectionDataset,
    options: VolumeOptions,
    fields: SectionFields | None = None,
    sides: str = ORIENTATION["x"],
) -> BuildLayout:
    """The layout of a dataset as one volume; `sides` is the orientation of x in its metadata.

    Raises
    ------
    RecordError
        If no section is inside the grid.
    """
    stack = options.stack(dataset, fields)
    pyramid, grid = options.pyramid(stack.grid.shape), stack.grid
    chunks = stack.sections_by_chunk(options.chunk)
    if not chunks:
        raise no_section(dataset, grid, fields)
    a, b, c = pyramid.levels[0].unit
    base = {(z * options.chunk // a, y * options.chunk // b, x * options.chunk // c) for z, y, x in chunks}
    non_empty = NonEmptyChunks(pyramid, frozenset(base))
    step, geometry = pyramid.passes[0], records.geometry(grid, sides)
    regions = {block: pyramid.region(step, block) for block in non_empty.blocks(step)}
    sections = {
        block: sorted({s for chunk in cells(region, (options.chunk,) * 3) for s in chunks.get(chunk, ())})
        for block, region in regions.items()
    }
    inputs = {
        block: stack.needs(regions[block], sections[block])
        for block in sorted(sections, key=lambda block: (sections[block], block))
    }
    return BuildLayout(
        dataset=dataset,
        options=options,
        grid=grid,
        imaged=stack.imaged,
        source=partial(_block, stack, options.background, options.grey),
        non_empty=non_empty,
        inputs=inputs,
        block_bytes=max(
            _bytes(stack, regions[block], images, options.grey, fields) for block, images in inputs.items()
        ),
        arrays=(image_spec(options.background, options.grey), section_spec()),
        groups={
            SECTION: records.provenance(
                options.ome_zarr, geometry, pyramid, stack.imaged.sections, records.recorded_depths(dataset)
            ),
            "labels": {"labels": ["section"]},
            IMAGE: records.image(
                options.ome_zarr, geometry, pyramid, records.title(dataset), **channels_of(options.grey)
            ),
        },
        extent=f"{' x '.join(map(str, pyramid.shape))} voxels, {len(pyramid.levels)} levels",
        sides=sides,
        fields=fields,
    )


def _block(
    stack: Stack,
    background: int,
    grey: bool,
    _level: int,
    region: Region,
    images: Sequence[SectionImage | MissingImage],
) -> Block:
    image, section = stack.compute(region, images, background)
    return block_of({IMAGE: grey_of(image) if grey else image, SECTION: section}, images)


def _bytes(
    stack: Stack, region: Region, images: Sequence[ImageRequest], grey: bool, fields: SectionFields | None
) -> int:
    """Memory of a block while it is computed: the block, its coarser levels, parts of images, one decoded image.

    With fields, also the points of all sections, and what is held while those of one are computed.
    """
    boxes, shape = stack.boxes(region), shape_of(region)
    parts = 3 * sum(map(area, boxes.values()))
    image: int = max(3 * request.width * request.height for request in images)
    voxel = _VOXEL_BYTES + _GREY_BYTES * grey
    points = 0
    if fields is not None:
        pixel = _FIELD_BYTES * len(stack.fields.keys() & boxes.keys()) + fields.working(stack.grid.resolution)
        points = math.ceil(math.prod(shape) // min(shape) * pixel)
    return math.prod(shape) * voxel * 9 // 8 + parts + image + points

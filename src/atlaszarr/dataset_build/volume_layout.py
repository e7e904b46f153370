"""What a build of a volume is made of: the stack of sections over the grid, cut into chunks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial

from ..allen.images import ImageRequest, MissingImage, SectionImage
from ..allen.records import SectionDataset
from ..boxes import Index, Region, area, cells, shape_of
from ..engine.multiscale import Blocks
from ..engine.pyramid import Occupancy
from ..errors import RecordError
from ..sections.options import VolumeOptions
from ..sections.stack import Stack
from . import records
from .layout import IMAGE, SECTION, Layout, image_spec, section_spec

_VOXEL_BYTES = 3 + 4


def volume_layout(dataset: SectionDataset, request: VolumeOptions) -> Layout:
    """Lay a dataset out as one volume.

    Raises
    ------
    RecordError
        If no section lies within the grid.
    """
    stack = request.stack(dataset)
    pyramid, grid = request.pyramid(stack), stack.grid
    chunks = stack.sections_by_chunk(request.chunk)
    if not chunks:
        raise RecordError(
            f"no section of dataset {dataset.id} shows a voxel of reference space {grid.space.id} "
            f"at {grid.resolution:g} um; try a finer resolution or another space"
        )
    a, b, c = pyramid.levels[0].unit
    base = {(z * request.chunk // a, y * request.chunk // b, x * request.chunk // c) for z, y, x in chunks}
    occupancy = Occupancy(pyramid, frozenset(base))
    step, geometry = pyramid.passes[0], records.geometry(grid)
    sections = {
        block: _sections(chunks, request.chunk, pyramid.region(step, block)) for block in occupancy.blocks(step)
    }
    shows = {
        block: stack.needs(pyramid.region(step, block), sections[block])
        for block in sorted(sections, key=lambda block: (sections[block], block))
    }
    return Layout(
        dataset=dataset,
        request=request,
        grid=grid,
        imaged=stack.imaged,
        source=partial(_block, stack, request.background),
        occupancy=occupancy,
        shows=shows,
        block_bytes=max(_bytes(stack, pyramid.region(step, block), images) for block, images in shows.items()),
        arrays=(image_spec(request.background), section_spec()),
        groups={
            SECTION: records.provenance(request.ome_zarr, geometry, pyramid, stack.imaged.sections),
            "labels": {"labels": ["section"]},
            IMAGE: records.image(request.ome_zarr, geometry, pyramid, records.title(dataset)),
        },
        extent=f"{' x '.join(map(str, pyramid.shape))} voxels, {len(pyramid.levels)} levels",
    )


def _block(stack: Stack, background: int, region: Region, images: Sequence[SectionImage | MissingImage]) -> Blocks:
    """A block of level 0 from the images that it shows."""
    image, section = stack.compute(region, images, background)
    return {IMAGE: image, SECTION: section}


def _sections(chunks: Mapping[Index, tuple[int, ...]], side: int, region: Region) -> tuple[int, ...]:
    """The sections that a region samples."""
    return tuple(sorted({s for chunk in cells(region, (side,) * 3) for s in chunks.get(chunk, ())}))


def _bytes(stack: Stack, region: Region, images: Sequence[ImageRequest]) -> int:
    """What computing a block holds: itself and its coarser levels, parts of images, and one decoded image."""
    parts = 3 * sum(map(area, stack.boxes(region).values()))
    image: int = max(3 * request.width * request.height for request in images)
    return math.prod(shape_of(region)) * _VOXEL_BYTES * 9 // 8 + parts + image

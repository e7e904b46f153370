"""What a build of a volume is made of: the stack of sections over the grid, cut into chunks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from ..allen.images import ImageRequest, MissingImage, SectionImage, TierImage
from ..allen.records import SectionDataset
from ..boxes import Region, area, cells, shape_of
from ..engine.multiscale import Blocks
from ..engine.pyramid import Occupancy
from ..errors import RecordError
from ..sections.options import VolumeRequest
from ..sections.stack import Stack
from ..sections.volume import Volume, compute_block
from . import records
from .layout import IMAGE, SECTION, Layout, image_spec, section_spec

_VOXEL_BYTES = 3 + 4


def volume_layout(dataset: SectionDataset, request: VolumeRequest) -> Layout:
    """Lay a dataset out as one volume.

    Raises
    ------
    RecordError
        If no section lies within the grid.
    """
    stack = request.stack(dataset)
    pyramid, grid = request.pyramid(stack), stack.grid
    volume = Volume.cut(stack, request.chunk)
    if not volume.shown:
        raise RecordError(
            f"no section of dataset {dataset.id} shows a voxel of reference space {grid.space.id} "
            f"at {grid.resolution:g} um; try a finer resolution or another space"
        )
    a, b, c = pyramid.levels[0].unit
    base = {(z * volume.chunk // a, y * volume.chunk // b, x * volume.chunk // c) for z, y, x in volume.shown}
    occupancy = Occupancy(pyramid, frozenset(base))
    step, geometry = pyramid.passes[0], records.geometry(grid)
    sections = {block: _sections(volume, pyramid.region(step, block)) for block in occupancy.blocks(step)}
    shows = {
        block: volume.requests(pyramid.region(step, block), sections[block])
        for block in sorted(sections, key=lambda block: (sections[block], block))
    }
    return Layout(
        dataset=dataset,
        request=request,
        grid=grid,
        imaged=stack.imaged,
        source=partial(_block, stack, volume.tiers, request.background),
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


def _block(
    stack: Stack,
    tiers: Sequence[TierImage],
    background: int,
    region: Region,
    images: Sequence[SectionImage | MissingImage],
) -> Blocks:
    """A block of level 0 from the images that it shows, each fetched as its tier says."""
    image, section = compute_block(stack, tiers, region, images, background)
    return {IMAGE: image, SECTION: section}


def _sections(volume: Volume, region: Region) -> tuple[int, ...]:
    """The sections that a region shows."""
    chunks = cells(region, (volume.chunk,) * 3)
    return tuple(sorted({s for chunk in chunks for s in volume.shown.get(chunk, ())}))


def _bytes(stack: Stack, region: Region, images: Sequence[ImageRequest]) -> int:
    """What computing a block holds: itself and its coarser levels, parts of images, and one decoded image."""
    parts = 3 * sum(map(area, stack.boxes(region).values()))
    image: int = max(3 * request.width * request.height for request in images)
    return math.prod(shape_of(region)) * _VOXEL_BYTES * 9 // 8 + parts + image

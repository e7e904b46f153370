"""The layout of registered sections: a collection of planes over one grid, one image each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..allen.images import ImageRequest, MissingImage, SectionImage, TierImage, pixels_of, tier_image
from ..allen.records import Section, SectionDataset
from ..boxes import Box, Region, everywhere, shape_of
from ..engine.blocks import Block
from ..engine.collection import member_pyramid
from ..engine.multiscale import ArraySpec
from ..engine.ome import Geometry, displacement_field
from ..engine.ome_xml import KEY, Described, ome_xml
from ..engine.pyramid import NonEmptyChunks, Pyramid
from ..geometry.plane import PLANES
from ..sections.fields import SectionFields
from ..sections.options import SectionsOptions
from ..sections.planes import SectionPlanes
from . import records
from .layout import (
    DISPLACEMENT,
    IMAGE,
    SECTION,
    BuildLayout,
    block_of,
    channels_of,
    grey_of,
    image_spec,
    no_section,
    section_spec,
)

#: Bytes per pixel while a block is computed: two coordinates, each with temporaries, the image, the label.
_WORKING = 80
#: Bytes per pixel for the field: three components of float64, and temporaries of the same size.
_FIELD_WORKING = 2 * 3 * 8
#: It has one level: the mean of coordinates is not at the centre of a coarser voxel that extends over the edge.
_FIELD = ArraySpec(DISPLACEMENT, "float64", ("c", "z", "y", "x"), 3, math.nan, levels=1)


def section_layout(
    dataset: SectionDataset, options: SectionsOptions, fields: SectionFields | None = None
) -> BuildLayout:
    """The layout of a dataset as a collection of planes, one for each section.

    Raises
    ------
    RecordError
        If no section is inside the grid.
    """
    planes = options.planes(dataset, fields=fields)
    pyramid, imaged = options.pyramid(len(planes.displacements), planes.shape), planes.imaged
    level, step = pyramid.levels[0], pyramid.passes[0]
    boxes: list[list[Box]] = [[] for _ in planes.displacements]
    base = set()
    for unit in level.units(everywhere(level.shape)):
        section, rows, columns = level.region(unit)
        if (box := planes.box(section.start, rows, columns)) is not None:
            boxes[section.start].append(box)
            base.add(unit)
    if not base:
        raise no_section(dataset, planes.grid, fields)
    tiers = tuple(map(tier_image, imaged.sections, imaged.requests, boxes))
    non_empty = NonEmptyChunks(pyramid, frozenset(base))
    groups, images = _groups(dataset, options, planes, member_pyramid(pyramid, planes.plane.fixed))
    inputs = {}
    for block in sorted(non_empty.blocks(step)):
        section, rows, columns = pyramid.region(step, block)
        box = planes.box(section.start, rows, columns)
        inputs[block] = () if box is None else tuple(tiers[section.start].requests(box))
    sections, *sides = pyramid.shape
    return BuildLayout(
        dataset=dataset,
        options=options,
        grid=planes.grid,
        imaged=imaged,
        source=partial(_block, planes, tiers, options.background, options.displacement, options.grey),
        non_empty=non_empty,
        inputs=inputs,
        block_bytes=max(
            _bytes(pyramid.region(step, block), needed, options, fields) for block, needed in inputs.items()
        ),
        arrays=(image_spec(options.background, options.grey), section_spec(), *((_FIELD,) * options.displacement)),
        groups=groups,
        extent=f"{sections} {planes.plane.name} planes of {sides[0]} x {sides[1]} pixels, {len(pyramid.levels)} levels",
        columns={
            "path": list(map(str, range(sections))),
            "coordinate_um": planes.coordinates.tolist(),
            "windows": [math.prod(tier.windows) for tier in tiers],
        },
        files=collection_files(images, **channels_of(options.grey)),
        fixed=planes.plane.fixed,
        fields=fields,
    )


def _block(
    planes: SectionPlanes,
    tiers: Sequence[TierImage],
    background: int,
    displacement: bool,
    grey: bool,
    _level: int,
    region: Region,
    images: Sequence[SectionImage | MissingImage],
) -> Block:
    """A block of one plane, optionally with its field; background where an image is missing."""
    section, rows, columns = region[0].start, *region[1:]
    box = planes.box(section, rows, columns)
    pixels = None if box is None else tiers[section].crop(box, pixels_of(images))
    image, inside = planes.register(section, rows, columns, box, pixels, background)
    label = np.where(inside, np.uint32(planes.imaged.sections[section].image_id), np.uint32(0))
    channels = np.ascontiguousarray(np.moveaxis(image, 2, 0)[:, np.newaxis])
    blocks = {IMAGE: grey_of(channels) if grey else channels, SECTION: label[np.newaxis]}
    if displacement:
        blocks[DISPLACEMENT] = field_in_mm(planes, section, rows, columns)[:, np.newaxis]
    return block_of(blocks, images)


def _bytes(
    region: Region, windows: Sequence[ImageRequest], options: SectionsOptions, fields: SectionFields | None
) -> int:
    """Upper limit of the memory of a block while it is computed."""
    largest: int = max(window.width * window.height for window in windows)
    pixel = _WORKING + _FIELD_WORKING * options.displacement
    if fields is not None:
        pixel += math.ceil(fields.working(options.resolution))
    return math.prod(shape_of(region)) * pixel + 3 * largest * (len(windows) + 1)


def _groups(
    dataset: SectionDataset, options: SectionsOptions, planes: SectionPlanes, pyramid: Pyramid
) -> tuple[dict[str, dict[str, Any]], list[Described]]:
    """OME-Zarr metadata of the images, each of the levels of `pyramid`, and of the collection; and the images."""
    version, title, thickness = options.ome_zarr, records.title(dataset), dataset.thickness
    groups: dict[str, dict[str, Any]] = {}
    images: list[Described] = []
    recorded = records.recorded_depths(dataset)
    for member, (section, coordinate) in enumerate(zip(planes.imaged.sections, planes.coordinates, strict=True)):
        geometry = records.plane_geometry(planes.grid, planes.plane.fixed, coordinate, thickness)
        name = f"{title}, section {section.section_number}"
        channels = channels_of(options.grey)
        groups |= member_groups(version, member, section, name, geometry, pyramid, recorded, **channels)
        images.append(Described(name, pyramid.shape, geometry))
        if options.displacement:
            field = displacement_field(version, f"{name}, displacement", "czyx", geometry, pyramid)
            frame = image_frame(planes, member, thickness)
            groups[f"{member}/{DISPLACEMENT}"] = {**field, "atlaszarr": {"image": frame}}
    return groups | collection_groups(len(planes.displacements)), images


def member_groups(
    version: str,
    member: int,
    section: Section,
    name: str,
    geometry: Geometry,
    pyramid: Pyramid,
    recorded: Mapping[int, float],
    **channels: Any,
) -> dict[str, dict[str, Any]]:
    """OME-Zarr metadata of the image of one section and its label; `channels` as in `records.image`."""
    return {
        f"{member}/{SECTION}": records.provenance(version, geometry, pyramid, [section], recorded),
        f"{member}/labels": {"labels": ["section"]},
        f"{member}": records.image(version, geometry, pyramid, name, **channels),
    }


def collection_groups(members: int) -> dict[str, dict[str, Any]]:
    """OME-Zarr metadata of a collection of images."""
    return {"OME": {"series": list(map(str, range(members)))}, "": {"bioformats2raw.layout": 3}}


def collection_files(
    images: Sequence[Described], channels: Sequence[str] | None = records.RGB, dtype: str = "uint8"
) -> dict[str, bytes]:
    """The sidecar that lists the images of a collection, by key; none for a dtype that it has no name for.

    `channels` and `dtype` are those of `records.image`.
    """
    body = ome_xml(images, dtype, records.coloured(channels))
    return {} if body is None else {KEY: body}


def field_in_mm(planes: SectionPlanes, section: int, rows: slice, columns: slice) -> NDArray[np.float64]:
    """The displacement of the pixels of a block, from their position in the space to their position in the image.

    Returns
    -------
    ndarray, float64, shape (3, rows, columns)
        Components along (z, y, x) in mm; 0 across the plane.
    """
    plane, oriented = planes.plane, PLANES[planes.plane.name]
    frame = image_frame(planes, section, 0.0)
    field = np.zeros((3, rows.stop - rows.start, columns.stop - columns.start))
    x, y = planes.displacements[section].coordinates(rows, columns)
    for axis, pixels in ((oriented.columns, x), (oriented.rows, y)):
        field[axis] = frame["translation"][axis] + frame["scale"][axis] * pixels
    field[plane.rows] -= planes.grid.physical(plane.rows)[rows, np.newaxis]
    field[plane.columns] -= planes.grid.physical(plane.columns)[columns]
    return field


def image_frame(planes: SectionPlanes, section: int, thickness: float) -> dict[str, Any]:
    """The physical frame of a tier image.

    Parameters
    ----------
    planes : SectionPlanes
    section : int
        Position of the section among the planes.
    thickness : float
        Thickness of the section in um.

    Returns
    -------
    dict
        ``axes``: the axis along its rows and the axis along its columns; ``scale`` and ``translation`` along (z, y, x)
        in mm: the size of a pixel, and the centre of the first.
    """
    record, request = planes.imaged.sections[section], planes.imaged.requests[section]
    oriented = PLANES[planes.plane.name]
    pixel = record.resolution / 1000
    scale, translation = [0.0] * 3, [0.0] * 3
    for axis, offset in zip((oriented.columns, oriented.rows), request.offset, strict=True):
        scale[axis] = pixel * 2**request.downsample
        translation[axis] = ((2**request.downsample - 1) / 2 + offset) * pixel
    scale[oriented.fixed] = thickness / 1000
    translation[oriented.fixed] = (planes.coordinates[section] - planes.grid.space.anchor / 2) / 1000
    return {"axes": ["zyx"[oriented.rows], "zyx"[oriented.columns]], "scale": scale, "translation": translation}

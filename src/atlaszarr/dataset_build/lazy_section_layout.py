"""The layout of a Dataset of `open_sections` that is to be written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..allen.images import VIEWS, MissingImage
from ..boxes import Region
from ..engine.blocks import Block
from ..engine.collection import member_pyramid
from ..engine.lazy_arrays import LazyArrays
from ..engine.ome import Geometry
from ..engine.ome_xml import Described
from ..errors import InputError
from ..geometry.grid import Grid
from ..geometry.spaces import AXES
from ..resampling.coverage import inside_image
from ..sections.lazy_sections import opened_views
from ..sections.opened import Opened
from ..sections.options import SectionsOptions
from ..sections.planes import SectionPlanes
from . import records
from .layout import IMAGE, SECTION, section_spec
from .lazy_layout import LazyBuild, LazyLayout, OwnImages, as_dask, lazy_block, values_of
from .section_layout import collection_files, collection_groups, member_groups, section_layout

if TYPE_CHECKING:
    import xarray as xr

#: The variable of each view in a Dataset of `open_sections`.
VARIABLES = {view: "image" if view == "primary" else view for view in VIEWS}


class LazySections(LazyLayout):
    """A Dataset of one view of `open_sections` to write, as a collection of planes."""

    def __init__(self, dataset: xr.Dataset, carried: Opened, options: SectionsOptions) -> None:
        super().__init__(dataset, carried, options)
        self.flat = options
        self.name = VARIABLES[options.view]
        self.variables = (self.name,)

    def build(self, target: str, identity: str | None) -> LazyBuild:
        """Lay out the sections; see `lazy_write.lazy_build`."""
        others = set(VARIABLES.values()).intersection(map(str, self.given.data_vars)) - {self.name}
        if others:
            views = ", ".join(sorted({self.name, *others}))
            raise InputError(
                f"the Dataset has several views, {views}; write them one by one, such as opened[[{self.name!r}]]",
                code="several-views",
            )
        planes = opened_views(self.given)[self.options.view]
        rows, columns = planes.plane.rows, planes.plane.columns
        image = self.variable(self.name)
        if "section" not in image.dims and "image_id" in image.coords and not image.coords["image_id"].ndim:
            image = image.expand_dims("section")  # a single section, as after isel(section=0)
        image, has_channels = self.ordered(image, ("section", "y", "x"), "rgb")
        ids = [int(id) for id in np.atleast_1d(image.coords["image_id"].values)] if "image_id" in image.coords else []
        if len(ids) != image.sizes["section"] or not set(ids) <= set(planes.positions):
            raise InputError(
                "the coordinate 'image_id' is not that of the sections; keep it, without sections that lack the view",
                code="missing-coordinate",
            )
        if repeated := next((id for id, count in Counter(ids).items() if count > 1), None):
            raise InputError(
                f"section image {repeated} is in the Dataset several times; select each section once, and write each "
                "version of it to a target of its own",
                code="duplicate-section",
            )
        geometry, grid = self.geometry(image, {"y": rows, "x": columns}), records.geometry(planes.grid)
        if geometry.scale != grid.scale:
            raise InputError(
                f"the pixels of the Dataset have the size {geometry.scale[rows]:g} x {geometry.scale[columns]:g} "
                f"{geometry.unit}, not {grid.scale[0]:g}; select consecutive pixels, or open the sections at another "
                "resolution",
                code="irregular-grid",
            )
        every = [section.image_id for section in planes.imaged.sections]
        first = _first(image, "y", rows, geometry, planes.grid), _first(image, "x", columns, geometry, planes.grid)
        swapped = rows > columns
        lead = ("rgb",) if has_channels else ()
        stored = image.transpose(*lead, "section", "x", "y") if swapped else image
        arrays = {IMAGE: as_dask(stored)}
        positions = [planes.positions[id] for id in ids]
        label = SectionLabel(planes, tuple(positions), first, swapped)
        if self.is_unchanged(geometry == grid and ids == every):
            return self.as_build(
                section_layout(self.dataset, self.flat, self.carried.fields),
                target,
                arrays,
                partial(_section_block, label),
            )
        shape = image.sizes["section"], *(stored.shape[-2:])
        pyramid = self.flat.pyramid(shape[0], (shape[1], shape[2]))
        spec, version = self.image_spec(stored, has_channels), self.options.ome_zarr
        channels, title, fixed = self.channels(stored, "rgb"), records.title(self.dataset), planes.plane.fixed
        groups: dict[str, Any] = {}
        images: list[Described] = []
        one = member_pyramid(pyramid, fixed)
        path = [""] * len(every)
        for member, position in enumerate(positions):
            section = planes.imaged.sections[position]
            plane = records.plane_geometry(planes.grid, fixed, planes.coordinates[position], self.dataset.thickness)
            z, y, x = (plane.translation[k] if k == fixed else geometry.translation[k] for k in range(3))
            name = f"{title}, section {section.section_number}"
            plane = replace(plane, translation=(z, y, x))
            groups |= member_groups(
                version, member, section, name, plane, one, self.recorded, channels=channels, dtype=spec.dtype
            )
            images.append(Described(name, one.shape, plane))
            path[position] = str(member)
        built = self.lay_out(
            target,
            pyramid,
            arrays,
            (spec, section_spec()),
            partial(_section_block, label),
            groups=groups | collection_groups(len(ids)),
            extent=f"{shape[0]} {planes.plane.name} planes of {shape[1]} x {shape[2]} pixels, {len(one.levels)} levels",
            columns={"path": path, "coordinate_um": planes.coordinates.tolist()},
            files=collection_files(images, channels, spec.dtype),
            changes=self.changes(arrays, identity, {**asdict(geometry), "sections": ids}),
            fixed=fixed,
        )
        counts = Counter(request.image_id for request in {r for images in built.layout.inputs.values() for r in images})
        table = {**built.layout.columns, "windows": [max(counts[id], 1) for id in every]}
        return replace(built, layout=replace(built.layout, columns=table))


@dataclass(frozen=True, eq=False)
class SectionLabel:
    """The label of registered sections: the id of the section image where a pixel is inside it, else 0.

    Attributes
    ----------
    planes : SectionPlanes
    positions : tuple of int
        For each plane of the target, its section among those of `planes`.
    first : tuple of int
        The row and the column of `planes` at the first pixel.
    swapped : bool
        Whether the rows of the target are the columns of `planes`.
    """

    planes: SectionPlanes
    positions: tuple[int, ...]
    first: tuple[int, int]
    swapped: bool

    def over(self, region: Region, missing: Iterable[MissingImage]) -> NDArray[np.uint32]:
        """The label over a region of the stack of planes: uint32, (planes, rows, columns); 0 for missing images."""
        lacking = {image.request.image_id for image in missing}
        axes = (region[2], region[1]) if self.swapped else region[1:]
        rows, columns = (slice(a.start + n, a.stop + n) for a, n in zip(axes, self.first, strict=True))
        labels = []
        for k in range(region[0].start, region[0].stop):
            position = self.positions[k]
            id = self.planes.imaged.sections[position].image_id
            xy = self.planes.displacements[position].coordinates(rows, columns)
            inside = inside_image(xy, self.planes.size(position)) & (id not in lacking)
            labels.append(np.where(inside.T if self.swapped else inside, np.uint32(id), np.uint32(0)))
        return np.stack(labels)


def _first(image: xr.DataArray, axis: str, position: int, geometry: Geometry, grid: Grid) -> int:
    """The index in the grid of the first pixel along an axis, also if the user has moved the coordinates in mm."""
    um = image.coords.get(f"{AXES[position]}_um")
    if um is not None and um.dims in ((), (axis,)):
        return round(float(np.atleast_1d(um.values)[0]) / grid.resolution - 0.5)
    whole = records.geometry(grid)
    return round((geometry.translation[position] - whole.translation[position]) / whole.scale[position])


def _section_block(
    label: SectionLabel,
    lazy: LazyArrays,
    own: OwnImages,
    _level: int,
    region: Region,
    inputs: Sequence[Any],
) -> Block:
    values, images = values_of(lazy, region, inputs)
    values[SECTION] = label.over(region, [image for image in images if isinstance(image, MissingImage)])
    return lazy_block(values, own, images)

"""The layout of a Dataset of `open_volume` or `open_sections`, as it is or after a user's own steps of xarray and dask.

As it is, it has the layout of `build`. After other steps, blocks are computed by the graph of the Dataset; the section
images, which the graph would fetch for every block anew, are fetched by the job and given to the blocks.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..allen.images import VIEWS, ImageRequest, MissingImage, SectionImage
from ..allen.records import SectionDataset
from ..boxes import Index, Region
from ..engine.blocks import Block
from ..engine.chunk_groups import ChunkGroups
from ..engine.collection import member_pyramid
from ..engine.downsampling import Rule
from ..engine.inputs import geometry_of, held_by, identity_of, locations_read, opened
from ..engine.label_counts import distinct
from ..engine.lazy_arrays import LazyArrays
from ..engine.multiscale import ArraySpec
from ..engine.ome import Geometry
from ..engine.pyramid import NonEmptyChunks, Pyramid
from ..errors import ImageError, InputError
from ..geometry.grid import Grid
from ..geometry.spaces import AXES
from ..resampling.coverage import inside_image
from ..sections import FETCHES
from ..sections.lazy_sections import opened_views
from ..sections.missing import Fetcher, fetches_of
from ..sections.opened import Opened
from ..sections.options import Options, SectionsOptions, VolumeOptions
from ..sections.planes import SectionPlanes
from ..stores.locations import overlap, shown
from . import records
from .layout import IMAGE, SECTION, BuildLayout, block_of, section_spec
from .section_layout import collection_groups, member_groups, section_layout
from .volume_layout import volume_layout

if TYPE_CHECKING:
    import xarray as xr

#: Copies of a block that are in memory while it is computed: its chunks, the block, and its coarser levels.
_COPIES = 3
_ZYX = ("z", "y", "x")
#: The variable of each view in a Dataset of `open_sections`.
_VARIABLES = {view: "image" if view == "primary" else view for view in VIEWS}
#: Relative difference between equal lengths: coordinates are float64.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class LazyBuild:
    """How a Dataset is written.

    Attributes
    ----------
    layout : BuildLayout
    fetcher : Fetcher or None
        Fetches the images; None if the graph of the Dataset fetches none, since it is computed.
    api_url : str or None
        The service that the Dataset was opened from, if it is known.
    warning : str
        The warning that chunks of the Dataset are computed several times, or "".
    """

    layout: BuildLayout
    fetcher: Fetcher | None
    api_url: str | None
    warning: str = ""


def lazy_build(dataset: xr.Dataset, target: str, identity: str | None, **written: Any) -> LazyBuild:
    """Lay out a Dataset for a target.

    Parameters
    ----------
    dataset : xarray.Dataset
    target : str
        The URL of the target.
    identity : str, optional
        Identifies the image instead of the name of its dask array.
    **written
        Options of writing: levels, chunk, shard, ome_zarr; None for those with which the Dataset was opened.

    Raises
    ------
    InputError
        If the Dataset lacks what is written, or an option is not valid.
    """
    carried = Opened.of(dataset)
    given = {name: value for name, value in written.items() if value is not None}
    options = type(carried.options).of({**asdict(carried.options), **given})
    if isinstance(options, SectionsOptions):
        views = [view for view, name in _VARIABLES.items() if name in dataset.data_vars]
        if len(views) == 1:  # of those that were opened
            options = replace(options, view=views[0])
        return _Sections(dataset, carried, options).build(target, identity)
    assert isinstance(options, VolumeOptions)
    return _Volume(dataset, carried, options).build(target, identity)


class _Lazy:
    """A Dataset to write. The subclasses give its arrays, in the axes of the target, and its metadata."""

    #: Names of the variables whose dask arrays are compared with those of the opening.
    variables: tuple[str, ...]

    def __init__(self, dataset: xr.Dataset, carried: Opened, options: Options) -> None:
        self.given, self.carried, self.options = dataset, carried, options
        self.dataset: SectionDataset = carried.dataset
        self.aligned = options.aligned(self.dataset)

    def _variable(self, name: str) -> xr.DataArray:
        if name not in self.given.data_vars:
            raise InputError(
                f"the Dataset lacks the variable {name!r}; keep the variables that it was opened with "
                "(opened.assign(image=...) does)",
                code="missing-variable",
            )
        return self.given[name]

    def _ordered(self, array: xr.DataArray, axes: Sequence[str], channels: str) -> tuple[xr.DataArray, bool]:
        """An array in the order of its channels and some axes, and whether it has channels.

        An axis at a scalar coordinate, as after ``isel(z=0)``, has length 1.
        """
        for axis in axes:
            if axis not in array.dims:
                if axis not in array.coords or array.coords[axis].ndim:
                    raise InputError(
                        f"variable {array.name!r} has the axes {', '.join(map(str, array.dims)) or 'none'}, and lacks "
                        f"{axis}; keep it, at least as a scalar coordinate",
                        code="wrong-axes",
                    )
                array = array.expand_dims(axis)
        has_channels = channels in array.dims
        wanted = (channels, *axes) if has_channels else tuple(axes)
        if further := set(array.dims) - set(wanted):
            raise InputError(
                f"variable {array.name!r} has the axis {min(map(str, further))!r}, which is none of "
                f"{', '.join(wanted)}; select one index of it",
                code="wrong-axes",
            )
        if empty := next((axis for axis in wanted if not array.sizes[axis]), None):
            raise InputError(
                f"variable {array.name!r} has no values along {empty}; select at least one index", code="out-of-range"
            )
        return array.transpose(*wanted), has_channels

    def _geometry(self, array: xr.DataArray, along: Mapping[str, int]) -> Geometry:
        """The geometry of an array over axes of the grid, in mm; that of the grid along the others.

        Parameters
        ----------
        array : xarray.DataArray
        along : mapping of str to int
            The axis (0 z, 1 y, 2 x) of the grid for each axis of the array, by its name.
        """
        import xarray as xr

        grid = records.geometry(self.aligned.grid)
        single = [axis for axis in along if array.sizes[axis] == 1 and axis in array.coords]
        if lacking := [axis for axis in along if axis not in array.coords]:
            raise InputError(
                f"variable {array.name!r} lacks the coordinate {lacking[0]!r}; keep it", code="missing-coordinate"
            )
        regular = {_ZYX[k]: array.coords[axis].variable for axis, k in along.items() if axis not in single}
        found = geometry_of(xr.Dataset(coords={axis: (axis, v.values, v.attrs) for axis, v in regular.items()}))
        scale, translation = list(grid.scale), list(grid.translation)
        for axis, position in along.items():
            if axis in single:
                first = float(array.coords[axis].values[0])
            else:
                scale[position], first = found.scale[position], found.translation[position]
            if math.isclose(scale[position], grid.scale[position], rel_tol=_ROUNDING):
                scale[position] = grid.scale[position]
            if abs(first - grid.translation[position]) > _ROUNDING * scale[position]:
                translation[position] = first
        (sz, sy, sx), (tz, ty, tx) = scale, translation
        return Geometry((sz, sy, sx), (tz, ty, tx), found.unit or grid.unit, grid.orientation)

    def _image_spec(self, array: Any, has_channels: bool) -> ArraySpec:
        dtype, background = np.dtype(array.dtype), self.options.background
        if dtype.kind not in "iuf" or dtype.itemsize > 8:
            raise InputError(
                f"dtype {dtype} of the image is not supported; give integers or floating point (astype)",
                code="unsupported-dtype",
            )
        if dtype.kind != "f" and background > np.iinfo(dtype).max:
            raise InputError(
                f"background {background} is not a value of {dtype}; convert the image to a larger dtype",
                code="out-of-range",
            )
        axes = ("c", *_ZYX) if has_channels else _ZYX
        channels = int(array.shape[0]) if has_channels else 1
        rule: Rule = "mean_of_numbers" if dtype.kind == "f" else "mean"
        return ArraySpec(IMAGE, dtype.name, axes, channels, background, rule=rule, mask=SECTION)

    def _channels(self, array: xr.DataArray, axis: str) -> list[str] | None:
        """The names of the channels; None without an axis of channels."""
        if axis not in array.dims:
            return None
        names = array.coords[axis].values.tolist() if axis in array.coords else range(array.sizes[axis])
        return [str(name) for name in names]

    def _changes(self, arrays: Mapping[str, Any], identity: str | None, geometry: Any) -> dict[str, Any]:
        """What another graph would change; see `BuildLayout.changes`."""
        steps = {path or "image": identity_of(array) for path, array in arrays.items()}
        changes = {"steps": {**steps, **({} if identity is None else {"image": identity})}, "geometry": geometry}
        return dict(json.loads(json.dumps(changes)))

    def _lay_out(
        self,
        target: str,
        pyramid: Pyramid,
        arrays: Mapping[str, Any],
        specs: tuple[ArraySpec, ...],
        source: Any,
        **layout: Any,
    ) -> LazyBuild:
        """A layout whose blocks are computed by the graph of the Dataset."""
        empty = BuildLayout(
            dataset=self.dataset,
            options=self.options,
            grid=self.aligned.grid,
            imaged=self.aligned.imaged,
            source=source,
            non_empty=NonEmptyChunks(pyramid),
            inputs={},
            block_bytes=0,
            arrays=specs,
            **layout,
        )
        return self._computed(empty, target, arrays, source, empty.non_empty.blocks(pyramid.passes[0]))

    def _as_build(self, layout: BuildLayout, target: str, arrays: Mapping[str, Any], source: Any) -> LazyBuild:
        """The layout of `build`, whose blocks are computed by the graph only if its values are in memory already."""
        fetcher = self._fetcher(fetches_of(LazyArrays(arrays, {}).tasks))
        if fetcher is None:
            return self._computed(layout, target, arrays, source, layout.inputs)
        return LazyBuild(layout, fetcher, self.carried.api_url)

    def _fetcher(self, fetches: Mapping[Any, tuple[Fetcher, ImageRequest]]) -> Fetcher | None:
        """What fetches the images of the dataset: a step of the user may combine it with another Dataset."""
        own = {FETCHES + name.partition("-")[2] for name in self.carried.arrays.values()}
        ordered = sorted(fetches.items(), key=lambda item: item[0][0] not in own)
        return next((fetch for _, (fetch, _) in ordered), None)

    def _computed(
        self, layout: BuildLayout, target: str, arrays: Mapping[str, Any], source: Any, blocks: Iterable[Index]
    ) -> LazyBuild:
        """A layout with some blocks, computed by the graph of arrays."""
        for array in arrays.values():
            if read := next((url for url in locations_read(array) if overlap(url, target)), None):
                raise InputError(
                    f"target {target} overlaps {shown(read)}, which the Dataset is read from; choose another target",
                    code="target-overlaps-source",
                )
        fetches = fetches_of(LazyArrays(arrays, {}).tasks)
        fetcher = self._fetcher(fetches)
        # The images of another source are fetched by the graph.
        known = {
            key: call
            for key, call in fetches.items()
            if fetcher is not None and call[0].client.images_url == fetcher.client.images_url
        }
        images = {key: request for key, (_, request) in known.items()}
        futures = {key: future for array in arrays.values() for key, future in held_by(array).items()}
        lazy = LazyArrays(arrays, images | {key: key for key in futures})
        ids = {section.image_id: k for k, section in enumerate(self.aligned.imaged.sections)}
        own = {request for request in images.values() if request.image_id in ids and request.view == self.options.view}
        layers = [name for array in arrays.values() for name in array.dask.layers]
        complete = bool(own) and any(name.startswith(FETCHES) for name in layers)

        pyramid = layout.non_empty.pyramid
        step = pyramid.passes[0]
        inputs: dict[Index, tuple[ImageRequest, ...]] = {}
        for block in blocks:
            needs = lazy.needs(pyramid.region(step, block))
            inputs[block] = tuple(name for name in needs if isinstance(name, ImageRequest))
        order = {block: sorted(ids.get(one.image_id, -1) for one in needed) for block, needed in inputs.items()}
        groups = ChunkGroups.of(pyramid, list(arrays.values()), 3)
        voxel = sum(spec.channels * np.dtype(spec.dtype).itemsize for spec in layout.arrays)
        largest = max((3 * request.width * request.height for request in images.values()), default=0)
        sides = (max(b - a for a, b in pairwise(edges)) for edges in groups.edges)
        built = replace(
            layout,
            source=partial(source, lazy, _Own(frozenset(own), complete)),
            inputs={block: inputs[block] for block in sorted(inputs, key=lambda block: (order[block], block))},
            block_bytes=math.prod(sides) * voxel * _COPIES + largest,
            together=None if groups.are_blocks and groups.times == 1 else groups.sort,
            held=lambda region: [futures[name] for name in lazy.needs(region) if name in futures] if futures else [],
        )
        return LazyBuild(built, fetcher, self.carried.api_url, groups.warning() if groups.times > 1 else "")

    def _is_unchanged(self, geometries_agree: bool) -> bool:
        known = self.carried.arrays
        names = {name: getattr(self.given[name].data, "name", None) for name in self.variables}
        return geometries_agree and not self.carried.fields and all(known.get(k) == v for k, v in names.items())


class _Volume(_Lazy):
    variables = ("image", "section")

    def __init__(self, dataset: xr.Dataset, carried: Opened, options: VolumeOptions) -> None:
        super().__init__(dataset, carried, options)
        self.volume = options

    def build(self, target: str, identity: str | None) -> LazyBuild:
        image, has_channels = self._ordered(self._variable("image"), _ZYX, "c")
        section, _ = self._ordered(self._variable("section"), _ZYX, "c")
        if section.dims != _ZYX or section.shape != image.shape[-3:] or section.dtype != np.uint32:
            raise InputError(
                f"variable 'section' has dtype {section.dtype} and shape {section.shape}, but the image has "
                f"{image.shape[-3:]} voxels; it must be the uint32 label of the same voxels (opened.assign(image=...) "
                "keeps it; where() does not)",
                code="invalid-section-label",
            )
        geometry = self._geometry(image, {"z": 0, "y": 1, "x": 2})
        whole = records.geometry(self.aligned.grid)
        arrays = {IMAGE: _as_dask(image), SECTION: _as_dask(section)}
        if self._is_unchanged(geometry == whole):
            return self._as_build(
                volume_layout(self.dataset, self.volume), target, arrays, partial(_volume_block, None)
            )
        z, y, x = section.shape
        pyramid = self.volume.pyramid((z, y, x))
        version, spec = self.options.ome_zarr, self._image_spec(image, has_channels)
        is_own = self.carried.arrays.get("section") == getattr(section.data, "name", None)
        ids = None if is_own else np.unique([section.image_id for section in self.dataset.sections])
        title, channels = records.title(self.dataset), self._channels(image, "c")
        return self._lay_out(
            target,
            pyramid,
            arrays,
            (spec, section_spec()),
            partial(_volume_block, ids),
            groups={
                SECTION: records.provenance(version, geometry, pyramid, self.aligned.imaged.sections),
                "labels": {"labels": ["section"]},
                IMAGE: records.image(version, geometry, pyramid, title, channels, spec.dtype),
            },
            extent=f"{' x '.join(map(str, pyramid.shape))} voxels, {len(pyramid.levels)} levels",
            changes=self._changes(arrays, identity, asdict(geometry)),
        )


class _Sections(_Lazy):
    def __init__(self, dataset: xr.Dataset, carried: Opened, options: SectionsOptions) -> None:
        super().__init__(dataset, carried, options)
        self.flat = options
        self.name = _VARIABLES[options.view]
        self.variables = (self.name,)

    def build(self, target: str, identity: str | None) -> LazyBuild:
        others = set(_VARIABLES.values()).intersection(map(str, self.given.data_vars)) - {self.name}
        if others:
            views = ", ".join(sorted({self.name, *others}))
            raise InputError(
                f"the Dataset has several views, {views}; write them one by one, such as opened[[{self.name!r}]]",
                code="several-views",
            )
        planes = opened_views(self.given)[self.options.view]
        rows, columns = planes.plane.rows, planes.plane.columns
        image = self._variable(self.name)
        if "section" not in image.dims and "image_id" in image.coords and not image.coords["image_id"].ndim:
            image = image.expand_dims("section")  # a single section, as after isel(section=0)
        image, has_channels = self._ordered(image, ("section", "y", "x"), "rgb")
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
        geometry, grid = self._geometry(image, {"y": rows, "x": columns}), records.geometry(planes.grid)
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
        arrays = {IMAGE: _as_dask(stored)}
        positions = [planes.positions[id] for id in ids]
        label = _Label(planes, tuple(positions), first, swapped)
        if self._is_unchanged(geometry == grid and ids == every):
            return self._as_build(
                section_layout(self.dataset, self.flat), target, arrays, partial(_section_block, label)
            )
        shape = image.sizes["section"], *(stored.shape[-2:])
        pyramid = self.flat.pyramid(shape[0], (shape[1], shape[2]))
        spec, version = self._image_spec(stored, has_channels), self.options.ome_zarr
        channels, title, fixed = self._channels(stored, "rgb"), records.title(self.dataset), planes.plane.fixed
        groups: dict[str, Any] = {}
        one = member_pyramid(pyramid, fixed)
        path = [""] * len(every)
        for member, position in enumerate(positions):
            section = planes.imaged.sections[position]
            plane = records.plane_geometry(planes.grid, fixed, planes.coordinates[position], self.dataset.thickness)
            z, y, x = (plane.translation[k] if k == fixed else geometry.translation[k] for k in range(3))
            name = f"{title}, section {section.section_number}"
            plane = replace(plane, translation=(z, y, x))
            groups |= member_groups(version, member, section, name, plane, one, channels=channels, dtype=spec.dtype)
            path[position] = str(member)
        built = self._lay_out(
            target,
            pyramid,
            arrays,
            (spec, section_spec()),
            partial(_section_block, label),
            groups=groups | collection_groups(len(ids)),
            extent=f"{shape[0]} {planes.plane.name} planes of {shape[1]} x {shape[2]} pixels, {len(one.levels)} levels",
            columns={"path": path, "coordinate_um": planes.coordinates.tolist()},
            changes=self._changes(arrays, identity, {**asdict(geometry), "sections": ids}),
            fixed=fixed,
        )
        counts = Counter(request.image_id for request in {r for images in built.layout.inputs.values() for r in images})
        table = {**built.layout.columns, "windows": [max(counts[id], 1) for id in every]}
        return replace(built, layout=replace(built.layout, columns=table))


@dataclass(frozen=True)
class _Own:
    """The images of the dataset and view that is written, among all that its graph fetches.

    Attributes
    ----------
    requests : frozenset of ImageRequest
    complete : bool
        Whether these are all images of the graph: other values are in memory, or dask has fused their fetches with
        other tasks.
    """

    requests: frozenset[ImageRequest]
    complete: bool


@dataclass(frozen=True, eq=False)
class _Label:
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
        axes = region[:0:-1] if self.swapped else region[1:]
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


def _volume_block(
    ids: NDArray[np.int64] | None,
    lazy: LazyArrays,
    own: _Own,
    _level: int,
    region: Region,
    inputs: Sequence[Any],
) -> Block:
    """Compute a block; `ids` are the labels that a section label after a step of the user may hold.

    Raises
    ------
    InputError
        If the section label holds another one, for example because the step multiplied the whole Dataset.
    """
    values, images = _values(lazy, region, inputs)
    if ids is not None and (others := np.setdiff1d(distinct(values[SECTION]), ids)).size:
        raise InputError(
            f"variable 'section' holds {others[-1]}, which is no section image of the dataset; apply the step to the "
            "image alone (opened.assign(image=...))",
            code="invalid-section-label",
        )
    return _block(values, own, images)


def _section_block(
    label: _Label,
    lazy: LazyArrays,
    own: _Own,
    _level: int,
    region: Region,
    inputs: Sequence[Any],
) -> Block:
    values, images = _values(lazy, region, inputs)
    values[SECTION] = label.over(region, [image for image in images if isinstance(image, MissingImage)])
    return _block(values, own, images)


def _values(
    lazy: LazyArrays, region: Region, inputs: Sequence[Any]
) -> tuple[dict[str, NDArray[Any]], list[SectionImage | MissingImage]]:
    """The values of a region, from images and then what `BuildLayout.held` gives; and the images."""
    images = [value for value in inputs if isinstance(value, SectionImage | MissingImage)]
    held = [name for name in lazy.needs(region) if not isinstance(name, ImageRequest)]
    given: dict[Hashable, Any] = {image.request: image for image in images}
    given |= dict(zip(held, inputs[len(images) :], strict=True))
    return lazy.compute(region, given), images


def _block(values: Mapping[str, NDArray[Any]], own: _Own, images: Sequence[SectionImage | MissingImage]) -> Block:
    """A block with the digests of its own images, and the images without a digest that its label names.

    Raises
    ------
    ImageError
        If an image of another Dataset is missing, which a step of the user combines with this one.
    """
    for image in images:
        if isinstance(image, MissingImage) and image.request not in own.requests:
            raise ImageError(
                f"section image {image.request.image_id} ({image.request.view} view), which a step of the Dataset "
                f"needs, is missing: {image.reason}; run the same command to resume",
                code="image-missing",
            )
    block = block_of(values, [image for image in images if image.request in own.requests])
    if own.complete:
        return block
    listed = {image.request.image_id for image in images}
    others = {str(id): "" for id in distinct(values[SECTION]).tolist() if id not in listed}
    return replace(block, origin={"images": {**block.origin["images"], **others}})


def _as_dask(array: xr.DataArray) -> Any:
    import dask.array as da

    opened(array.data)  # its errors
    return da.asarray(array.data)

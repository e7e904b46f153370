"""The layout of a Dataset of `open_volume` or `open_sections` that is to be written: what volumes and sections share.

A Dataset that is not changed has the layout of `build`. After a user's own steps of xarray and dask, the graph of the
Dataset computes the blocks. By itself it would fetch the section images again for every block; so the job fetches each
image once, and gives it to the blocks that depend on it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..allen.images import ImageRequest, MissingImage, SectionImage
from ..allen.records import SectionDataset
from ..boxes import Index, Region
from ..engine.blocks import Block
from ..engine.chunk_groups import ChunkGroups
from ..engine.downsampling import Rule
from ..engine.inputs import geometry_of, held_by, identity_of, locations_read, opened
from ..engine.label_counts import distinct
from ..engine.lazy_arrays import LazyArrays
from ..engine.multiscale import ArraySpec
from ..engine.ome import Geometry, microns_in
from ..engine.pyramid import NonEmptyChunks, Pyramid
from ..errors import ImageError, InputError
from ..sections import FETCHES
from ..sections.missing import Fetcher, fetches_of
from ..sections.opened import Opened
from ..sections.options import Options
from ..stores.locations import overlap, shown
from . import records
from .layout import IMAGE, SECTION, BuildLayout, block_of

if TYPE_CHECKING:
    import xarray as xr

#: Copies of a block that are in memory while it is computed: its chunks, the block, and its coarser levels.
_COPIES = 3
#: Relative difference between equal lengths: coordinates are float64.
_ROUNDING = 1e-9
_UM_IN_MM = 1000
ZYX = ("z", "y", "x")


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


@dataclass(frozen=True)
class OwnImages:
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


class LazyLayout:
    """A Dataset to write. The subclasses give its arrays, in the axes of the target, and its metadata.

    Parameters
    ----------
    dataset : xarray.Dataset
    carried : Opened
        What the Dataset carries of its opening.
    options : Options
        Those of the opening, with those of writing.
    """

    #: Names of the variables whose dask arrays are compared with those of the opening.
    variables: tuple[str, ...]

    def __init__(self, dataset: xr.Dataset, carried: Opened, options: Options) -> None:
        self.given, self.carried, self.options = dataset, carried, options
        self.dataset: SectionDataset = carried.dataset
        self.aligned = options.aligned(self.dataset, carried.fields)
        #: Depths in the records by SectionImage id, in um.
        self.recorded = records.recorded_depths(self.dataset)

    def variable(self, name: str) -> xr.DataArray:
        """A variable of the Dataset."""
        if name not in self.given.data_vars:
            raise InputError(
                f"the Dataset lacks the variable {name!r}; keep the variables that it was opened with "
                "(opened.assign(image=...) does)",
                code="missing-variable",
            )
        return self.given[name]

    def ordered(self, array: xr.DataArray, axes: Sequence[str], channels: str) -> tuple[xr.DataArray, bool]:
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

    def geometry(self, array: xr.DataArray, along: Mapping[str, int]) -> Geometry:
        """The geometry of an array over axes of the grid, in mm; that of the grid along the others.

        Parameters
        ----------
        array : xarray.DataArray
        along : mapping of str to int
            The axis (0 z, 1 y, 2 x) of the grid for each axis of the array, by its name.
        """
        import xarray as xr

        if lacking := [axis for axis in along if axis not in array.coords]:
            raise InputError(
                f"variable {array.name!r} lacks the coordinate {lacking[0]!r}; keep it", code="missing-coordinate"
            )
        grid = records.geometry(self.aligned.grid)
        coordinates = {ZYX[k]: (ZYX[k], *_with_a_step(array.coords[axis], grid.scale[k])) for axis, k in along.items()}
        found = geometry_of(xr.Dataset(coords=coordinates))
        if (microns := microns_in(found.unit or grid.unit)) is None:
            raise InputError(
                f"coordinates have the unit {found.unit!r}, which is no length; give millimeter", code="unknown-unit"
            )
        in_mm = float(microns) / _UM_IN_MM
        scale, translation = list(grid.scale), list(grid.translation)
        for position in along.values():
            size, first = found.scale[position] * in_mm, found.translation[position] * in_mm
            if not math.isclose(size, scale[position], rel_tol=_ROUNDING):
                scale[position] = size
            if abs(first - translation[position]) > _ROUNDING * size:
                translation[position] = first
        (sz, sy, sx), (tz, ty, tx) = scale, translation
        return Geometry((sz, sy, sx), (tz, ty, tx), grid.unit, grid.orientation)

    def image_spec(self, array: Any, has_channels: bool) -> ArraySpec:
        """The image of the target: in the dtype of an array, with means of the voxels that the section label covers."""
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
        axes = ("c", *ZYX) if has_channels else ZYX
        channels = int(array.shape[0]) if has_channels else 1
        rule: Rule = "mean_of_numbers" if dtype.kind == "f" else "mean"
        return ArraySpec(IMAGE, dtype.name, axes, channels, background, rule=rule, mask=SECTION)

    def channels(self, array: xr.DataArray, axis: str) -> list[str] | None:
        """The names of the channels; None without an axis of channels."""
        if axis not in array.dims:
            return None
        names = array.coords[axis].values.tolist() if axis in array.coords else range(array.sizes[axis])
        return [str(name) for name in names]

    def changes(self, arrays: Mapping[str, Any], identity: str | None, geometry: Any) -> dict[str, Any]:
        """What the request records of the steps, so that another graph is refused; see `BuildLayout.changes`."""
        steps = {path or "image": identity_of(array) for path, array in arrays.items()}
        changes = {"steps": {**steps, **({} if identity is None else {"image": identity})}, "geometry": geometry}
        return dict(json.loads(json.dumps(changes)))

    def lay_out(
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
            fields=self.carried.fields,
            **layout,
        )
        return self._computed(empty, target, arrays, source, empty.non_empty.blocks(pyramid.passes[0]))

    def as_build(self, layout: BuildLayout, target: str, arrays: Mapping[str, Any], source: Any) -> LazyBuild:
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
        # Without a layer of fetches dask has optimized the graph, and fused fetches with other tasks.
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
            source=partial(source, lazy, OwnImages(frozenset(own), complete)),
            inputs={block: inputs[block] for block in sorted(inputs, key=lambda block: (order[block], block))},
            block_bytes=math.prod(sides) * voxel * _COPIES + largest,
            together=None if groups.are_blocks and groups.times == 1 else groups.sort,
            held=lambda region: [futures[name] for name in lazy.needs(region) if name in futures] if futures else [],
        )
        return LazyBuild(built, fetcher, self.carried.api_url, groups.warning() if groups.times > 1 else "")

    def is_unchanged(self, geometries_agree: bool) -> bool:
        """Whether the Dataset is as it was opened: its dask arrays have the same names."""
        return geometries_agree and all(map(self.is_own, self.variables))

    def is_own(self, variable: str) -> bool:
        """Whether a variable is the dask array of the opening; False if that is not known, as in a file."""
        name = self.carried.arrays.get(variable)
        return name is not None and name == getattr(self.given[variable].data, "name", None)


def _with_a_step(coordinate: xr.DataArray, step: float) -> tuple[NDArray[Any], dict[Any, Any]]:
    """The values and attributes of a coordinate; one of a single value has a second one, `step` mm away."""
    values = coordinate.to_numpy()
    if values.size == 1 and values.dtype.kind in "iuf":
        microns = microns_in(coordinate.attrs.get("units") or "millimeter")
        values = values[0] + np.array([0.0, step * _UM_IN_MM / float(microns or _UM_IN_MM)])
    return values, coordinate.attrs


def values_of(
    lazy: LazyArrays, region: Region, inputs: Sequence[Any]
) -> tuple[dict[str, NDArray[Any]], list[SectionImage | MissingImage]]:
    """The values of a region, from images and then what `BuildLayout.held` gives; and the images."""
    images = [value for value in inputs if isinstance(value, SectionImage | MissingImage)]
    held = [name for name in lazy.needs(region) if not isinstance(name, ImageRequest)]
    given: dict[Hashable, Any] = {image.request: image for image in images}
    given |= dict(zip(held, inputs[len(images) :], strict=True))
    return lazy.compute(region, given), images


def lazy_block(
    values: Mapping[str, NDArray[Any]], own: OwnImages, images: Sequence[SectionImage | MissingImage]
) -> Block:
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


def as_dask(array: xr.DataArray) -> Any:
    """The dask array of a variable, also of one that is in memory."""
    import dask.array as da

    opened(array.data)  # refuses what cannot be written, such as a masked array
    return da.asarray(array.data)

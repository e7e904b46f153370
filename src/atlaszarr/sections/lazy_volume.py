"""`open_volume` opens a whole section dataset as a lazy xarray.Dataset, computed block by block."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from ..allen.client import AllenClient
from ..allen.records import SectionDataset
from ..boxes import blocks, shape_of
from ..errors import InputError
from . import FETCHES
from .alignment import attributes
from .fields import Fields, fields_of
from .missing import Fetcher, fetching
from .opened import Opened
from .options import VolumeOptions
from .stack import MAX_GAP, Stack

if TYPE_CHECKING:
    import xarray as xr


def open_volume(
    dataset: SectionDataset | int,
    resolution: float = 25.0,
    fill: str = "nearest",
    *,
    max_gap: float = MAX_GAP,
    fields: Fields = None,
    displacement: bool = False,
    on_missing: str = "raise",
    client: AllenClient | None = None,
    **options: Any,
) -> xr.Dataset:
    """Open a whole section dataset as a lazy, registered volume.

    Images are fetched when values are computed. A block fetches only the images that it samples, or windows of images
    of more than 4096 x 4096 pixels, and blocks that are computed together share them.

    Parameters
    ----------
    dataset : SectionDataset or int
        A dataset, or its id.
    resolution : float
        Voxel size in um.
    fill : str
        ``none``, ``nearest`` or ``linear``; see `atlaszarr.sections.stack.stack_sections`.
    max_gap : float
        The widest gap between two sections that is filled, in nominal intervals: finite, at least 1.
    fields : str, path-like, RefinedFields or mapping of int to Displacement, optional
        How sections are registered beyond their records. The folder FIELDS that `refine` wrote, a path or URL, or the
        `RefinedFields` opened from it: the corrected depth of a section decides which voxels it fills. Or your own
        fields by SectionImage id, for example of a deformable registration of `open_sections`, which replace the
        alignment within these sections: a field maps pixel (column, row) of the grid's whole plane, coronal (y, x),
        sagittal (y, z) or transverse (z, x), to pixel (X, Y) of the section's tier image. A voxel uses the field at its
        two indices in the plane; depth alone decides which section fills it. Fields are evaluated block by block on
        opening, to find the images that each block samples.
    displacement : bool
        Whether to add the displacement field.
    on_missing : str
        What happens if an image cannot be fetched when values are computed: ``raise`` an error, or ``fill`` its voxels
        with the background and emit an AtlaszarrWarning. With ``fill``, ``attrs["missing"]`` lists the SectionImage
        ids that were missing in any computation so far.
    client : AllenClient, optional
        Default: ``AllenClient()``.
    **options
        Further fields of `atlaszarr.sections.options.VolumeOptions`, except those that only concern writing.

    Returns
    -------
    xarray.Dataset
        ``image``: uint8, (c, z, y, x), c = red, green, blue. ``section``: uint32, (z, y, x), the SectionImage id of
        each voxel, 0 for none. With `displacement`, also ``displacement``: float64, (component, z, y, x), X and Y of
        the voxel in full-resolution pixels of its section image, NaN for none. The coordinates z, y and x are in mm
        as in the OME-Zarr that `build` writes; p_um, i_um and r_um are in um of the reference space. The attributes of
        the scalar coordinate ``dataset_id`` hold what `atlaszarr.writing.write_multiscales` needs to write the Dataset.

    Raises
    ------
    InputError
        If an option is unknown or does not fit the dataset, or the fields are those of another dataset or plane,
        unfinished or damaged.
    RecordError
        If the dataset cannot be registered.
    ImageError, ServiceError
        If an image is missing, when values are computed, unless `on_missing` is ``fill``.
    """
    import xarray as xr
    from dask.base import tokenize

    client = client or AllenClient()
    fetch, missing = fetching(client, on_missing)
    dataset = client.imaged(dataset)
    request = VolumeOptions.of({"resolution": resolution, "fill": fill, "max_gap": max_gap, **options}, written=False)
    if not isinstance(displacement, bool):
        raise InputError(
            f"displacement has type {type(displacement).__name__}; give True or False, and fields to `fields`",
            code="wrong-type",
        )
    given = fields_of(fields)
    stack = request.stack(dataset, given)
    token = tokenize(request.identity(dataset), client.images_url, given, on_missing)
    arrays = _arrays(stack, request.chunk, fetch, request.background, token)
    zyx = ("z", "y", "x")
    variables = {
        "image": (("c", *zyx), arrays["image"]),
        "section": (zyx, arrays["section"]),
    }
    coordinates: dict[str, Any] = {"c": ["red", "green", "blue"]}
    for axis, name in enumerate(zyx):
        coordinates |= stack.grid.coordinates(axis, name)
    if displacement:
        variables["displacement"] = (("component", *zyx), arrays["displacement"])
        coordinates["component"] = ["x", "y"]
    names = {name: array.name for name, (_, array) in variables.items()}
    coordinates |= Opened(dataset, request, given, client.api_url, names).coordinate()
    attrs = attributes(dataset, stack.grid, request.mirror)
    return xr.Dataset(variables, coordinates, attrs if missing is None else {**attrs, "missing": missing})


def _arrays(stack: Stack, chunk: int, fetch: Fetcher, background: int, token: str) -> dict[str, Any]:
    """The dask arrays ``image``, ``section`` and ``displacement`` of `open_volume`, in cubic blocks.

    They share one graph, so that blocks that are computed together fetch an image once.
    """
    import dask.array as da
    from dask.highlevelgraph import HighLevelGraph

    shared, fetched, computed = (f"{name}{token}" for name in ("stack-", FETCHES, "block-"))
    fetches: dict[Any, Any] = {}
    computes: dict[Any, Any] = {}
    layers: dict[str, dict[Any, Any]] = {"image": {}, "section": {}, "displacement": {}}
    chunks = stack.sections_by_chunk(chunk)
    for index, region in blocks(stack.grid.shape, chunk):
        if sections := chunks.get(index, ()):
            images = []
            for request in stack.needs(region, sections):
                images.append((fetched, request.name))
                fetches[fetched, request.name] = (fetch, request)
            computes[computed, *index] = (Stack.compute, shared, region, images, background)
            tasks: tuple[Any, ...] = (
                (itemgetter(0), (computed, *index)),
                (itemgetter(1), (computed, *index)),
                (Stack.displacement, shared, region),
            )
        else:
            shape = shape_of(region)
            tasks = (
                (np.full, (3, *shape), background, np.uint8),
                (np.zeros, shape, np.uint32),
                (np.full, (2, *shape), np.nan),
            )
        for (name, layer), task in zip(layers.items(), tasks, strict=True):
            lead = () if name == "section" else (0,)
            layer[f"{name}-{token}", *lead, *index] = task

    def array(name: str, lead: tuple[int, ...], dtype: str) -> Any:
        layer_name = f"{name}-{token}"
        graph = HighLevelGraph(
            {shared: {shared: stack}, fetched: fetches, computed: computes, layer_name: layers[name]},
            {
                shared: set(),
                fetched: set(),
                computed: {shared, fetched},
                layer_name: {shared} if name == "displacement" else {computed},
            },
        )
        sizes = da.core.normalize_chunks((*lead, *(chunk,) * 3), (*lead, *stack.grid.shape))
        return da.Array(graph, layer_name, chunks=sizes, dtype=dtype)

    return {
        "image": array("image", (3,), "uint8"),
        "section": array("section", (), "uint32"),
        "displacement": array("displacement", (2,), "float64"),
    }

"""`open_volume`: a whole dataset as one lazy xarray.Dataset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..allen.client import AllenClient
from ..allen.records import SectionDataset
from ..displacement.displacement import Displacement
from ..errors import InputError
from .coordinates import attributes, coordinates_along
from .depth_intervals import MAX_GAP
from .options import VolumeRequest
from .volume import Volume
from .volume_dask import volume_arrays

if TYPE_CHECKING:
    import xarray as xr


def open_volume(
    dataset: SectionDataset | int,
    resolution: float = 25.0,
    fill: str = "nearest",
    *,
    max_gap: float = MAX_GAP,
    displacement: bool | Mapping[int, Displacement] = False,
    client: AllenClient | None = None,
    **options: Any,
) -> xr.Dataset:
    """A whole section dataset as one lazy, registered volume.

    Nothing is fetched before it is computed; then each image is fetched once, however many blocks show it, and a
    block asks only for the images that it shows, or the windows of those of more than 4096 x 4096 pixels.

    Parameters
    ----------
    dataset : SectionDataset or int
        A dataset, or its id.
    resolution : float
        Voxel size in um.
    fill : str
        ``none``, ``nearest`` or ``linear``; see `atlaszarr.sections.stack.stack_sections`.
    max_gap : float
        The widest gap between two sections that `fill` bridges, in nominal intervals: finite, at least 1.
    displacement : bool or mapping of int to Displacement
        Whether to add the displacement field. A mapping adds it too, and says by SectionImage id what it is within
        those sections, in place of the alignment: a field from pixel (column, row) of the plane of section to pixel
        (X, Y) of the section's tier image, as a deformable registration of `open_sections` gives it. It is over the
        whole plane of the grid: coronal (y, x), sagittal (y, z), transverse (z, x); a voxel takes the field by its
        two indices in the plane, wherever across it the voxel lies, and which section fills it is decided by depth
        as ever. To know which block shows which images, the fields are evaluated on opening, block by block.
    client : AllenClient, optional
        Default: a client with its own defaults.
    **options
        Further fields of `atlaszarr.sections.options.VolumeRequest` that are not of writing.

    Returns
    -------
    xarray.Dataset
        ``image``: uint8, (c, z, y, x), c = red, green, blue; ``section``: uint32, (z, y, x), the SectionImage id
        that made each voxel, 0 where none; with `displacement` also ``displacement``: float64,
        (component, z, y, x), the voxel's X and Y in full-resolution pixels of that section image, NaN where none.
        Coordinates z, y, x are millimetres as in the OME-Zarr that `build` writes; p_um, i_um, r_um are those
        of the reference space.

    Raises
    ------
    InputError
        If an option is not known or does not fit the dataset, or a field is not over the plane of the grid or of no
        section of the dataset.
    RecordError
        If the dataset cannot be registered.
    ImageError, ServiceError
        When computed, if an image cannot be had.
    """
    import xarray as xr
    from dask.base import tokenize

    client = client or AllenClient()
    if not isinstance(dataset, SectionDataset):
        dataset = client.section_dataset(dataset)
    request = VolumeRequest.of({"resolution": resolution, "fill": fill, "max_gap": max_gap, **options}, written=False)
    if not isinstance(displacement, bool | Mapping):
        raise InputError(
            f"displacement is of type {type(displacement).__name__}; give True, or fields by SectionImage id"
        )
    fields = {} if isinstance(displacement, bool) else dict(displacement)
    volume = Volume.cut(request.stack(dataset, fields), request.chunk)
    grid = volume.stack.grid
    token = tokenize(request.identity(dataset), client.api_url, fields)
    arrays = volume_arrays(volume, client, request.background, token)
    zyx = ("z", "y", "x")
    variables = {
        "image": (("c", *zyx), arrays["image"]),
        "section": (zyx, arrays["section"]),
    }
    coordinates: dict[str, Any] = {"c": ["red", "green", "blue"]}
    for axis, name in enumerate(zyx):
        coordinates |= coordinates_along(grid, axis, name)
    if displacement is not False:
        variables["displacement"] = (("component", *zyx), arrays["displacement"])
        coordinates["component"] = ["x", "y"]
    return xr.Dataset(variables, coordinates, attributes(dataset, grid, request.mirror))

"""`open_sections`: the registered sections of a dataset as one lazy xarray.Dataset, and the loop over them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from ..allen.client import AllenClient
from ..allen.records import SectionDataset
from ..displacement.displacement import Displacement
from ..errors import InputError
from ..geometry.spaces import AXES
from .coordinates import attributes, coordinates_along
from .options import SectionsRequest
from .planes import DetectionPoint, SectionPlanes
from .planes_dask import SectionArrays

#: Where a Dataset keeps what its sections are made of.
_KEY = "atlaszarr"


class RegisteredSection(NamedTuple):
    """What the loop over sections yields.

    Attributes
    ----------
    image_id : int
    coordinate : float
        Slice coordinate in um of the reference space, across the plane of section.
    image : ndarray or dask array, uint8, shape (height, width, 3)
        The section image at its tier, as it was taken, or without that view the first that was asked for; lazy if it
        has more than 4096 x 4096 pixels.
    expression : ndarray or dask array, or None
        Its expression mask, if that view was asked for and there is one.
    displacement : Displacement
        From the pixels of the plane to those of the image: ``displacement.warp(image)`` is the registered image.
    """

    image_id: int
    coordinate: float
    image: Any
    expression: Any
    displacement: Displacement


def open_sections(
    dataset: SectionDataset | int,
    resolution: float = 25.0,
    *,
    view: str | Sequence[str] = "primary",
    plane: str = "auto",
    interpolation: str = "linear",
    detection_xy: DetectionPoint = (0.0, 0.0),
    displacement: Mapping[int, Displacement] | None = None,
    client: AllenClient | None = None,
    **options: Any,
) -> xr.Dataset:
    """The sections of a dataset, each registered to a plane of the reference space, as one lazy Dataset.

    Nothing is fetched before it is computed; then a block asks only for the images, or the windows of large ones, that
    it shows. Blocks that are computed together share what they fetch.

    ``for image_id, coordinate, image, expression, displacement in open_sections(...).sections`` is the loop of atldld's
    `DatasetDownloader`: one section at a time, of any selection of the Dataset along ``section``.

    Parameters
    ----------
    dataset : SectionDataset or int
        A dataset, or its id.
    resolution : float
        Pixel size of the planes in um.
    view : str or sequence of str
        ``primary``, ``expression``, ``projection``. Without ``primary``, the sections are those of the first.
    plane : str
        ``coronal``, ``sagittal``, ``transverse`` (or ``horizontal``, ``axial``); ``auto`` for the one that the dataset
        was cut in.
    interpolation : str
        Within the image: ``nearest``, ``linear``, ``cubic`` or ``lanczos``.
    detection_xy : tuple of float or "centre" (or "center")
        The pixel (X, Y) of the full-resolution images at which their slice coordinates are taken. ``centre``, that of
        each image, puts sections that are not quite parallel to the plane where most of them lies.
    displacement : mapping of int to Displacement, optional
        By SectionImage id, fields that take the place of the affine ones: pixels of the plane to pixels of the image
        at its tier, as the loop yields both.
    client : AllenClient, optional
        Default: a client with its own defaults.
    **options
        Further fields of `atlaszarr.sections.options.SectionsRequest`: downsample, background, chunk (side of a
        block), ...

    Returns
    -------
    xarray.Dataset
        A variable a view, ``image``, ``expression``, ``projection``: uint8, (section, y, x, rgb), in the field's
        orientation: superior is up, anterior left in sagittal planes and up in transverse ones. Coordinates of the
        sections, in order of depth: image_id, section_number, and ``coordinate``, the slice coordinate in um across
        the plane, which its attribute ``axis`` names: p, i or r. y and x are millimetres as in the OME-Zarr that
        `build` writes; p_um, i_um, r_um are those of the reference space.

    Raises
    ------
    InputError
        If an option is not known or does not fit the dataset.
    RecordError
        If the dataset cannot be registered.
    ImageError, ServiceError
        When computed, if an image cannot be had.
    """
    named = {"resolution": resolution, "plane": plane, "interpolation": interpolation, "detection_xy": detection_xy}
    requests = SectionsRequest.of_views(view, {**options, **named}, written=False)
    client = client or AllenClient()
    if not isinstance(dataset, SectionDataset):
        dataset = client.section_dataset(dataset)
    arrays = {
        request.view: SectionArrays(
            request.planes(dataset, stored=False, displacement=displacement), client, request.chunk
        )
        for request in requests
    }
    first = _leading(arrays).planes
    ids = [section.image_id for section in first.imaged.sections]
    variables = {
        "image" if view == "primary" else view: (
            ("section", "y", "x", "rgb"),
            source.registered(ids, requests[0].background),
        )
        for view, source in arrays.items()
    }
    known = {"plane_of_section": first.plane.name, **attributes(dataset, first.grid, requests[0].mirror)}
    opened = xr.Dataset(variables, _coordinates(first), known)
    opened.encoding[_KEY] = arrays
    return opened


@xr.register_dataset_accessor("sections")
class Sections:
    """The sections that a Dataset of `open_sections`, or a selection of it, holds: to be iterated over.

    Parameters
    ----------
    opened : xarray.Dataset

    Raises
    ------
    InputError
        If the Dataset is of another origin.
    """

    def __init__(self, opened: xr.Dataset) -> None:
        if _KEY not in opened.encoding or "image_id" not in opened.coords:
            raise InputError(
                "this Dataset does not know where its sections come from; iterate over what open_sections gave"
            )
        self._arrays: Mapping[str, SectionArrays] = opened.encoding[_KEY]
        self._ids = [int(id) for id in np.atleast_1d(opened.image_id.values)]

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[RegisteredSection]:
        return map(self._section, self._ids)

    def __getitem__(self, position: int) -> RegisteredSection:
        return self._section(self._ids[position])

    def _section(self, id: int) -> RegisteredSection:
        source = _leading(self._arrays)
        position = source.positions[id]
        expression = self._arrays.get("expression")
        return RegisteredSection(
            id,
            float(source.planes.coordinates[position]),
            source.image(id),
            None if expression is None or id not in expression.positions else expression.image(id),
            source.planes.displacements[position],
        )


def _leading(arrays: Mapping[str, SectionArrays]) -> SectionArrays:
    """The view whose sections are listed: the one that all sections have, wherever it is named, or else the first."""
    return arrays.get("primary") or next(iter(arrays.values()))


def _coordinates(planes: SectionPlanes) -> dict[str, Any]:
    grid, plane, sections = planes.grid, planes.plane, planes.imaged.sections
    across = {"units": "um", "axis": AXES[plane.fixed]}
    found: dict[str, Any] = {
        "image_id": ("section", [section.image_id for section in sections]),
        "section_number": ("section", [section.section_number for section in sections]),
        "coordinate": ("section", planes.coordinates, across),
        "rgb": ["red", "green", "blue"],
    }
    for name, axis in (("y", plane.rows), ("x", plane.columns)):
        found |= coordinates_along(grid, axis, name)
    return found

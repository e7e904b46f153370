"""`open_grid` and `write_grid`: the expression grids of a section dataset as an xarray.Dataset and as OME-Zarr."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import credit
from ..allen.client import AllenClient
from ..allen.records import SectionDataset
from ..boxes import Region
from ..engine.array_layout import Encoding
from ..engine.blocks import Block
from ..engine.job import ImageJob
from ..engine.multiscale import ArraySpec, Multiscale
from ..engine.ome import DEFAULT_VERSION, Geometry, multiscales, zarr_format
from ..engine.pyramid import NonEmptyChunks, Pyramid
from ..engine.schedulers import scheduler_for
from ..engine.target_state import Root
from ..engine.writer import Progress, WriteReport, write
from ..errors import InputError, RecordError
from ..geometry.spaces import AXES, ORIENTATION, ReferenceSpace, reference_space
from ..stores.documents import LARGEST, json_bytes, parse_object
from ..stores.target import Target
from ..versions import version
from .archive import QUANTITIES, GridArchive, read_archive

if TYPE_CHECKING:
    import xarray as xr

#: Key of the sidecar.
_BUILD = "atlaszarr/build.json"
#: The colours of the channels in viewers.
_COLOURS = {"energy": "FF0000", "density": "00FF00", "intensity": "0000FF"}
_MODE = "grid"


def open_grid(
    dataset: SectionDataset | int, include: Sequence[str] = QUANTITIES, *, client: AllenClient | None = None
) -> xr.Dataset:
    """Open the Allen Institute's own expression grids of a section dataset.

    Parameters
    ----------
    dataset : SectionDataset or int
        A dataset, or its id.
    include : sequence of str
        The quantities: ``energy``, ``density``, ``intensity``.
    client : AllenClient, optional
        Default: ``AllenClient()``.

    Returns
    -------
    xarray.Dataset
        A variable for each quantity: float32, (z, y, x) = (p, i, r), NaN where the Institute has no data (-1 in its
        files). Density is the part of pixels that express, 0 to 1; intensity their mean intensity; energy the product
        of both; the last two in a unit that the Institute does not document. The coordinates are the same as in
        `atlaszarr.open_volume`: z, y and x in mm, p_um, i_um and r_um in um of the reference space. For the adult mouse
        the points lie 200 um apart from edge to edge of the space, 67 x 41 x 58, the first at 0.

    Raises
    ------
    InputError
        If a quantity is unknown.
    NotFoundError
        If the dataset does not exist or has no grids.
    RecordError
        If the dataset has no reference space, or the grids do not fill it.
    ImageError, ServiceError
        If fetching fails.
    """
    import xarray as xr

    grid = _Grid.fetch(dataset, include, client or AllenClient())
    coordinates: dict[str, Any] = {}
    for axis, (dimension, count) in enumerate(zip("zyx", grid.shape, strict=True)):
        points = grid.first_um + np.arange(count) * grid.archive.spacing
        mm = (points - grid.space.anchor / 2) / 1000
        coordinates[dimension] = (dimension, mm, {"units": "mm"})
        coordinates[f"{AXES[axis]}_um"] = (dimension, points, {"units": "um"})
    values = dict(zip(grid.archive.include, grid.archive.values, strict=True))
    return xr.Dataset(
        {name: (("z", "y", "x"), part) for name, part in values.items()},
        coordinates,
        {
            "section_dataset": grid.dataset.id,
            "genes": ", ".join(grid.dataset.genes),
            "reference_space": grid.space.id,
            "anchor_um": grid.space.anchor,
            "source": grid.url,
            **credit.SECTIONS,
        },
    )


def write_grid(
    dataset: SectionDataset | int,
    target: str | os.PathLike[str],
    include: Sequence[str] = QUANTITIES,
    *,
    client: AllenClient | None = None,
    ome_zarr: str = DEFAULT_VERSION,
    storage_options: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    take_over: bool = False,
    progress: Progress | None = None,
) -> WriteReport:
    """Write the Allen Institute's own expression grids of a section dataset as one OME-Zarr.

    The image has the axes c, z, y, x and float32 values; a channel is a quantity. NaN is no data, and a voxel of a
    coarser level is the mean of those with data. The same call resumes an unfinished target; it validates a finished
    one, and repairs it if it is damaged.

    Parameters
    ----------
    dataset, include, client
        Same as in `open_grid`.
    target : str or path-like
        A local path, or any URL that fsspec opens.
    ome_zarr : str
        0.4, 0.5 or 0.6.
    storage_options, overwrite, take_over, progress
        Same as in `atlaszarr.build`.

    Raises
    ------
    InputError
        If the target holds something else, or an argument is not valid; nothing is written.
    NotFoundError, RecordError, ImageError, ServiceError
        Same as in `open_grid`.
    TargetError
        If the target cannot be written.
    """
    output = Target.of(target, storage_options)
    encoding = Encoding(zarr_format=zarr_format(ome_zarr))
    grid = _Grid.fetch(dataset, include, client or AllenClient())
    with scheduler_for("threads", 1) as running:
        job = grid.job(output, encoding, ome_zarr)
        return write(job, running, overwrite=overwrite, take_over=take_over, progress=progress)


@dataclass(frozen=True)
class _Grid:
    """The grids of a dataset, and where their points are."""

    dataset: SectionDataset
    archive: GridArchive
    space: ReferenceSpace
    url: str

    @classmethod
    def fetch(cls, dataset: SectionDataset | int, include: Sequence[str], client: AllenClient) -> _Grid:
        names = list(include) if isinstance(include, Iterable) and not isinstance(include, str) else [include]
        if not names or not all(names.count(name) == 1 and name in QUANTITIES for name in names):
            raise InputError(
                f"include {', '.join(map(str, names))!r} must name some of {', '.join(QUANTITIES)}, each once",
                code="unknown-value",
            )
        names = [name for name in QUANTITIES if name in names]
        record = dataset if isinstance(dataset, SectionDataset) else client.section_dataset(dataset)
        if record.reference_space_id is None:
            raise RecordError(
                f"section dataset {record.id} has no reference space, so it has no grid; choose a registered dataset",
                code="missing-reference-space",
            )
        space = reference_space(record.reference_space_id).frame
        url = client.grid_url(record.id, names)
        archive = client.grid(record.id, names, lambda body: read_archive(body, names, url))
        archive.first(space)
        return cls(record, archive, space, url)

    @property
    def shape(self) -> tuple[int, int, int]:
        z, y, x = self.archive.values.shape[1:]
        return z, y, x

    @property
    def first_um(self) -> float:
        return self.archive.first(self.space)

    @property
    def geometry(self) -> Geometry:
        start = (self.first_um - self.space.anchor / 2) / 1000
        return Geometry((self.archive.spacing / 1000,) * 3, (start,) * 3, "millimeter", ORIENTATION)

    def job(self, target: Target, encoding: Encoding, ome_zarr: str) -> ImageJob:
        """The job that writes the grids, with ``atlaszarr/build.json``."""
        pyramid = Pyramid.over(self.shape)
        spec = ArraySpec("", "float32", ("c", "z", "y", "x"), len(self.archive.include), rule="mean_of_numbers")
        multiscale = Multiscale(target, (spec,), NonEmptyChunks(pyramid), encoding)
        values = np.ascontiguousarray(self.archive.values)
        request = {
            "mode": _MODE,
            "dataset": self.dataset.id,
            "include": list(self.archive.include),
            "ome_zarr": ome_zarr,
            "values_sha256": hashlib.sha256(values.tobytes()).hexdigest(),
        }
        root = Root(ome_zarr, request, credit.SECTIONS)
        name = " ".join([f"Expression grid {self.dataset.id}", *self.dataset.genes])
        entry = multiscales(ome_zarr, name, "czyx", self.geometry, pyramid, "mean of the values that are not NaN")
        channels = []
        for quantity, part in zip(self.archive.include, values, strict=True):
            highest = float(np.nanmax(part, initial=0.0)) or 1.0
            window = {"min": 0.0, "max": highest, "start": 0.0, "end": highest}
            channels.append(
                {"label": quantity, "color": _COLOURS[quantity], "active": quantity == "energy", "window": window}
            )
        rdefs = {"model": "color", "defaultZ": pyramid.shape[0] // 2}
        groups = {"": {"multiscales": [entry], "omero": {"name": name, "channels": channels, "rdefs": rdefs}}}

        def build_json(_ledger: str) -> list[str]:
            document = {
                "atlaszarr": version(),
                "begun": _begun(target, root.request) or datetime.now(UTC).isoformat(timespec="seconds"),
                "request": root.request,
                "source": self.url,
                "reference_space": self.space.id,
                "anchor_um": self.space.anchor,
                "first_point_um": self.first_um,
                "credit": credit.SECTIONS,
                "dataset": {"id": self.dataset.id, "genes": list(self.dataset.genes)},
            }
            target.write(_BUILD, json_bytes(document))
            return [_BUILD]

        return ImageJob(multiscale, root, groups, partial(_block, values), files=build_json)


def _block(values: Any, _level: int, region: Region, _inputs: Sequence[Any]) -> Block:
    return Block({"": values[(slice(None), *region)]})


def _begun(target: Target, request: Mapping[str, Any]) -> str | None:
    """The time in ``atlaszarr/build.json``; None if that does not exist or records another request."""
    try:
        content = parse_object(target.read(_BUILD, LARGEST) or b"")
        return str(content["begun"]) if content["request"] == request else None
    except (ValueError, KeyError):
        return None

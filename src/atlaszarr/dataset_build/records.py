"""The metadata of a build: build.json, sections.csv, failures.csv, and the OME-Zarr metadata of image and label."""

from __future__ import annotations

import colorsys
import csv
import hashlib
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from .. import credit
from ..allen.client import AllenClient
from ..allen.images import MissingImage
from ..allen.records import Section, SectionDataset
from ..allen.slide_images import SlideCrop
from ..engine.ledger import Entry, Task
from ..engine.ome import Geometry, multiscales
from ..engine.pyramid import Pyramid
from ..errors import TargetError
from ..geometry.grid import Grid
from ..geometry.spaces import ORIENTATION
from ..sections.fields import SectionFields
from ..stores.documents import LARGEST, json_bytes, parse_object
from ..stores.target import Target
from ..versions import version
from .layout import BuildLayout
from .plan import Plan

#: Keys of the files that this module writes.
FILES = ("atlaszarr/build.json", "atlaszarr/sections.csv", "atlaszarr/failures.csv")
#: The colour of each channel of a section image.
_COLOURS = {"red": "FF0000", "green": "00FF00", "blue": "0000FF"}
RGB = tuple(_COLOURS)
_PACKAGES = ("dask", "fsspec", "google-crc32c", "numcodecs", "numpy", "obstore", "simplejpeg", "zarr")


def write_build(
    target: Target, layout: BuildLayout, request: Mapping[str, Any], plan: Plan, client: AllenClient
) -> None:
    """Write ``atlaszarr/build.json``: the dataset, the options and the versions, enough to build the target again.

    The time is that of the first build with these options, also if a repair writes it again. Records from a catalogue
    are recorded with its date and the digest of its document, which are no part of the request: the same records from
    the API make the same target.
    """
    catalogue = client.catalogue_of(layout.dataset)
    document = {
        "atlaszarr": version(),
        "versions": {package: version(package) for package in _PACKAGES},
        "begun": (begun(target, request) or datetime.now(UTC)).isoformat(timespec="seconds"),
        "request": request,
        "api": client.api_url,
        **({} if client.image_source is None else {"image_source": client.image_source.url}),
        **({} if catalogue is None else {"catalogue": catalogue.provenance}),
        **({} if layout.fields is None else {"fields": _fields(layout, layout.fields)}),
        "reference_space": layout.grid.space.id,
        "anchor_um": layout.grid.space.anchor,
        "plan": {name: value for name, value in plan.to_dict().items() if name != "target"},
        "credit": credit.SECTIONS,
        "dataset": layout.dataset.to_dict(),
    }
    target.write("atlaszarr/build.json", json_bytes(document))


def begun(target: Target, request: Mapping[str, Any]) -> datetime | None:
    """The time in ``atlaszarr/build.json``; None if that does not exist, is damaged or records other options."""
    try:
        content = parse_object(target.read("atlaszarr/build.json", LARGEST) or b"")
        time = datetime.fromisoformat(content["begun"])
        return time if content["request"] == request and time.tzinfo else None
    except (ValueError, KeyError, TypeError):
        return None


def write_tables(
    target: Target, layout: BuildLayout, done: Mapping[Task, Entry], failures: Sequence[MissingImage]
) -> None:
    """Write ``atlaszarr/sections.csv`` and ``atlaszarr/failures.csv``.

    The first has a row for every section image of the dataset, with its state: ``used``, ``missing`` (the whole image
    or a window of it), ``outside`` the grid or between sections at its own depth, or ``skipped`` with the reason. The
    SHA-256 of an image that is fetched in windows is that of the concatenated digests of its windows, in the order of
    their names; it is empty if the image was fetched before the build, for a Dataset in memory. If the images come
    from slides, further columns hold the slide, its ETag and its tier; if fields register sections, the recorded depth
    of each, and how it is registered in its plane, see `SectionFields.registration`.
    """
    used: dict[int, dict[str, str]] = {}
    for entry in done.values():
        for name, digest in images(entry).items():
            if digest is not None:
                used.setdefault(int(name.partition("/")[0]), {})[name] = digest
    missing = {failure.request.image_id: failure.reason for failure in failures}
    rows: list[tuple[Any, ...]] = []
    columns = {**layout.columns, **_slide_columns(layout, done), **_field_columns(layout)}
    for position, (section, request) in enumerate(zip(layout.imaged.sections, layout.imaged.requests, strict=True)):
        id = section.image_id
        state = "missing" if id in missing else "used" if id in used else "outside"
        size = (request.downsample, request.width, request.height)
        sha256 = _digest(used[id]) if state == "used" else ""
        more = [values[position] for values in columns.values()]
        rows.append((id, section.section_number, section.depth, state, missing.get(id, ""), *size, sha256, *more))
    for skipped in (*layout.imaged.skipped, *layout.dataset.skipped):
        number = "" if skipped.section_number is None else skipped.section_number
        rows.append((skipped.image_id, number, "", "skipped", skipped.reason, *[""] * (4 + len(columns))))
    header = ("image_id", "section_number", "depth_um", "state", "reason", "downsample", "width", "height", "sha256")
    target.write("atlaszarr/sections.csv", _table((*header, *columns), rows))
    numbers = {section.image_id: section.section_number for section in layout.imaged.sections}
    failed = [(f.request.image_id, numbers[f.request.image_id], f.url, f.reason) for f in failures]
    target.write("atlaszarr/failures.csv", _table(("image_id", "section_number", "url", "reason"), failed))


def _fields(layout: BuildLayout, fields: SectionFields) -> dict[str, Any]:
    """What ``build.json`` records of fields; also the section images that lie behind one that was cut later."""
    passed, last = [], -math.inf
    for section in layout.imaged.sections:
        if section.section_number < last:
            passed.append(section.image_id)
        last = max(last, section.section_number)
    return {**fields.provenance, **({"out_of_order": passed} if passed else {})}


def _field_columns(layout: BuildLayout) -> dict[str, list[Any]]:
    """Further columns of sections.csv for sections that fields register."""
    if layout.fields is None:
        return {}
    recorded = recorded_depths(layout.dataset)
    ids = [section.image_id for section in layout.imaged.sections]
    return {
        "depth_recorded_um": [recorded[id] for id in ids],
        "registration": [layout.fields.registration(id) for id in ids],
    }


def recorded_depths(dataset: SectionDataset) -> dict[int, float]:
    """The depths in the records by SectionImage id, in um."""
    return {section.image_id: section.depth for section in dataset.sections}


def _slide_columns(layout: BuildLayout, done: Mapping[Task, Entry]) -> dict[str, list[Any]]:
    """Further columns of sections.csv for images from slides; none for those from the API."""
    crops = [request for request in layout.imaged.requests if isinstance(request, SlideCrop)]
    if not crops:
        return {}
    etags: dict[int, str] = {}
    for entry in done.values():
        found = dict(entry.origin.get("etags", {}))
        etags.update((int(name.partition("/")[0]), etag) for name, etag in found.items() if etag)
    return {
        "slide": [crop.slide for crop in crops],
        "etag": [etags.get(crop.image_id, "") for crop in crops],
        "tier": [crop.downsample for crop in crops],
    }


def images(entry: Entry) -> dict[str, str | None]:
    """Names of the images of a block, with the SHA-256 of their JPEG bodies; None for a missing image."""
    return dict(entry.origin.get("images", {}))


def missing(entry: Entry) -> list[str]:
    """Names of the images that a block lacks."""
    return [name for name, digest in images(entry).items() if digest is None]


def check_same_images(digests: dict[str, str], entry: Entry, target: Target) -> None:
    """Refuse a record made from another version of an image than the earlier ones, whose digests by name it joins.

    Raises
    ------
    TargetError
        If the image has changed.
    """
    for name, digest in images(entry).items():
        if digest and digests.setdefault(name, digest) != digest:
            raise TargetError(
                f"section image {name} has changed at the service since {target.url} was begun; begin it again with "
                "--overwrite",
                code="image-changed",
            )


def _digest(used: Mapping[str, str]) -> str:
    if len(used) == 1:
        (digest,) = used.values()
        return digest
    return hashlib.sha256("".join(used[name] for name in sorted(used)).encode()).hexdigest()


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode()


def geometry(grid: Grid, sides: str = ORIENTATION["x"]) -> Geometry:
    """The scale and the translation of a grid, in mm; `sides` is the orientation of x."""
    return Geometry((grid.size,) * 3, (grid.first,) * 3, "millimeter", {**ORIENTATION, "x": sides})


def plane_geometry(grid: Grid, fixed: int, coordinate: float, thickness: float) -> Geometry:
    """The scale and the translation of one plane of a grid, in mm.

    Parameters
    ----------
    grid : Grid
    fixed : int
        The axis (z, y, x) across the plane: one voxel, of the size of the section's thickness.
    coordinate, thickness : float
        Slice coordinate and section thickness in um.
    """
    flat = geometry(grid)
    first = (coordinate - grid.space.anchor / 2) / 1000
    sz, sy, sx = (thickness / 1000 if axis == fixed else size for axis, size in enumerate(flat.scale))
    tz, ty, tx = (first if axis == fixed else offset for axis, offset in enumerate(flat.translation))
    return Geometry((sz, sy, sx), (tz, ty, tx), flat.unit, flat.orientation)


def title(dataset: SectionDataset) -> str:
    """The name of a dataset in the metadata: its id and its genes."""
    return " ".join([f"Section dataset {dataset.id}", *dataset.genes])


def image(
    version: str,
    geometry: Geometry,
    pyramid: Pyramid,
    name: str,
    channels: Sequence[str] | None = RGB,
    dtype: str = "uint8",
) -> dict[str, Any]:
    """OME-Zarr metadata of the group of a registered image, with the names of its channels.

    Without an axis c, `channels` is None, and the one channel is called grey.

    A viewer shows the grey levels of the section images, 0 to 255, whatever the dtype. One that shows a single plane
    across z begins in the middle.
    """
    method = f"mean of the covered voxels among {_neighbours(pyramid)}"
    axes, model = ("zyx", "greyscale") if channels is None else ("czyx", "color")
    kind = np.dtype(dtype)
    low, high = (np.iinfo(kind).min, np.iinfo(kind).max) if kind.kind in "iu" else (0, 255)
    window = {"min": float(low), "max": float(high), "start": 0.0, "end": float(min(high, 255))}
    entries = [
        {"label": label, "color": colour, "active": True, "window": dict(window)}
        for label, colour in coloured(channels)
    ]
    return {
        "multiscales": [multiscales(version, name, axes, geometry, pyramid, method)],
        "omero": {
            "name": name,
            "channels": entries,
            "rdefs": {"model": model, "defaultZ": pyramid.shape[0] // 2},
        },
    }


def coloured(channels: Sequence[str] | None) -> list[tuple[str, str]]:
    """Name and colour of each channel; grey, in white, if there is no axis c."""
    return [("grey", "FFFFFF")] if channels is None else [(label, _COLOURS.get(label, "FFFFFF")) for label in channels]


def provenance(
    version: str, geometry: Geometry, pyramid: Pyramid, sections: Sequence[Section], recorded: Mapping[int, float]
) -> dict[str, Any]:
    """OME-Zarr metadata of ``labels/section``, whose values are SectionImage ids, adjacent ones in unlike colours.

    `recorded` are the `recorded_depths`, which are listed where they differ.
    """
    colours, properties = [], []
    for position, section in enumerate(sections):
        red, green, blue = colorsys.hsv_to_rgb(position * 0.381966 % 1, 0.7, 1.0)
        rgba = [round(255 * part) for part in (red, green, blue)] + [255]
        colours.append({"label-value": section.image_id, "rgba": rgba})
        depth = recorded[section.image_id]
        properties.append(
            {
                "label-value": section.image_id,
                "section_number": section.section_number,
                "depth_um": section.depth,
                **({} if depth == section.depth else {"depth_recorded_um": depth}),
            }
        )
    method = f"most frequent label other than 0 among {_neighbours(pyramid)}"
    return {
        "multiscales": [multiscales(version, "section", "zyx", geometry, pyramid, method)],
        "image-label": {"colors": colours, "properties": properties, "source": {"image": "../../"}},
    }


def _neighbours(pyramid: Pyramid) -> str:
    """The number of voxels of a level in one voxel of the next, along each axis."""
    return " x ".join("1" if n == 1 else "2" for n in pyramid.shape)

"""`open_sections` opens registered sections as a lazy xarray.Dataset; `iter_sections` iterates over them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..allen.client import AllenClient
from ..allen.images import MissingImage, Pixels, SectionImage, TierImage, pixels_of, tier_image
from ..allen.records import SectionDataset
from ..boxes import Box
from ..displacement.displacement import Displacement
from ..displacement.fields import blocks, regular
from ..errors import InputError
from ..geometry.spaces import AXES
from . import FETCHES
from .alignment import attributes
from .fields import Fields, SectionFields, fields_of
from .missing import Fetcher, fetching
from .opened import Opened
from .options import SectionsOptions
from .planes import DetectionPoint, SectionPlanes

if TYPE_CHECKING:
    import xarray as xr

#: The key in the encoding of the coordinate ``image_id``, which selections and arithmetic keep, under which what was
#: opened is stored.
_KEY = "atlaszarr"
#: The most sections whose images are fetched before they are asked for: a service that takes 0.2 s for an answer then
#: gets the 20 requests a second that are allowed.
_AHEAD = 4
#: Bytes of the pixels of these images, unless one image has more.
_AHEAD_BYTES = 2**26


class _Opened(NamedTuple):
    """What `open_sections` opened: the planes of each view, and how images are fetched.

    Attributes
    ----------
    views : mapping of str to SectionPlanes
    fetch : Fetcher
    background : int
        Grey level outside the images, and of missing images.
    identity : tuple of str
        What the result of `fetch` depends on, for the names of dask keys.
    fields : SectionFields or None
        What registers sections beyond their records.
    """

    views: Mapping[str, SectionPlanes]
    fetch: Fetcher
    background: int
    identity: tuple[str, ...]
    fields: SectionFields | None = None

    @property
    def main(self) -> SectionPlanes:
        """The view that defines the sections: ``primary``, which all sections have, or the first one."""
        return self.views.get("primary") or next(iter(self.views.values()))


class RegisteredSection(NamedTuple):
    """A section yielded by `iter_sections`.

    Attributes
    ----------
    image_id : int
    coordinate : float
        Slice coordinate across the plane of section, in um of the reference space.
    image : ndarray or dask array, uint8, shape (height, width, 3)
        The unregistered section image at its tier: the ``primary`` view or, if that was not opened, the first view.
        Lazy if it has more than 4096 x 4096 pixels.
    expression : ndarray or dask array, or None
        The expression mask, if that view was opened and the section has one.
    displacement : Displacement
        Pixels of the plane to pixels of the image: ``displacement.warp(image)`` is the registered image.
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
    fields: Fields = None,
    on_missing: str = "raise",
    client: AllenClient | None = None,
    **options: Any,
) -> xr.Dataset:
    """Open the sections of a dataset, each registered to a plane of the reference space, as a lazy Dataset.

    Images are fetched when values are computed. A block fetches only the images, or the windows of large images, that
    it samples, and blocks that are computed together share them.

    `iter_sections` iterates over the sections of the result, or of any selection of it.

    Parameters
    ----------
    dataset : SectionDataset or int
        A dataset, or its id.
    resolution : float
        Pixel size of the planes in um.
    view : str or sequence of str
        One or more of ``primary``, ``expression`` and ``projection``. The result has the sections of ``primary`` or,
        without it, of the first view.
    plane : str
        ``coronal``, ``sagittal``, ``transverse`` (or ``horizontal``, ``axial``), or ``auto`` for the plane that the
        dataset was cut in.
    interpolation : str
        Interpolation within the image: ``nearest``, ``linear``, ``cubic`` or ``lanczos``.
    detection_xy : tuple of float or "centre" (or "center")
        The full-resolution pixel (X, Y) that defines the slice coordinate of each section. ``centre``, the centre of
        each image, is the better choice for sections that are not quite parallel to the plane.
    fields : str, path-like, RefinedFields or mapping of int to Displacement, optional
        How sections are registered beyond their records. The folder FIELDS that `refine` wrote, a path or URL, or the
        `RefinedFields` opened from it: sections lie at their corrected depths. Or your own fields by SectionImage id,
        which replace the affine ones: pixels of the plane to pixels of the image at its tier, as in the sections that
        `iter_sections` yields.
    on_missing : str
        What happens if an image cannot be fetched when values are computed: ``raise`` an error, or ``fill`` its pixels
        with the background and emit an AtlaszarrWarning. With ``fill``, ``attrs["missing"]`` lists the SectionImage
        ids that were missing in any computation so far.
    client : AllenClient, optional
        Default: ``AllenClient()``.
    **options
        Further fields of `atlaszarr.sections.options.SectionsOptions`: downsample, background, chunk (side of a
        block), ...

    Returns
    -------
    xarray.Dataset
        One variable per view, ``image`` (primary), ``expression``, ``projection``: uint8, (section, y, x, rgb).
        Superior is up; anterior is left in sagittal planes and up in transverse planes. Sections are in order of
        depth, with the coordinates image_id, section_number and ``coordinate``, the slice coordinate in um along the
        axis that its attribute ``axis`` names: p, i or r. y and x are in mm as in the OME-Zarr that `build` writes;
        p_um, i_um and r_um are in um of the reference space. The attributes of the scalar coordinate ``dataset_id``
        hold what `atlaszarr.writing.write_multiscales` needs to write the Dataset.

    Raises
    ------
    InputError
        If an option is unknown or does not fit the dataset.
    RecordError
        If the dataset cannot be registered.
    ImageError, ServiceError
        If an image is missing, when values are computed, unless `on_missing` is ``fill``.
    """
    import xarray as xr

    named: dict[str, Any] = {"resolution": resolution, "plane": plane, "interpolation": interpolation}
    named["detection_xy"] = detection_xy
    how: dict[str, Any] = {"view": view, "fields": fields, "on_missing": on_missing, "client": client}
    imaged, requests, opened, missing, api_url = _open(dataset, **options, **named, **how)
    main = opened.main
    variables = {
        "image" if view == "primary" else view: (
            ("section", "y", "x", "rgb"),
            _registered(planes, opened, list(main.positions), requests[0].chunk),
        )
        for view, planes in opened.views.items()
    }
    attrs = {"plane_of_section": main.plane.name, **attributes(imaged, main.grid, requests[0].mirror)}
    if missing is not None:
        attrs["missing"] = missing
    names = {name: array.name for name, (_, array) in variables.items()}
    carried = Opened(imaged, requests[0], opened.fields, api_url, names).coordinate()
    return xr.Dataset(variables, _coordinates(main, {_KEY: opened}) | carried, attrs)


def iter_sections(dataset: xr.Dataset | SectionDataset | int, **options: Any) -> Iterator[RegisteredSection]:
    """Iterate over the registered sections of a dataset, and fetch the images of a few sections ahead.

    ``for image_id, coordinate, image, expression, displacement in iter_sections(dataset)`` is the loop of atldld's
    `DatasetDownloader`. Sections are in order of depth, or in that of the xarray.Dataset.

    Parameters
    ----------
    dataset : SectionDataset, int or xarray.Dataset
        A dataset, or its id, which needs neither xarray nor dask. Or the result of `open_sections`, also after
        selection (``isel``, ``sel``, ``where``), conversion (``astype``), computation or pickling; its images are
        fetched anew, whatever its values are.
    **options
        The arguments of `open_sections`: resolution, view, plane, client, ... None for an xarray.Dataset.

    Yields
    ------
    RegisteredSection
        image_id, coordinate, image, expression, displacement.

    Raises
    ------
    InputError
        If an option is unknown or does not fit the dataset; if an xarray.Dataset does not come from `open_sections`, or
        options are given with it.
    RecordError
        If the dataset cannot be registered.
    ImageError, ServiceError
        If an image is missing, during the iteration. With ``on_missing="fill"``, its pixels are those of the
        background, an AtlaszarrWarning is emitted, and its id is in ``attrs["missing"]`` of the xarray.Dataset.
    """
    if isinstance(dataset, SectionDataset | int | np.integer):
        opened = _open(dataset, **options).opened
        ids = list(opened.main.positions)
    elif options:
        raise InputError(
            f"option {next(iter(options))!r} is not supported for a Dataset; give it to open_sections",
            code="not-supported",
        )
    else:
        opened = _opened(dataset)
        ids = np.atleast_1d(dataset.coords["image_id"].values).tolist()
    return _sections(opened, ids)


def _sections(opened: _Opened, ids: Sequence[int]) -> Iterator[RegisteredSection]:
    """The sections in their order; the images of the next ones are fetched while the caller uses one."""
    rest, ahead = iter(ids), deque[Future[RegisteredSection]]()
    largest = max((request.width * request.height * 3 for request in opened.main.imaged.requests), default=1)
    most = max(1, min(_AHEAD, _AHEAD_BYTES // largest))
    pool = ThreadPoolExecutor(most, "atlaszarr-sections")
    try:
        ahead.extend(pool.submit(_section, opened, id) for id in islice(rest, most))
        while ahead:
            section = ahead.popleft().result()
            ahead.extend(pool.submit(_section, opened, id) for id in islice(rest, 1))
            yield section
    finally:
        # Without waiting for the images that are being fetched, which nobody needs.
        pool.shutdown(wait=False, cancel_futures=True)


class _Opening(NamedTuple):
    """What `open_sections` makes a Dataset of; `missing` is None if missing images are errors."""

    dataset: SectionDataset
    requests: Sequence[SectionsOptions]
    opened: _Opened
    missing: Any
    api_url: str


def _open(
    dataset: SectionDataset | int,
    *,
    view: str | Sequence[str] = "primary",
    fields: Fields = None,
    on_missing: str = "raise",
    client: AllenClient | None = None,
    **options: Any,
) -> _Opening:
    requests = SectionsOptions.of_views(view, options, written=False)
    client = client or AllenClient()
    fetch, missing = fetching(client, on_missing)
    dataset = client.imaged(dataset)
    given = fields_of(fields)
    views = {request.view: request.planes(dataset, stored=False, fields=given) for request in requests}
    opened = _Opened(views, fetch, requests[0].background, (client.images_url, on_missing), given)
    return _Opening(dataset, requests, opened, missing, client.api_url)


def opened_views(dataset: xr.Dataset) -> Mapping[str, SectionPlanes]:
    """The planes of each view of a Dataset of `open_sections`, by view; after the same steps as `iter_sections` takes.

    Raises
    ------
    InputError
        If the Dataset does not come from `open_sections`.
    """
    return _opened(dataset).views


def _opened(dataset: xr.Dataset) -> _Opened:
    image_id = dataset.coords.get("image_id")
    if image_id is None or _KEY not in image_id.encoding:
        raise InputError(
            "the Dataset lacks what open_sections keeps in the encoding of the coordinate 'image_id'; pass a result of "
            "open_sections, or of steps that keep its coordinates",
            code="unknown-dataset",
        )
    opened: _Opened = image_id.encoding[_KEY]
    return opened


def _section(opened: _Opened, id: int) -> RegisteredSection:
    planes, expression = opened.main, opened.views.get("expression")
    position = planes.positions[id]
    return RegisteredSection(
        id,
        float(planes.coordinates[position]),
        _image(planes, opened, id),
        None if expression is None or id not in expression.positions else _image(expression, opened, id),
        planes.displacements[position],
    )


def _coordinates(planes: SectionPlanes, encoding: Mapping[str, Any]) -> dict[str, Any]:
    grid, plane, sections = planes.grid, planes.plane, planes.imaged.sections
    across = {"units": "um", "axis": AXES[plane.fixed]}
    coordinates: dict[str, Any] = {
        "image_id": ("section", [section.image_id for section in sections], None, encoding),
        "section_number": ("section", [section.section_number for section in sections]),
        "coordinate": ("section", planes.coordinates, across),
        "rgb": ["red", "green", "blue"],
    }
    for name, axis in (("y", plane.rows), ("x", plane.columns)):
        coordinates |= grid.coordinates(axis, name)
    return coordinates


def _registered(planes: SectionPlanes, opened: _Opened, ids: Sequence[int], chunk: int) -> Any:
    """Sections as a dask array, uint8, (section, rows, columns, 3); background for a section without the view."""
    import dask.array as da
    from dask.base import tokenize
    from dask.highlevelgraph import HighLevelGraph

    background = opened.background
    identity = (planes.imaged.requests, planes.displacements, planes.interpolation)
    token = tokenize(identity, *opened.identity, background, chunk, list(ids))
    name, shared, fetched = f"registered-{token}", f"planes-{token}", f"{FETCHES}{token}"
    cut = regular(planes.shape, chunk)
    regions = list(blocks(cut))
    layer: dict[Any, Any] = {}
    images: dict[Any, Any] = {}
    for k, id in enumerate(ids):
        position = planes.positions.get(id)
        boxes: dict[Any, Box] = {}
        if position is not None:
            boxes = {index: box for index, block in regions if (box := planes.box(position, *block)) is not None}
        tier = _tier(planes, id, list(boxes.values())) if boxes else None
        for index, (rows, columns) in regions:
            key = (name, k, *index, 0)
            if tier is None or (box := boxes.get(index)) is None:
                shape = (1, rows.stop - rows.start, columns.stop - columns.start, 3)
                layer[key] = (np.full, shape, background, np.uint8)
                continue
            windows = []
            for request in tier.requests(box):
                windows.append((fetched, request.name))
                images[fetched, request.name] = (opened.fetch, request)
            layer[key] = (_register, shared, position, (rows, columns), tier, box, windows, background)
    graph = HighLevelGraph(
        {shared: {shared: planes}, fetched: images, name: layer},
        {shared: set(), fetched: set(), name: {shared, fetched}},
    )
    return da.Array(graph, name, chunks=((1,) * len(ids), *cut, (3,)), dtype="uint8")


def _register(
    planes: SectionPlanes,
    position: int,
    block: tuple[slice, slice],
    tier: TierImage,
    box: Box,
    images: Sequence[SectionImage | MissingImage],
    background: int,
) -> Pixels:
    pixels = tier.crop(box, pixels_of(images))
    registered, _ = planes.register(position, *block, box, pixels, background)
    return registered[np.newaxis]


def _image(planes: SectionPlanes, opened: _Opened, id: int) -> Any:
    """A section image at its tier, uint8, (height, width, 3): fetched now or, if large, lazy in chunks of windows."""
    tier = _tier(planes, id)
    if tier.windows == (1, 1):
        return _decode(opened.fetch(tier.whole), opened.background)
    import dask.array as da
    from dask.base import tokenize
    from dask.highlevelgraph import HighLevelGraph

    name = f"tier-{tokenize(tier, *opened.identity)}"
    (width, height), (across, down) = tier.size, tier.windows
    w, h = -(-width // across), -(-height // down)
    lefts, tops = range(0, width, w), range(0, height, h)
    layer = {}
    for j, top in enumerate(tops):
        for i, left in enumerate(lefts):
            (request,) = tier.requests((left, top, left + 1, top + 1))
            layer[name, j, i, 0] = (_decode, (opened.fetch, request), opened.background)
    chunks = (tuple(min(h, height - y) for y in tops), tuple(min(w, width - x) for x in lefts), (3,))
    return da.Array(HighLevelGraph({name: layer}, {name: set()}), name, chunks=chunks, dtype="uint8")


def _decode(image: SectionImage | MissingImage, background: int) -> Pixels:
    """The pixels of an image, the caller's own; the background if it is missing."""
    if isinstance(image, MissingImage):
        return np.full((image.request.height, image.request.width, 3), background, np.uint8)
    return image.pixels().copy()


def _tier(planes: SectionPlanes, id: int, boxes: Sequence[Box] | None = None) -> TierImage:
    position = planes.positions[id]
    return tier_image(planes.imaged.sections[position], planes.imaged.requests[position], boxes)

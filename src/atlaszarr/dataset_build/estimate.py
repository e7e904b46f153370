"""An estimate of the builds of many section datasets: the sum of their plans, or from the columns of a catalogue.

From a catalogue no record of a single dataset is made: the sums are equal in images and pixels but for images that
reach a corner of the grid, and close in bytes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..allen.client import AllenClient
from ..allen.images import LARGEST_WHOLE, WINDOW
from ..allen.records import (
    IMAGE_IDS,
    LARGEST_PIXEL_UM,
    LARGEST_SECTION_NUMBER,
    LONGEST_SIDE,
    MOST_TIERS,
    PLANE_NAMES,
    THICKEST_UM,
    apply_each,
    are_alignments,
)
from ..allen.search import criteria_of
from ..engine.notebook import table_html
from ..engine.pyramid import Pyramid, overlapped
from ..engine.writer import Progress
from ..errors import AtlaszarrError, InputError, NotFoundError, RecordError
from ..geometry.grid import Grid
from ..geometry.spaces import reference_space
from ..sections.options import VolumeOptions
from ..sections.stack import FILLS
from ..transforms import compose
from . import estimate_kernels
from .api import plan
from .layout import image_spec, section_spec
from .plan import JPEG_BYTES_PER_PIXEL, STORED_SHARE, Plan, megabytes

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from ..catalogue.catalogue import Catalogue
    from ..engine.multiscale import ArraySpec

#: Core-seconds of a build: for each dataset and view, for each million pixels decoded, and for each million voxels of
#: all levels. Measured on the phantom; see "Core-seconds of a build" in ``tests/benchmarks/README.md``.
_SECONDS, _SECONDS_PER_MEGAPIXEL, _SECONDS_PER_MEGAVOXEL = 0.036, 0.042, 0.013
#: Core-seconds of the refinement of a section at 25 um: 160 s for the 60 sections of 74272479.
_SECONDS_PER_REFINED = 2.7
#: Requests per second to the Allen API, the default of `AllenClient`.
_API_RATE = 20.0
#: Chunks that are marked at once, a byte each.
_MOST_CHUNKS = 2**24
#: Row groups of section images at once: about 65,000 rows, 30 MB.
_GROUPS = 16
_TIERS = 17
_DATASET_COLUMNS = ("id", "plane_of_section_id", "reference_space_id", "section_thickness")
_IMAGE_COLUMNS = (
    *("id", "data_set_id", "section_number", "width", "height", "resolution", "tier_count"),
    *("failed", "expression_path"),
)


@dataclass(frozen=True)
class Estimate:
    """The estimated costs of building many section datasets.

    Attributes
    ----------
    datasets : int
        Section datasets that match.
    registered : int
        Those of them that can be registered and have a section inside the grid; all other figures are theirs.
    images : int
        Section images, over all views.
    image_requests : int
        Requests for images, or windows of large ones.
    pixels : int
        Pixels of the requested images.
    download_bytes : int
        At 0.157 JPEG bytes per pixel, as in `atlaszarr.dataset_build.plan`.
    uncompressed_bytes, stored_bytes : int
        Bytes of all levels: uncompressed, and 12 % of that, as in `atlaszarr.dataset_build.plan`.
    core_hours : float
        From core-seconds that were measured on the phantom.
    """

    datasets: int = 0
    registered: int = 0
    images: int = 0
    image_requests: int = 0
    pixels: int = 0
    download_bytes: int = 0
    uncompressed_bytes: int = 0
    stored_bytes: int = 0
    core_hours: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """All attributes, as JSON types."""
        return asdict(self)

    def _repr_html_(self) -> str:
        """A table for notebooks."""
        return table_html("Estimate of builds", self.describe())

    def __add__(self, other: Estimate) -> Estimate:
        return Estimate(**{each.name: getattr(self, each.name) + getattr(other, each.name) for each in fields(self)})

    def refined(self, views: int) -> Estimate:
        """The same if each dataset is refined first, whose sections have so many views.

        The image cache keeps the images of a refinement for the build.
        """
        hours = _SECONDS_PER_REFINED * self.images / views / 3600
        return replace(self, core_hours=self.core_hours + hours)

    def describe(self) -> list[tuple[str, str]]:
        """Names and values to print, one pair for each line."""
        hours = self.image_requests / _API_RATE / 3600
        return [
            ("section datasets", f"{self.datasets:,}, {self.registered:,} of them can be registered"),
            ("images", f"about {self.images:,}, in {self.image_requests:,} requests"),
            ("pixels", f"about {self.pixels:,}"),
            ("download", f"about {megabytes(self.download_bytes)}, at {JPEG_BYTES_PER_PIXEL} bytes per pixel"),
            ("stored", f"about {megabytes(self.stored_bytes)}, of {megabytes(self.uncompressed_bytes)} uncompressed"),
            ("computing", f"about {_duration(self.core_hours)} of one core"),
            ("images from the API", f"at least {_duration(hours)}, at {_API_RATE:g} requests per second"),
        ]


def _duration(hours: float) -> str:
    if hours >= 1:
        return f"{hours:,.1f} hours"
    return f"{60 * hours:.1f} minutes" if 60 * hours >= 1 else f"{3600 * hours:.1f} seconds"


def estimate(
    catalogue: Catalogue,
    *,
    gene: str | None = None,
    plane: str | None = None,
    product: str | None = None,
    specimen: int | None = None,
    id: int | Sequence[int] | None = None,
    limit: int | None = None,
    mode: str = "volume",
    view: str | Sequence[str] = "primary",
    **options: Any,
) -> Estimate:
    """Estimate the cost of building the section datasets of a catalogue that meet all criteria.

    Parameters
    ----------
    catalogue : Catalogue
    gene, plane, product, specimen, limit
        Same as in `AllenClient.search`.
    id : int or sequence of int, optional
        Ids of section datasets.
    mode : str
        ``volume``; other modes are not estimated.
    view, **options
        Same as in `atlaszarr.build`.

    Returns
    -------
    Estimate

    Raises
    ------
    InputError
        If a criterion or an option is invalid, or the catalogue is damaged.
    """
    _refuse_mode(mode)
    views = VolumeOptions.of_views(view, options)
    single = id if isinstance(id, int) else None
    criteria, where = criteria_of(gene, plane, product, specimen, single, limit)
    rows = catalogue.matching("SectionDataSet", criteria, where)
    if id is not None and single is None:
        known = catalogue.table("SectionDataSet").read(["id"]).column("id").to_numpy()
        rows = rows[np.isin(known[rows], np.asarray(id))]
    rows = rows[:limit]
    datasets = _datasets(catalogue, rows)
    total = Estimate(datasets=len(rows))
    if not len(datasets):
        return total
    table = catalogue.table("SectionImage")
    low, high = datasets.index.min(), datasets.index.max()
    columns = [*_IMAGE_COLUMNS, *_alignment("alignment2d", "tsv", 6), *_alignment("alignment2d", "tvs", 6)]
    groups = [position for position, (first, last) in enumerate(table.ranges) if first <= high and last >= low]
    for start in range(0, len(groups), _GROUPS):
        images = _images(table.read(columns, groups[start : start + _GROUPS]).to_pandas(), datasets)
        if any(one.view != "primary" for one in views):  # a dataset without a view is not built
            images = images[images.groupby("data_set_id")["expression"].transform("any")]
        for space in images["space"].unique().tolist():
            chosen = images[images["space"] == space]
            for number, one in enumerate(views):
                total += _of_view(datasets, chosen, int(space), one, first=number == 0)
    return total


def estimate_plans(
    client: AllenClient,
    datasets: Sequence[int],
    *,
    mode: str = "volume",
    view: str | Sequence[str] = "primary",
    progress: Progress | None = None,
    **options: Any,
) -> tuple[Estimate, list[str]]:
    """Estimate the cost of building section datasets by the plan of each, with the records of the client.

    Parameters
    ----------
    client : AllenClient
    datasets : sequence of int
        Ids.
    mode, view, **options
        Same as in `estimate`.
    progress : callable, optional
        Called with the number of plans, their total and ``plans``.

    Returns
    -------
    total : Estimate
    failures : list of str
        Why a dataset cannot be built, for each that cannot.

    Raises
    ------
    InputError
        If an option is invalid.
    ServiceError
        If the records cannot be fetched.
    """
    _refuse_mode(mode)
    views = VolumeOptions.of_views(view, options)
    total, failures = Estimate(datasets=len(datasets)), []

    def planned(id: int) -> tuple[Plan, ...] | str:
        try:
            return plan(id, view=view, client=client, **options)
        except (NotFoundError, RecordError) as error:
            return str(error)

    pool = ThreadPoolExecutor(client.concurrency, "atlaszarr-plan")
    try:
        for done, found in enumerate(pool.map(planned, datasets), 1):
            if isinstance(found, str):
                failures.append(found)
            else:
                for number, (one, of_view) in enumerate(zip(views, found, strict=True)):
                    total += _of_plan(of_view, one, is_first=number == 0)
            if progress is not None:
                progress(done, len(datasets), "plans")
    finally:
        pool.shutdown(cancel_futures=True)
    return total, failures


def _of_plan(plan: Plan, options: VolumeOptions, is_first: bool) -> Estimate:
    voxels = plan.uncompressed_bytes / _bytes_per_voxel(options)
    return Estimate(
        registered=int(is_first),
        images=plan.sections_used,
        image_requests=plan.image_requests,
        pixels=plan.pixels,
        download_bytes=plan.download_bytes,
        uncompressed_bytes=plan.uncompressed_bytes,
        stored_bytes=plan.stored_bytes,
        core_hours=_core_seconds(1, plan.pixels, voxels) / 3600,
    )


def _core_seconds(builds: int, pixels: int, voxels: float) -> float:
    return _SECONDS * builds + _SECONDS_PER_MEGAPIXEL * pixels / 1e6 + _SECONDS_PER_MEGAVOXEL * voxels / 1e6


def _refuse_mode(mode: str) -> None:
    if mode != "volume":
        raise InputError(
            f"mode {mode!r} is not supported for an estimate; give mode volume, or the id of one section dataset",
            code="not-supported",
        )


def _alignment(association: str, name: str, entries: int) -> list[str]:
    return [f"{association}_{name}_{entry:02d}" for entry in range(entries)]


#: Points in um at which an alignment and its inverse are compared, as by `SectionDataset.from_json`.
_POINTS = ((0.0, 0.0, 0.0), (1e4, 0.0, 0.0), (0.0, 1e4, 0.0), (0.0, 0.0, 1e4))
_TVR, _TRV = (_alignment("alignment3d", name, 12) for name in ("tvr", "trv"))


def _datasets(catalogue: Catalogue, rows: NDArray[np.int64]) -> pd.DataFrame:
    """The section datasets of some rows that can be registered, by id: thickness, space, and alignment."""
    table = catalogue.table("SectionDataSet").read([*_DATASET_COLUMNS, *_TVR, *_TRV]).take(rows)
    frame: pd.DataFrame = table.to_pandas().set_index("id")
    valid = frame.notna().all(axis=1) & frame["plane_of_section_id"].isin(list(PLANE_NAMES))
    frame = frame[valid & frame["section_thickness"].between(0, THICKEST_UM, inclusive="right")]
    frame = frame[are_alignments(_affines(frame, _TVR), _affines(frame, _TRV), _POINTS)]
    spaces = {}
    for space in frame["reference_space_id"].unique():
        try:
            spaces[space] = reference_space(int(space)).frame.id
        except AtlaszarrError:  # it has no grid
            continue
    frame = frame.assign(space=frame["reference_space_id"].map(spaces))
    return frame.dropna(subset=["space"])


def _images(frame: pd.DataFrame, datasets: pd.DataFrame) -> pd.DataFrame:
    """The section images of some datasets that can be registered, in order of dataset and section number."""
    frame = frame[frame["data_set_id"].isin(datasets.index)]
    needed = [name for name in frame.columns if name not in ("failed", "expression_path", "tier_count")]
    valid = frame[needed].notna().all(axis=1) & ~frame["failed"].eq(True)
    limits = (
        *(("width", 1, LONGEST_SIDE), ("height", 1, LONGEST_SIDE), ("id", IMAGE_IDS[0], IMAGE_IDS[-1])),
        ("section_number", -LARGEST_SECTION_NUMBER, LARGEST_SECTION_NUMBER),
    )
    for name, low, high in limits:
        valid &= frame[name].between(low, high)
    valid &= frame["resolution"].between(0, LARGEST_PIXEL_UM, inclusive="right")
    valid &= frame["tier_count"].fillna(0).between(0, MOST_TIERS)
    frame = frame[valid]
    tsv, tvs = _planes(frame, "tsv"), _planes(frame, "tvs")
    width, height = (frame[name].to_numpy(np.float64) for name in ("width", "height"))
    corners = [apply_each(tsv, corner) for corner in ((0.0, 0.0), (width, 0.0), (0.0, height))]
    frame = frame[are_alignments(tvs, tsv, corners)]
    frame = frame.drop_duplicates(["data_set_id", "section_number"]).sort_values(["data_set_id", "section_number"])
    return frame.assign(
        space=datasets["space"].reindex(frame["data_set_id"]).to_numpy(),
        expression=frame["expression_path"].fillna("").ne("").to_numpy(),
    )


def _of_view(datasets: pd.DataFrame, images: pd.DataFrame, space: int, options: VolumeOptions, first: bool) -> Estimate:
    """The estimate of one view of datasets of one reference space."""
    grid = Grid(reference_space(space), options.resolution)
    pyramid = options.pyramid(grid.shape)
    ids, starts = np.unique(images["data_set_id"].to_numpy(), return_index=True)
    numbers = np.split(images["section_number"].to_numpy(), starts[1:])
    steps = dict(zip(ids.tolist(), map(_step, numbers), strict=True))
    if options.view != "primary":
        images = images[images["expression"]]
    tiers = _tiers(images, options)
    images = images[(images[["width", "height"]].min(axis=1).astype("int64") >> tiers) > 0]
    total = Estimate()
    cells = math.prod(-(-n // options.chunk) for n in grid.shape)
    at_once = max(1, _MOST_CHUNKS // cells)
    ids = images["data_set_id"].unique()
    for start in range(0, len(ids), at_once):
        part = ids[start : start + at_once]
        within = images[images["data_set_id"].isin(part)]
        chosen = datasets.loc[part].assign(step=[steps[id] for id in part])
        total += _of_datasets(chosen, within, grid, pyramid, options)
    return total if first else replace(total, registered=0)


def _step(numbers: NDArray[np.int64]) -> int:
    """The most common step between neighbouring section numbers, the smallest one on a tie."""
    if len(numbers) < 2:
        return 1
    steps, counts = np.unique(np.diff(numbers), return_counts=True)
    return int(steps[counts.argmax()])


def _tiers(images: pd.DataFrame, options: VolumeOptions) -> NDArray[np.int64]:
    """The tier of each image, as `atlaszarr.allen.images.tier_for` chooses it."""
    if options.downsample is not None:
        return np.full(len(images), options.downsample)
    longest = images[["width", "height"]].max(axis=1).to_numpy(float)
    formula = 1 + np.maximum(0, np.ceil(np.log2(longest / 256)))
    given = images["tier_count"].fillna(0).to_numpy(float)
    count = np.where(given > 0, given, formula)
    tiers = np.zeros(len(images), np.int64)
    for tier in range(1, _TIERS):
        fits = (images["resolution"].to_numpy() * 2.0**tier <= options.resolution) & (tier < count)
        tiers[fits] = tier
    return tiers


def _of_datasets(
    datasets: pd.DataFrame, images: pd.DataFrame, grid: Grid, pyramid: Pyramid, options: VolumeOptions
) -> Estimate:
    bounds = np.append(np.unique(images["data_set_id"].to_numpy(), return_index=True)[1], len(images))
    tvr, trv = (_affines(datasets, names) for names in (_TVR, _TRV))
    if options.mirror:
        mirror = grid.space.mirror
        tvr = np.array([compose(mirror, each) for each in tvr])
        trv = np.array([compose(each, mirror) for each in trv])
    sizes = images[["width", "height"]].to_numpy(np.float64)
    chunks = np.zeros((len(datasets), *(-(-n // options.chunk) for n in grid.shape)), np.uint8)
    used = np.zeros(len(images), np.uint8)
    estimate_kernels.mark_chunks(
        bounds.astype(np.int64),
        datasets["step"].to_numpy(np.float64),
        datasets["section_thickness"].to_numpy(np.float64),
        tvr,
        trv,
        images["section_number"].to_numpy(np.float64),
        _planes(images, "tsv"),
        _planes(images, "tvs"),
        sizes,
        grid.resolution,
        np.array(grid.shape, np.int64),
        options.chunk,
        FILLS.index(options.fill),
        float(options.max_gap),
        chunks,
        used,
    )
    images = images[used.astype(bool)]
    tiers = _tiers(images, options)
    width, height = (images[name].to_numpy(np.int64) >> tiers for name in ("width", "height"))
    whole = width * height <= LARGEST_WHOLE
    requests = np.where(whole, 1, -(-width // WINDOW) * -(-height // WINDOW))
    pixels, registered = int((width * height).sum()), int(chunks.any(axis=(1, 2, 3)).sum())
    voxels, uncompressed = _stored(chunks.astype(bool), pyramid, options)
    return Estimate(
        registered=registered,
        images=len(images),
        image_requests=int(requests.sum()),
        pixels=pixels,
        download_bytes=round(pixels * JPEG_BYTES_PER_PIXEL),
        uncompressed_bytes=uncompressed,
        stored_bytes=round(uncompressed * STORED_SHARE),
        core_hours=_core_seconds(registered, pixels, voxels) / 3600,
    )


def _affines(datasets: pd.DataFrame, names: Sequence[str]) -> NDArray[np.float64]:
    values = datasets[list(names)].to_numpy(np.float64)
    return np.concatenate([values[:, :9].reshape(-1, 3, 3), values[:, 9:, np.newaxis]], axis=2)


def _planes(images: pd.DataFrame, name: str) -> NDArray[np.float64]:
    values = images[_alignment("alignment2d", name, 6)].to_numpy(np.float64)
    return np.ascontiguousarray(values[:, [0, 1, 4, 2, 3, 5]].reshape(-1, 2, 3))


def _stored(chunks: NDArray[np.bool_], pyramid: Pyramid, options: VolumeOptions) -> tuple[int, int]:
    """Voxels of the units of all levels that are not empty, and their uncompressed bytes; see `NonEmptyChunks`."""
    top = pyramid.levels[0]
    units = chunks
    for axis, (chunk, unit) in enumerate(zip(top.chunk, top.unit, strict=True), 1):
        owner = {index: range(index * chunk // unit, index * chunk // unit + 1) for index in range(units.shape[axis])}
        units = _spread(units, axis, owner, top.grid[axis - 1])
    voxels = 0
    for parent, level in itertools.pairwise((top, *pyramid.levels)):
        if level is not top:
            for axis in range(3):
                spread = overlapped(parent, level, axis, range(parent.grid[axis]))
                units = _spread(units, axis + 1, spread, level.grid[axis])
        lengths = np.ones((1, 1, 1))
        for axis in range(3):
            starts = np.arange(level.grid[axis]) * level.unit[axis]
            along = np.minimum(starts + level.unit[axis], level.shape[axis]) - starts
            lengths = lengths * along.reshape([-1 if other == axis else 1 for other in range(3)])
        voxels += int((units.sum(axis=0) * lengths).sum())
    return voxels, voxels * _bytes_per_voxel(options)


def _bytes_per_voxel(options: VolumeOptions) -> int:
    specs: Sequence[ArraySpec] = (image_spec(options.background, options.grey), section_spec())
    return sum(spec.channels * np.dtype(spec.dtype).itemsize for spec in specs)


def _spread(units: NDArray[np.bool_], axis: int, owner: Mapping[int, range], length: int) -> NDArray[np.bool_]:
    """Mark, along an axis, the units that each marked unit overlaps."""
    spread = np.zeros((*units.shape[:axis], length, *units.shape[axis + 1 :]), np.bool_)
    marked, source = np.moveaxis(spread, axis, 0), np.moveaxis(units, axis, 0)
    for index, overlaps in owner.items():
        for other in overlaps:
            marked[other] |= source[index]
    return spread

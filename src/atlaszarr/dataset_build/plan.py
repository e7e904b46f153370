"""The plan of a build, made before it runs, and its report.

A plan is exact in requests, pixels, tasks and objects; bytes are estimates.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..allen import rma
from ..allen.client import AllenClient
from ..allen.image_source import ImageFetch
from ..allen.images import LIMIT as DECODED_LIMIT
from ..allen.images import MissingImage
from ..allen.records import SectionDataset
from ..boxes import shape_of
from ..engine.notebook import table_html
from ..engine.ome import zarr_format
from ..stores.target import Target
from .layout import BuildLayout

#: JPEG bytes per pixel: SectionImage 69177654 at downsample 2 as the Allen API serves it, 2980 x 1888 pixels.
JPEG_BYTES_PER_PIXEL = 0.157
#: Stored bytes per uncompressed byte: 0.100 and 0.116 in volumes of 69289763 and 74272479 with the pixels of
#: SectionImage 69177654 in every section image; most of it is the image, since zstd compresses the label well.
STORED_SHARE = 0.12
#: Resident bytes before the first block: the interpreter with NumPy, zarr and their imports.
_BASE_MEMORY = 350 * 2**20
#: build.json, ledger.jsonl, sections.csv, failures.csv.
_OTHER_OBJECTS = 4


@dataclass(frozen=True)
class SlideCosts:
    """What a build fetches of the slides of an image source.

    Attributes
    ----------
    source : str
        Folder or URL of the image source.
    objects : int
        Slides that are read.
    ranges : int
        Requests for parts of slides: one for the header of each, of 64 KiB or more, and those for strips or tiles.
    bytes : int
        Bytes of all parts.
    missing : int
        Section images that cannot be read, as far as the records and the headers of the slides show.
    reason : str
        Why, for the first of them; empty if there is none.
    """

    source: str
    objects: int
    ranges: int
    bytes: int
    missing: int = 0
    reason: str = ""


@dataclass(frozen=True)
class Plan:
    """The costs of building one view.

    Attributes
    ----------
    dataset : int
    view : str
    target : str or None
    shape : tuple of int
        Voxels of level 0 along (z, y, x).
    levels : int
    extent : str
        The shape and the number of levels in words.
    sections, sections_used : int
        Sections of the dataset that can be registered, and those of them that are inside the grid.
    sections_in_windows : int
        Sections used whose image is fetched in windows, to save bytes or to limit memory.
    metadata_requests, image_requests, images_cached : int
        Requests to the API for records and for images, and images or windows that are in the cache.
    pixels : int
        Pixels of the requested images.
    tasks : int
        Blocks computed and downsampled, and images fetched or read from the cache.
    objects : int
        Objects in the finished target.
    download_bytes : int
        Estimate: 0.157 JPEG bytes per pixel, measured on a real section image.
    uncompressed_bytes, stored_bytes : int
        Bytes of all levels: uncompressed, exact; stored, estimated at 12 % of them.
    memory_bytes : int
        Estimate of the peak of one process: 350 MB for the packages, the decoded images that are kept (at most 512 MB),
        and the memory of the largest block for every worker; see `BuildLayout.block_bytes`. Of slides, twice the bytes
        and pixels of the largest too; of refined fields, those that are kept (at most 128 MB).
    slides : SlideCosts or None
        If the images come from slides: no image is then requested from the API.
    registration : str
        If fields register sections beyond their records: how, in words.
    """

    dataset: int
    view: str
    target: str | None
    shape: tuple[int, int, int]
    levels: int
    extent: str
    sections: int
    sections_used: int
    sections_in_windows: int
    metadata_requests: int
    image_requests: int
    images_cached: int
    pixels: int
    tasks: int
    objects: int
    download_bytes: int
    uncompressed_bytes: int
    stored_bytes: int
    memory_bytes: int
    slides: SlideCosts | None = None
    registration: str = ""

    @property
    def requests(self) -> int:
        """All requests to the API."""
        return self.metadata_requests + self.image_requests

    def to_dict(self) -> dict[str, Any]:
        """All attributes and `requests`, as JSON types; `slides` and `registration` only if there are any."""
        record = {**asdict(self), "shape": list(self.shape), "requests": self.requests}
        for name in ("slides", "registration"):
            if not record[name]:
                del record[name]
        return record

    def describe(self) -> list[tuple[str, str]]:
        """Names and values to print, one pair for each line."""
        cached = f" ({self.images_cached} more are in the cache)" if self.images_cached else ""
        windows = f", {self.sections_in_windows} of them in windows" if self.sections_in_windows else ""
        return [
            ("section dataset", f"{self.dataset}, {self.view} view"),
            ("output", self.extent),
            ("sections", f"{self.sections_used} of {self.sections} are inside the grid{windows}"),
            *([("registration", self.registration)] if self.registration else []),
            (
                "requests",
                f"{self.requests}: {self.metadata_requests} for metadata, {self.image_requests} images{cached}",
            ),
            *self._slides(),
            ("pixels", f"{self.pixels:,}"),
            ("tasks", f"{self.tasks:,}"),
            ("objects", f"{self.objects:,}"),
            ("download", self._download()),
            ("stored", f"about {megabytes(self.stored_bytes)}, of {megabytes(self.uncompressed_bytes)} uncompressed"),
            ("memory", f"about {megabytes(self.memory_bytes)} at most"),
        ]

    def _repr_html_(self) -> str:
        """A table for notebooks."""
        return table_html("Plan of a build", [*self.describe(), *([("target", self.target)] if self.target else [])])

    def _slides(self) -> list[tuple[str, str]]:
        if self.slides is None:
            return []
        slides = self.slides
        text = f"{slides.objects} of {slides.source}, in {slides.ranges} ranges (`plan` itself fetches the headers)"
        lines = [("slides", text)]
        if slides.missing:
            lines.append(("missing", f"{slides.missing} section images; of the first: {slides.reason}"))
        return lines

    def _download(self) -> str:
        if self.slides is not None:
            return f"{megabytes(self.download_bytes)}"
        return f"about {megabytes(self.download_bytes)}, at {JPEG_BYTES_PER_PIXEL} bytes per pixel"


class Plans(tuple[Plan, ...]):
    """The plans of the views of a build, in a tuple that notebooks show as tables."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        """A table for each view, for notebooks."""
        return "".join(plan._repr_html_() for plan in self)


def megabytes(size: int) -> str:
    """A number of bytes in megabytes, as text."""
    return f"{size / 1e6:,.1f} MB"


def metadata_requests(dataset: SectionDataset, client: AllenClient) -> int:
    """Requests that `AllenClient.section_dataset` made for a dataset."""
    if client.catalogue is not None:
        return 0
    return 1 + rma.pages(len(dataset.sections) + len(dataset.skipped))


def price(
    layout: BuildLayout,
    client: AllenClient,
    workers: int,
    metadata_requests: int,
    target: str | None = None,
    fetches: Sequence[ImageFetch] | None = None,
) -> Plan:
    """The plan of a layout, with `AllenClient.fetches` of its images; images in the cache cost no request."""
    fetches = client.fetches(layout.images) if fetches is None else fetches
    non_empty = layout.non_empty
    pyramid = non_empty.pyramid
    multiscale = layout.multiscale(Target("memory://plan"))
    blocks = [list(non_empty.blocks(step)) for step in pyramid.passes]
    group_documents = 2 if zarr_format(layout.options.ome_zarr) == 2 else 1
    used, source = layout.images, client.image_source
    slides, cached = None, {request for fetch in fetches for request in fetch.cached}
    if source is not None:
        heads = {fetch.head.key: fetch.head for fetch in fetches if fetch.head is not None}
        ranges = sum(len(head.parts) for head in heads.values()) + sum(len(fetch.ranges) for fetch in fetches)
        read = sum(head.fetched for head in heads.values()) + sum(fetch.bytes for fetch in fetches)
        problems = {request.image_id: reason for fetch in fetches for request, reason in fetch.problems}
        reason = problems[min(problems)] if problems else ""
        slides = SlideCosts(source.url, len(heads), ranges, read, len(problems), reason)
    else:
        cached = {request for request in used if client.has_cached(request)}
    wanted = used - cached
    pixels = sum(request.width * request.height for request in wanted)
    decoded = sum(request.width * request.height * 3 for request in used)
    uncompressed = sum(
        sum(spec.channels * np.dtype(spec.dtype).itemsize for spec in multiscale.at(level))
        * sum(math.prod(shape_of(pyramid.levels[level].region(unit))) for unit in non_empty.units(level))
        for level in range(len(pyramid.levels))
    )
    largest = max((_slide_memory(fetch) for fetch in fetches), default=0) if slides else 0
    return Plan(
        dataset=layout.dataset.id,
        view=layout.options.view,
        target=target,
        shape=pyramid.shape,
        levels=len(pyramid.levels),
        extent=layout.extent,
        sections=len(layout.imaged.sections),
        sections_used=len({request.image_id for request in used}),
        sections_in_windows=len({request.image_id for request in used if request.left is not None}),
        metadata_requests=metadata_requests,
        image_requests=0 if slides else len(wanted),
        images_cached=len(used) - len(wanted),
        pixels=pixels,
        tasks=len(used) + sum(map(len, blocks)),
        objects=multiscale.objects
        + len(multiscale.documents())
        + group_documents * len(layout.groups)
        + len(layout.files)
        + _OTHER_OBJECTS,
        download_bytes=slides.bytes if slides else round(pixels * JPEG_BYTES_PER_PIXEL),
        uncompressed_bytes=uncompressed,
        stored_bytes=round(uncompressed * STORED_SHARE),
        memory_bytes=_BASE_MEMORY
        + min(decoded, DECODED_LIMIT)
        + workers * layout.block_bytes
        + 2 * largest
        + (0 if layout.fields is None else layout.fields.memory),
        slides=slides,
        registration=registration(layout),
    )


def registration(layout: BuildLayout) -> str:
    """How the sections of a layout are registered, in words; empty if by their records alone."""
    fields = layout.fields
    if fields is None:
        return ""
    counts = Counter(fields.registration(section.image_id) for section in layout.imaged.sections)
    words = ", ".join(f"{counts[name]} {name}" for name in ("refined", "own", "depth only", "recorded") if counts[name])
    if not fields.corrections:
        return words
    low, high = min(fields.corrections.values()), max(fields.corrections.values())
    return f"{words}; depths corrected by {low:.0f} to {high:.0f} um"


def _slide_memory(fetch: ImageFetch) -> int:
    return fetch.bytes + sum(3 * request.width * request.height for request in fetch.requests)


@dataclass(frozen=True)
class ViewReport:
    """The outcome of building one view of a dataset.

    Attributes
    ----------
    plan : Plan
    target : str
    state : str
        ``built``, ``resumed``, ``already finished``, or ``unfinished`` if images are missing.
    tasks_done : int
        Blocks computed and downsampled by this run.
    failures : tuple of MissingImage
        Images, or windows of images, that are missing: the voxels sampled from them are background.
    asset : str or None
        Location of the template asset ``/templates/NAME/VERSION`` in the tree of the atlas that it is registered in.
    listed_in : tuple of str
        Keys of the manifests that list it, in the same tree.
    images, stored_bytes : int
        Section images, or windows of them, that the target shows, and bytes of its chunks; of this run and of earlier
        ones.
    """

    plan: Plan
    target: str
    state: str
    tasks_done: int
    failures: tuple[MissingImage, ...]
    asset: str | None = None
    listed_in: tuple[str, ...] = ()
    images: int = 0
    stored_bytes: int = 0

    def to_dict(self) -> dict[str, Any]:
        """All attributes as JSON types."""
        failures = [{"image_id": f.request.image_id, "url": f.url, "reason": f.reason} for f in self.failures]
        return {
            "target": self.target,
            "state": self.state,
            "tasks_done": self.tasks_done,
            "failures": failures,
            "asset": self.asset,
            "listed_in": list(self.listed_in),
            "images": self.images,
            "stored_bytes": self.stored_bytes,
            "plan": self.plan.to_dict(),
        }

    def _repr_html_(self) -> str:
        """A table for notebooks."""
        reasons = [f"section image {failure.request.image_id}: {failure.reason}" for failure in self.failures]
        rows: list[tuple[str, object]] = [
            ("target", self.target),
            ("state", self.state),
            ("output", self.plan.extent),
            ("images", f"{self.images:,}"),
            ("stored", megabytes(self.stored_bytes)),
            *([("asset", self.asset)] if self.asset else []),
            *([("missing", reasons)] if reasons else []),
        ]
        return table_html(f"Section dataset {self.plan.dataset}, {self.plan.view} view", rows)


@dataclass(frozen=True)
class BuildReport:
    """The outcome of a build.

    Attributes
    ----------
    dataset : int
    views : tuple of ViewReport
        In the order of the option `view`; the first is written to the target itself.
    """

    dataset: int
    views: tuple[ViewReport, ...]

    @property
    def ok(self) -> bool:
        """Whether every view is finished, with all images or with missing images that were allowed."""
        return all(view.state != "unfinished" for view in self.views)

    def to_dict(self) -> dict[str, Any]:
        """All attributes and `ok`, as JSON types."""
        return {"dataset": self.dataset, "ok": self.ok, "views": [view.to_dict() for view in self.views]}

    def _repr_html_(self) -> str:
        """A table for each view, for notebooks."""
        return "".join(view._repr_html_() for view in self.views)

"""What a build will do, before it is done: exact in requests, pixels, tasks and objects; bytes are estimates."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..allen import rma
from ..allen.client import AllenClient
from ..allen.images import LIMIT as DECODED_LIMIT
from ..allen.records import SectionDataset
from ..boxes import shape_of
from ..engine.ome import zarr_format
from ..stores.target import Target
from .layout import Layout

#: JPEG bytes a pixel: SectionImage 69177654 at downsample 2 as the Allen API serves it, 2980 x 1888 pixels.
_JPEG_BYTES_A_PIXEL = 0.157
#: Stored by uncompressed bytes: 0.100 and 0.116 in volumes of 69289763 and 74272479 whose every section image had
#: the pixels of SectionImage 69177654; most of it is the image, since zstd leaves little of the label.
_STORED_SHARE = 0.12
#: Resident before the first block: the interpreter with numba, zarr and what they import, in bytes.
_BASE_MEMORY = 350 * 2**20
#: build.json, ledger.jsonl, sections.csv, failures.csv.
_OTHER_OBJECTS = 4


@dataclass(frozen=True)
class Plan:
    """What building one view will cost.

    Attributes
    ----------
    dataset : int
    view : str
    target : str or None
    shape : tuple of int
        Voxels of level 0 along (z, y, x).
    levels : int
    extent : str
        The shape and the levels in words.
    sections, sections_used : int
        Of the dataset that can be registered; of those, how many lie within the grid.
    sections_in_windows : int
        Of those used, how many images are fetched in windows, which is then cheaper or all that memory allows.
    metadata_requests, image_requests, images_cached : int
        Requests to the API, and images or windows that the cache has already.
    pixels : int
        Pixels of the images requested.
    tasks : int
        Blocks computed and coarsened, and images fetched or read from the cache.
    objects : int
        Objects in the finished target.
    download_bytes : int
        Estimate: pixels times 0.157, the JPEG bytes a pixel of a real section image.
    uncompressed_bytes, stored_bytes : int
        Of all levels: exact, and estimated at 12 % of it.
    memory_bytes : int
        Estimate of the peak of one process: 350 MB for the packages, the decoded images that are kept (512 MB),
        and for every worker what its largest block holds while it is computed; see `Layout.block_bytes`.
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

    @property
    def requests(self) -> int:
        """All requests to the API."""
        return self.metadata_requests + self.image_requests

    def to_dict(self) -> dict[str, Any]:
        """Everything in it, in JSON's types."""
        return {**asdict(self), "shape": list(self.shape), "requests": self.requests}

    def describe(self) -> list[tuple[str, str]]:
        """What a person is shown: name and value, line by line."""
        cached = f" ({self.images_cached} more are in the cache)" if self.images_cached else ""
        windows = f", {self.sections_in_windows} of them in windows" if self.sections_in_windows else ""
        return [
            ("section dataset", f"{self.dataset}, {self.view} view"),
            ("output", self.extent),
            ("sections", f"{self.sections_used} of {self.sections} lie within the grid{windows}"),
            (
                "requests",
                f"{self.requests}: {self.metadata_requests} for metadata, {self.image_requests} images{cached}",
            ),
            ("pixels", f"{self.pixels:,}"),
            ("tasks", f"{self.tasks:,}"),
            ("objects", f"{self.objects:,}"),
            ("download", f"about {_megabytes(self.download_bytes)}, at {_JPEG_BYTES_A_PIXEL} bytes a pixel"),
            ("stored", f"about {_megabytes(self.stored_bytes)}, of {_megabytes(self.uncompressed_bytes)} uncompressed"),
            ("memory", f"about {_megabytes(self.memory_bytes)} at most"),
        ]


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def metadata_requests(dataset: SectionDataset) -> int:
    """Requests that `AllenClient.section_dataset` made for a dataset."""
    return 1 + rma.pages(len(dataset.sections) + len(dataset.skipped))


def price(layout: Layout, client: AllenClient, workers: int, metadata_requests: int, target: str | None = None) -> Plan:
    """The plan of a layout, on a client whose cache may hold some of its images."""
    non_empty = layout.non_empty
    pyramid = non_empty.pyramid
    multiscale = layout.multiscale(Target("memory://plan"))
    blocks = [list(non_empty.blocks(step)) for step in pyramid.passes]
    documents = 2 if zarr_format(layout.request.ome_zarr) == 2 else 1  # of a group
    used = {request for images in layout.shows.values() for request in images}
    wanted = [request for request in used if not client.has_cached(request)]
    pixels = sum(request.width * request.height for request in wanted)
    decoded = sum(request.width * request.height * 3 for request in used)
    uncompressed = sum(
        sum(spec.channels * np.dtype(spec.dtype).itemsize for spec in multiscale.at(level))
        * sum(math.prod(shape_of(pyramid.levels[level].region(unit))) for unit in non_empty.units(level))
        for level in range(len(pyramid.levels))
    )
    return Plan(
        dataset=layout.dataset.id,
        view=layout.request.view,
        target=target,
        shape=pyramid.shape,
        levels=len(pyramid.levels),
        extent=layout.extent,
        sections=len(layout.imaged.sections),
        sections_used=len({request.image_id for request in used}),
        sections_in_windows=len({request.image_id for request in used if request.left is not None}),
        metadata_requests=metadata_requests,
        image_requests=len(wanted),
        images_cached=len(used) - len(wanted),
        pixels=pixels,
        tasks=len(used) + sum(map(len, blocks)),
        objects=multiscale.objects + len(multiscale.documents()) + documents * len(layout.groups) + _OTHER_OBJECTS,
        download_bytes=round(pixels * _JPEG_BYTES_A_PIXEL),
        uncompressed_bytes=uncompressed,
        stored_bytes=round(uncompressed * _STORED_SHARE),
        memory_bytes=_BASE_MEMORY + min(decoded, DECODED_LIMIT) + workers * layout.block_bytes,
    )

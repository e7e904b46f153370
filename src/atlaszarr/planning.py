"""What a build will do, before it is done: exact in requests, pixels, tasks and objects; bytes are estimates."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from .allen import rma
from .allen.client import AllenClient
from .allen.records import SectionDataset
from .encoding import Encoding
from .errors import RecordError
from .grid import Region
from .multiscale import ArraySpec, Multiscale
from .occupancy import Occupancy
from .ome import zarr_format
from .pyramid import Index, Pyramid, cells
from .request import VolumeRequest
from .stack import Stack
from .store import Target
from .volume import DECODED_LIMIT, Volume

#: Paths of the arrays: the root, and the label that says which image made each voxel.
IMAGE, SECTION = "", "labels/section"
#: JPEG bytes a pixel: SectionImage 69177654 at downsample 2 as the Allen API serves it, 2980 x 1888 pixels.
_JPEG_BYTES_A_PIXEL = 0.157
#: Stored by uncompressed bytes: 0.100 and 0.116 in volumes of 69289763 and 74272479 whose every section image had
#: the pixels of SectionImage 69177654; most of it is the image, since zstd leaves little of the label.
_STORED_SHARE = 0.12
#: Resident before the first block: the interpreter with numba, zarr and what they import, in bytes.
_BASE_MEMORY = 350 * 2**20
#: Groups of an image with one label.
_GROUPS = 3
#: build.json, ledger.jsonl, sections.csv, failures.csv.
_OTHER_OBJECTS = 4
_CHANNELS = 3
_VOXEL_BYTES = _CHANNELS + 4


@dataclass(frozen=True)
class Layout:
    """Everything about a build that follows from the records and the request alone.

    Attributes
    ----------
    dataset : SectionDataset
    request : VolumeRequest
    volume : Volume
    pyramid : Pyramid
    """

    dataset: SectionDataset
    request: VolumeRequest
    volume: Volume
    pyramid: Pyramid

    @classmethod
    def of(cls, dataset: SectionDataset, request: VolumeRequest) -> Layout:
        """Lay a dataset out as a request has it.

        Raises
        ------
        RecordError
            If no section lies within the grid.
        """
        stack = request.stack(dataset)
        pyramid = request.pyramid(stack)
        volume = Volume.cut(stack, request.chunk)
        if not volume.shown:
            raise RecordError(
                f"no section of dataset {dataset.id} shows a voxel of reference space {stack.grid.space.id} "
                f"at {stack.grid.resolution:g} um; try a finer resolution or another space"
            )
        return cls(dataset, request, volume, pyramid)

    @property
    def stack(self) -> Stack:
        """The sections over the grid."""
        return self.volume.stack

    @cached_property
    def occupancy(self) -> Occupancy:
        """The objects that hold anything."""
        chunk, (a, b, c) = self.volume.chunk, self.pyramid.levels[0].unit
        base = {(z * chunk // a, y * chunk // b, x * chunk // c) for z, y, x in self.volume.shown}
        return Occupancy(self.pyramid, frozenset(base))

    def multiscale(self, target: Target) -> Multiscale:
        """The image and the label that says where it comes from, in a target."""
        request = self.request
        image = ArraySpec(
            IMAGE, "uint8", ("c", "z", "y", "x"), _CHANNELS, request.background, rule="mean", mask=SECTION
        )
        section = ArraySpec(SECTION, "uint32", rule="mode_of_nonzero")
        encoding = Encoding(zarr_format=zarr_format(request.ome_zarr))
        return Multiscale(target, (image, section), self.occupancy, encoding)

    def blocks(self) -> list[Index]:
        """The blocks of level 0, in the order of the section stack."""
        return sorted(self.occupancy.blocks(self.pyramid.passes[0]), key=lambda index: (self.sections(index), index))

    def sections(self, block: Index) -> tuple[int, ...]:
        """The sections that a block of level 0 shows."""
        region = self.pyramid.region(self.pyramid.passes[0], block)
        chunks = cells(region, (self.volume.chunk,) * 3)
        return tuple(sorted({s for chunk in chunks for s in self.volume.shown.get(chunk, ())}))


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
    sections, sections_used : int
        Of the dataset that can be registered; of those, how many lie within the grid.
    metadata_requests, image_requests, images_cached : int
        Requests to the API, and images that the cache has already.
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
        and for every worker the largest superblock at two levels with the parts of images that it samples and
        one whole decoded image.
    """

    dataset: int
    view: str
    target: str | None
    shape: tuple[int, int, int]
    levels: int
    sections: int
    sections_used: int
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
        return [
            ("section dataset", f"{self.dataset}, {self.view} view"),
            ("volume", f"{' x '.join(map(str, self.shape))} voxels, {self.levels} levels"),
            ("sections", f"{self.sections_used} of {self.sections} lie within the grid"),
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
    stack, pyramid, occupancy = layout.stack, layout.pyramid, layout.occupancy
    multiscale = layout.multiscale(Target("memory://plan"))
    blocks = [list(occupancy.blocks(step)) for step in pyramid.passes]
    levels = range(len(pyramid.levels))
    documents = 2 if zarr_format(layout.request.ome_zarr) == 2 else 1  # of a group or an array
    used = [stack.requests[section] for section in layout.volume.used]
    wanted = [request for request in used if not client.has_cached(request)]
    pixels = sum(request.width * request.height for request in wanted)
    decoded = sum(request.width * request.height * 3 for request in used)
    voxels = sum(_voxels(pyramid.levels[level].region(unit)) for level in levels for unit in occupancy.units(level))
    largest = max(_block_bytes(layout, index) for index in blocks[0])
    return Plan(
        dataset=layout.dataset.id,
        view=layout.request.view,
        target=target,
        shape=pyramid.shape,
        levels=len(levels),
        sections=len(stack.sections),
        sections_used=len(used),
        metadata_requests=metadata_requests,
        image_requests=len(wanted),
        images_cached=len(used) - len(wanted),
        pixels=pixels,
        tasks=len(used) + sum(map(len, blocks)),
        objects=multiscale.objects + documents * (len(multiscale.arrays) * len(levels) + _GROUPS) + _OTHER_OBJECTS,
        download_bytes=round(pixels * _JPEG_BYTES_A_PIXEL),
        uncompressed_bytes=voxels * _VOXEL_BYTES,
        stored_bytes=round(voxels * _VOXEL_BYTES * _STORED_SHARE),
        memory_bytes=_BASE_MEMORY + min(decoded, DECODED_LIMIT) + workers * largest,
    )


def _block_bytes(layout: Layout, index: Index) -> int:
    """What computing a block holds: itself and its coarser levels, parts of images, and one whole decoded image."""
    region = layout.pyramid.region(layout.pyramid.passes[0], index)
    images = [layout.stack.requests[section] for section in layout.sections(index)]
    image: int = max(3 * request.width * request.height for request in images)
    return _voxels(region) * _VOXEL_BYTES * 9 // 8 + layout.stack.crop_bytes(region) + image


def _voxels(region: Region) -> int:
    return math.prod(axis.stop - axis.start for axis in region)

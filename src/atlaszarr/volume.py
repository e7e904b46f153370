"""The 3-D pull-back of a whole dataset: which chunk shows which images, and the lazy xarray.Dataset over them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .allen.client import AllenClient
from .allen.decoded import DECODED
from .allen.images import MissingImage, Pixels, SectionImage
from .allen.records import SectionDataset
from .credit import CREDIT
from .errors import InputError
from .grid import Region, blocks
from .pyramid import Index
from .request import VolumeRequest
from .stack import Stack

if TYPE_CHECKING:
    import xarray as xr

#: Each costs about a millisecond before anything is fetched.
_MOST_CHUNKS = 1_000_000


@dataclass(frozen=True)
class Volume:
    """A stack of sections cut into chunks, each knowing the images it shows.

    Attributes
    ----------
    stack : Stack
    chunk : int
        Side of a chunk in voxels.
    shown : dict of tuple of int to tuple of int
        For every chunk index, the sections it shows; a chunk that is empty by geometry is not in it.
    """

    stack: Stack
    chunk: int
    shown: dict[Index, tuple[int, ...]]

    @classmethod
    def cut(cls, stack: Stack, chunk: int) -> Volume:
        """Cut the grid of a stack into chunks.

        Raises
        ------
        InputError
            If there would be more chunks than one build can keep track of.
        """
        count = math.prod(-(-n // chunk) for n in stack.grid.shape)
        if count > _MOST_CHUNKS:
            raise InputError(
                f"resolution {stack.grid.resolution:g} um makes {count:,} chunks, more than {_MOST_CHUNKS:,}; "
                "ask for a coarser resolution or larger chunks"
            )
        cubes = list(blocks(stack.grid.shape, chunk))
        with ThreadPoolExecutor() as threads:
            found = threads.map(lambda cube: stack.shown(cube[1]), cubes)
        return cls(stack, chunk, {index: shown for (index, _), shown in zip(cubes, found, strict=True) if shown})

    @property
    def used(self) -> tuple[int, ...]:
        """The sections that any chunk shows."""
        return tuple(sorted({section for shown in self.shown.values() for section in shown}))


def compute_block(
    stack: Stack,
    region: Region,
    sections: Sequence[int],
    images: Sequence[SectionImage | MissingImage],
    background: int,
) -> tuple[Pixels, NDArray[np.uint32]]:
    """A block from the images of the sections it shows; those missing leave their voxels empty."""
    had = {s: image for s, image in zip(sections, images, strict=True) if isinstance(image, SectionImage)}
    return stack.pull_back(region, _Decoding(had), background)


class _Decoding(Mapping[int, Pixels]):
    """Images decoded when they are looked up, so that no more than one need be held at a time."""

    def __init__(self, images: Mapping[int, SectionImage]) -> None:
        self._images = images

    def __getitem__(self, section: int) -> Pixels:
        return DECODED.get(self._images[section])

    def __contains__(self, section: object) -> bool:
        return section in self._images

    def __iter__(self) -> Iterator[int]:
        return iter(self._images)

    def __len__(self) -> int:
        return len(self._images)


def open_volume(
    dataset: SectionDataset | int,
    resolution: float = 25.0,
    fill: str = "nearest",
    *,
    displacement: bool = False,
    client: AllenClient | None = None,
    **options: Any,
) -> xr.Dataset:
    """A whole section dataset as one lazy, registered volume.

    Nothing is fetched before it is computed; then each image is fetched once, however many blocks show it, and a
    block asks only for the images that it shows.

    Parameters
    ----------
    dataset : SectionDataset or int
        A dataset, or its id.
    resolution : float
        Voxel size in um.
    fill : str
        ``none``, ``nearest`` or ``linear``; see `atlaszarr.stack.stack_sections`.
    displacement : bool
        Whether to add the displacement field.
    client : AllenClient, optional
        Default: a client with its own defaults.
    **options
        Further fields of `atlaszarr.request.VolumeRequest`.

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
        If an option is not known or does not fit the dataset.
    RecordError
        If the dataset cannot be registered.
    ImageError, ServiceError
        When computed, if an image cannot be had.
    """
    import dask.array as da
    import xarray as xr
    from dask.base import tokenize
    from dask.highlevelgraph import HighLevelGraph

    client = client or AllenClient()
    if not isinstance(dataset, SectionDataset):
        dataset = client.section_dataset(dataset)
    request = VolumeRequest.of({"resolution": resolution, "fill": fill, **options})
    volume = Volume.cut(request.stack(dataset), request.chunk)
    stack, grid = volume.stack, volume.stack.grid
    token = tokenize(request.identity(dataset), client.api_url)

    fetches = {(f"section-image-{token}", section): (client.fetch, stack.requests[section]) for section in volume.used}
    shared = f"stack-{token}"
    computed: dict[Any, Any] = {}
    layers: dict[str, dict[Any, Any]] = {"image": {}, "section": {}, "displacement": {}}
    for index, region in blocks(grid.shape, request.chunk):
        block = (f"block-{token}", *index)
        sections = volume.shown.get(index, ())
        if sections:
            images = [(f"section-image-{token}", section) for section in sections]
            computed[block] = (compute_block, shared, region, sections, images, request.background)
            image: Any = (itemgetter(0), block)
            section: Any = (itemgetter(1), block)
            field: Any = (Stack.displacement, shared, region)
        else:
            shape = tuple(axis.stop - axis.start for axis in region)
            image = (np.full, (3, *shape), request.background, np.uint8)
            section = (np.zeros, shape, np.uint32)
            field = (np.full, (2, *shape), np.nan)
        layers["image"][(f"image-{token}", 0, *index)] = image
        layers["section"][(f"section-{token}", *index)] = section
        layers["displacement"][(f"displacement-{token}", 0, *index)] = field

    def array(name: str, lead: tuple[int, ...], dtype: str) -> Any:
        own = f"{name}-{token}"
        graph = HighLevelGraph(
            {shared: {shared: stack}, f"section-image-{token}": fetches, f"block-{token}": computed, own: layers[name]},
            {
                shared: set(),
                f"section-image-{token}": set(),
                f"block-{token}": {shared, f"section-image-{token}"},
                own: {shared if name == "displacement" else f"block-{token}"},
            },
        )
        z, y, x = grid.shape
        size = request.chunk
        chunks = tuple((*(n // size) * (size,), *((n % size,) if n % size else ())) for n in (z, y, x))
        return da.Array(graph, own, chunks=(*((n,) for n in lead), *chunks), dtype=dtype)

    zyx = ("z", "y", "x")
    variables = {
        "image": (("c", *zyx), array("image", (3,), "uint8")),
        "section": (zyx, array("section", (), "uint32")),
    }
    coordinates: dict[str, Any] = {"c": ["red", "green", "blue"]}
    for axis, (name, um) in enumerate(zip(zyx, ("p_um", "i_um", "r_um"), strict=True)):
        coordinates[name] = (name, grid.physical(axis), {"units": "mm"})
        coordinates[um] = (name, grid.centres(axis), {"units": "um"})
    if displacement:
        variables["displacement"] = (("component", *zyx), array("displacement", (2,), "float64"))
        coordinates["component"] = ["x", "y"]
    attributes = {
        "section_dataset": dataset.id,
        "reference_space": grid.space.id,
        "resolution_um": grid.resolution,
        "anchor_um": grid.space.anchor,
        **CREDIT,
    }
    return xr.Dataset(variables, coordinates, attributes)

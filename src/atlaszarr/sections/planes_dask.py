"""The images of sections as arrays of which only what is asked for is fetched: as they were taken, and registered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..allen.client import AllenClient
from ..allen.images import Pixels, SectionImage, TierImage, pixels_of, tier_image
from ..boxes import Box
from ..displacement.fields import blocks, regular
from .planes import SectionPlanes


@dataclass(frozen=True, eq=False)
class SectionArrays:
    """One view of a dataset's sections.

    Attributes
    ----------
    planes : SectionPlanes
    client : AllenClient
    block : int
        Side of a block, in pixels of a plane.
    """

    planes: SectionPlanes
    client: AllenClient
    block: int

    @cached_property
    def positions(self) -> dict[int, int]:
        """Where each SectionImage id stands among the planes."""
        return {section.image_id: k for k, section in enumerate(self.planes.imaged.sections)}

    def image(self, id: int) -> Any:
        """A section image at its tier: uint8, (height, width, 3); fetched here and now, or of a large one lazy."""
        tier = self._tier(self.positions[id])
        if tier.windows == (1, 1):
            return self.client.fetch(tier.whole).pixels().copy()
        return self._lazy(tier)

    def registered(self, ids: Sequence[int], background: int) -> Any:
        """The planes of sections.

        Parameters
        ----------
        ids : sequence of int
            SectionImage ids; one that lacks this view is all background.
        background : int

        Returns
        -------
        dask array, uint8, shape (section, rows, columns, 3)
        """
        import dask.array as da
        from dask.base import tokenize
        from dask.highlevelgraph import HighLevelGraph

        token = tokenize(_identity(self.planes), self.client.api_url, background, self.block, list(ids))
        name, shared, fetched = f"registered-{token}", f"planes-{token}", f"section-image-{token}"
        cut = regular(self.planes.shape, self.block)
        layer: dict[Any, Any] = {}
        images: dict[Any, Any] = {}
        for k, id in enumerate(ids):
            boxes = self._boxes(self.positions[id]) if id in self.positions else {}
            tier = self._tier(self.positions[id], list(boxes.values())) if boxes else None
            for (j, i), (rows, columns) in blocks(cut):
                key = (name, k, j, i, 0)
                if tier is None or (box := boxes.get((j, i))) is None:
                    shape = (1, rows.stop - rows.start, columns.stop - columns.start, 3)
                    layer[key] = (np.full, shape, background, np.uint8)
                    continue
                windows = []
                for request in tier.requests(box):
                    windows.append((fetched, request.name))
                    images[fetched, request.name] = (self.client.fetch, request)
                layer[key] = (_register, shared, self.positions[id], (rows, columns), tier, box, windows, background)
        graph = HighLevelGraph(
            {shared: {shared: self.planes}, fetched: images, name: layer},
            {shared: set(), fetched: set(), name: {shared, fetched}},
        )
        return da.Array(graph, name, chunks=((1,) * len(ids), *cut, (3,)), dtype="uint8")

    def _boxes(self, position: int) -> dict[tuple[int, int], Box]:
        """The pixels of a tier image that each block of a plane takes, if any."""
        found = (
            (index, self.planes.box(position, *block))
            for index, block in blocks(regular(self.planes.shape, self.block))
        )
        return {index: box for index, box in found if box is not None}

    def _tier(self, position: int, boxes: Sequence[Box] | None = None) -> TierImage:
        imaged = self.planes.imaged
        return tier_image(imaged.sections[position], imaged.requests[position], boxes)

    def _lazy(self, tier: TierImage) -> Any:
        """A tier image, a chunk a window."""
        import dask.array as da
        from dask.base import tokenize
        from dask.highlevelgraph import HighLevelGraph

        name = f"tier-{tokenize(tier, self.client.api_url)}"
        (width, height), (across, down) = tier.size, tier.windows
        w, h = -(-width // across), -(-height // down)
        lefts, tops = range(0, width, w), range(0, height, h)
        layer = {}
        for j, top in enumerate(tops):
            for i, left in enumerate(lefts):
                (request,) = tier.requests((left, top, left + 1, top + 1))
                layer[name, j, i, 0] = (_decoded, (self.client.fetch, request))
        chunks = (tuple(min(h, height - y) for y in tops), tuple(min(w, width - x) for x in lefts), (3,))
        return da.Array(HighLevelGraph({name: layer}, {name: set()}), name, chunks=chunks, dtype="uint8")


def _register(
    planes: SectionPlanes,
    position: int,
    block: tuple[slice, slice],
    tier: TierImage,
    box: Box,
    images: Sequence[SectionImage],
    background: int,
) -> Pixels:
    pixels = tier.crop(box, pixels_of(images))
    registered, _ = planes.register(position, *block, box, pixels, background)
    return registered[np.newaxis]


def _decoded(image: SectionImage) -> Pixels:
    return image.request.decode(image.body)


def _identity(planes: SectionPlanes) -> Any:
    return (planes.imaged.requests, planes.displacements, planes.interpolation)

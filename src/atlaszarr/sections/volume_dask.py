"""The arrays of a volume, of which only what is asked for is fetched and computed."""

from __future__ import annotations

from operator import itemgetter
from typing import Any

import numpy as np

from ..allen.client import AllenClient
from ..boxes import blocks, shape_of
from .stack import Stack
from .volume import Volume, compute_block

_Layer = dict[Any, Any]


def volume_arrays(volume: Volume, client: AllenClient, background: int, token: str) -> dict[str, Any]:
    """Lazy arrays over one graph: blocks that are computed together share what they fetch.

    Parameters
    ----------
    volume : Volume
    client : AllenClient
    background : int
    token : str
        Of all that decides what they hold.

    Returns
    -------
    dict of str to dask array
        ``image``, uint8, (3, z, y, x); ``section``, uint32, (z, y, x); ``displacement``, float64, (2, z, y, x).
    """
    import dask.array as da
    from dask.highlevelgraph import HighLevelGraph

    stack, tiers, fetched, block = (f"{name}-{token}" for name in ("stack", "tiers", "section-image", "block"))
    fetches: _Layer = {}
    computed: _Layer = {}
    layers: dict[str, _Layer] = {"image": {}, "section": {}, "displacement": {}}
    for index, region in blocks(volume.stack.grid.shape, volume.chunk):
        if sections := volume.shown.get(index, ()):
            images = []
            for request in volume.requests(region, sections):
                images.append((fetched, request.name))
                fetches[fetched, request.name] = (client.fetch, request)
            computed[block, *index] = (compute_block, stack, tiers, region, images, background)
            made: tuple[Any, ...] = (
                (itemgetter(0), (block, *index)),
                (itemgetter(1), (block, *index)),
                (Stack.displacement, stack, region),
            )
        else:
            shape = shape_of(region)
            made = (
                (np.full, (3, *shape), background, np.uint8),
                (np.zeros, shape, np.uint32),
                (np.full, (2, *shape), np.nan),
            )
        for (name, layer), task in zip(layers.items(), made, strict=True):
            lead = () if name == "section" else (0,)
            layer[f"{name}-{token}", *lead, *index] = task

    def array(name: str, lead: tuple[int, ...], dtype: str) -> Any:
        own = f"{name}-{token}"
        shared = {stack: {stack: volume.stack}, tiers: {tiers: volume.tiers}, fetched: fetches}
        below = {stack} if name == "displacement" else {block}
        graph = HighLevelGraph(
            {**shared, block: computed, own: layers[name]},
            {**{name: set() for name in shared}, block: {stack, tiers, fetched}, own: below},
        )
        chunks = da.core.normalize_chunks((*lead, *(volume.chunk,) * 3), (*lead, *volume.stack.grid.shape))
        return da.Array(graph, own, chunks=chunks, dtype=dtype)

    return {
        "image": array("image", (3,), "uint8"),
        "section": array("section", (), "uint32"),
        "displacement": array("displacement", (2,), "float64"),
    }

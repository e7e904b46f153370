"""Images that note how often each of their chunks is computed, in whatever process."""

import uuid
from collections import Counter

import dask.array as da
import numpy as np


def counted(shape, chunks, dtype, folder):
    """An image that notes every computation of a chunk as a file, in whatever process; and what it holds."""

    def block(block_id):
        if not isinstance(block_id, tuple):  # dask asks for the kind of a block first
            return np.zeros((1,) * len(shape), dtype)
        (folder / f"{block_id} {uuid.uuid4()}").touch()
        lengths = [axis[k] for axis, k in zip(normal, block_id, strict=True)]
        return np.random.default_rng(block_id).integers(0, 200, lengths).astype(dtype)

    folder.mkdir(exist_ok=True)
    normal = da.core.normalize_chunks(chunks, shape)
    return da.map_blocks(block, chunks=normal, dtype=dtype)


def computations(folder):
    """How often each chunk was computed."""
    return Counter(path.name.rpartition(" ")[0] for path in folder.iterdir())

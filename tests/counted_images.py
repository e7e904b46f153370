"""Images that count the computations of their chunks in all processes."""

import uuid
from collections import Counter

import dask.array as da
import numpy as np


def counted(shape, chunks, dtype, folder):
    """An array of random pixels that creates a file in a folder for every computation of a chunk."""

    def block(block_id):
        if not isinstance(block_id, tuple):  # dask calls it first to infer the type of a block
            return np.zeros((1,) * len(shape), dtype)
        (folder / f"{block_id} {uuid.uuid4()}").touch()
        lengths = [axis[k] for axis, k in zip(normal, block_id, strict=True)]
        return np.random.default_rng(block_id).integers(0, 200, lengths).astype(dtype)

    folder.mkdir(exist_ok=True)
    normal = da.core.normalize_chunks(chunks, shape)
    return da.map_blocks(block, chunks=normal, dtype=dtype)


def computations(folder):
    """The number of computations of each chunk."""
    return Counter(path.name.rpartition(" ")[0] for path in folder.iterdir())

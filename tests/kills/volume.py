"""Write an image with labels by `write_multiscales`: ``volume.py TARGET [STORAGE_OPTIONS]``.

Every process computes the same voxels. The kill tests run it as a child process.
"""

import json
import sys

import dask.array as da
import numpy as np

from atlaszarr.writing import write_multiscales

CHUNKS = ((16,) * 2, (16,) * 2, (16,) * 3)


def voxels(block_id):
    """A block of the image: noise with its position as the seed."""
    if not isinstance(block_id, tuple):  # dask asks for the kind of a block first
        return np.zeros((1, 1, 1), "uint8")
    return np.random.default_rng(block_id).integers(0, 200, (16, 16, 16)).astype("uint8")


def volume(block=voxels):
    """The image, with blocks computed by `block`, and the labels."""
    image = da.map_blocks(block, chunks=CHUNKS, dtype="uint8")
    return image, {"fifth": (image // 40).astype("uint32")}


def write(target, storage_options=None, **options):
    """Write the image and the labels in small chunks."""
    image, labels = volume()
    return write_multiscales(
        image, target, labels=labels, chunk=8, identity="noise", storage_options=storage_options, **options
    )


if __name__ == "__main__":
    write(sys.argv[1], json.loads(sys.argv[2]) if len(sys.argv) > 2 else None)

"""A user's own step between a registered dataset and its OME-Zarr: the stain, with the background taken off.

    python examples/your_own_step.py 69289763 stain.ome.zarr

The result has the levels, the section label, the metadata and the tables of `atlaszarr build`, and ngff-zarr reads it.
"""

import sys

import ngff_zarr
import numpy as np

import atlaszarr
from atlaszarr.writing import write_multiscales


def stain(block: np.ndarray) -> np.ndarray:
    """The darkness of each voxel below the bright background, from its darkest channel: float32, (1, z, y, x)."""
    return np.maximum(230 - block.min(axis=0, keepdims=True).astype(np.float32), 0)


def main(dataset: int, target: str) -> None:
    with atlaszarr.AllenClient() as client:
        opened = atlaszarr.open_volume(dataset, resolution=100, client=client)
        # Nothing is fetched yet: dask computes the step when a block is written, each section image is fetched once.
        inside = opened.section.data[np.newaxis] > 0
        darkness = opened.image.data.map_blocks(stain, chunks=((1,), *opened.image.chunks[1:]), dtype=np.float32)
        step = opened.isel(c=[0]).assign_coords(c=["stain"])
        step = step.assign(image=step.image.copy(data=np.where(inside, darkness, np.float32(0))))
        report = write_multiscales(step, target)  # the same command resumes it, and repairs it if it is damaged
    print(f"{report.target}: {report.state}, {'sound' if atlaszarr.verify(target).ok else 'damaged'}")

    for level in ngff_zarr.from_ngff_zarr(target).images:
        print(dict(zip(level.dims, level.data.shape, strict=True)), level.data.dtype, level.scale["x"], "mm")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])

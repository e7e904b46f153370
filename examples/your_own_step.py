"""
Your own step between a dataset and its OME-Zarr
================================================

The stain, with the background taken off. The result has the levels, the section label, the metadata and the tables of
``atlaszarr build``, and ngff-zarr reads it. ::

    python examples/your_own_step.py 69289763 stain.ome.zarr
"""

import sys

import matplotlib.pyplot as plt
import ngff_zarr
import numpy as np

import atlaszarr
from atlaszarr.writing import write_multiscales


def stain(block: np.ndarray) -> np.ndarray:
    """The darkness below the bright background, from the darkest channel: float32, (1, z, y, x)."""
    return np.maximum(230 - block.min(axis=0, keepdims=True).astype(np.float32), 0)


dataset, target = int(sys.argv[1]), sys.argv[2]
opened = atlaszarr.open_volume(dataset, resolution=100)
# Nothing is fetched yet: dask computes the step when a block is written, each section image is fetched once.
darkness = opened.image.data.map_blocks(stain, chunks=((1,), *opened.image.chunks[1:]), dtype=np.float32)
darkness = np.where(opened.section.data[np.newaxis] > 0, darkness, np.float32(0))
step = opened.isel(c=[0]).assign_coords(c=["stain"])
report = write_multiscales(step.assign(image=step.image.copy(data=darkness)), target)  # run again, it resumes
print(f"{report.target}: {report.state}, {'sound' if atlaszarr.verify(target).ok else 'damaged'}")
levels = ngff_zarr.from_ngff_zarr(target).images
for level in levels:
    print(dict(zip(level.dims, level.data.shape, strict=True)), level.data.dtype, level.scale["x"], "mm")

plt.colorbar(plt.imshow(levels[0].data[0, :, :, 36].T, "magma"), label="darkness, grey levels")  # of (c, z, y, x)
plt.gca().set(title="A sagittal plane", xlabel="anterior to posterior, voxels", ylabel="superior to inferior, voxels")
plt.savefig("your_own_step.png")

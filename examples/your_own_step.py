"""
Your own step between a dataset and its OME-Zarr
================================================

The stain without the background, with the levels, label, metadata and tables of ``atlaszarr build``. ::

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

drawn = plt.imshow(levels[0].data[0, :, :, 36].T, "magma", extent=(0, 13.2, 8, 0))  # of (c, z, y, x); mm
plt.colorbar(drawn, label="darkness, grey levels", shrink=0.7)
plt.gca().set(title="Stain, ML 3.65 mm", xlabel="anterior to posterior, mm", ylabel="superior to inferior, mm")
plt.savefig("your_own_step.png")

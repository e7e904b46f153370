"""
Register sections with a field of your own
==========================================

The alignment of the Allen Institute is affine. A deformable registration of each section is a displacement field after
it; here a smooth bulge stands for the result of your program. ::

    python examples/own_fields.py 69289763 deformed.ome.zarr

A field has for each pixel of the grid its position in an image.
"""

import sys

import matplotlib.pyplot as plt
import numpy as np

import atlaszarr
from atlaszarr.writing import write_multiscales

dataset, target = int(sys.argv[1]), sys.argv[2]
affine = atlaszarr.open_sections(dataset, resolution=100).isel(section=slice(6, 10))
rows, columns = np.indices((affine.sizes["y"], affine.sizes["x"]), dtype=float)
bulge = np.exp(-((rows - 40) ** 2 + (columns - 60) ** 2) / 2 / 15**2)  # 1 in the middle, 15 pixels wide
mine = atlaszarr.Displacement.from_deltas(-8 * bulge, 5 * bulge)  # in pixels of the grid

# %%
# Each field is composed after the alignment, and every section is sampled once, from its image.
fields = {image_id: alignment.compose(mine) for image_id, _, _, _, alignment in atlaszarr.iter_sections(affine)}
deformed = atlaszarr.open_sections(dataset, resolution=100, fields=fields).isel(section=slice(6, 10))
print(write_multiscales(deformed, target).state, target)

figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
for panel, sections, title in zip(axes, (affine, deformed), ("The alignment", "With the fields"), strict=True):
    panel.imshow(sections.image[2])
    panel.set(title=title, xlabel="anterior to posterior, pixels of 100 um", ylabel="superior to inferior, pixels")
axes[1].set_title("With the fields; lines: equal displacement")
figure.suptitle(f"A sagittal section, ML {float(affine.coordinate[2]) / 1000:.2f} mm; black: outside the image")
axes[1].contour(mine.norm.compute(), colors="black", linewidths=0.7)
figure.savefig("own_fields.png")

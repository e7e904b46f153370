"""
The retrosplenial area
======================

The volume of a region of an atlas, and where it lies. ::

    python examples/retrosplenial.py ccf/annotation-sets/allen-adult-mouse-annotation/2017/annotation.ome.zarr
    python examples/retrosplenial.py s3://BUCKET/.../annotation.ome.zarr '{"anon": true}'

A structure includes its descendants in the terminology, which is next to the annotation.
"""

import json
import sys

import matplotlib.pyplot as plt

import atlaszarr

annotation = sys.argv[1]
options = json.loads(sys.argv[2]) if len(sys.argv) > 2 else None
volumes = atlaszarr.region_volumes(annotation, storage_options=options).set_index("acronym")
region = volumes.loc["RSP"]
print(f"{region['name']}: {region['volume_mm3']:.2f} mm3")

# %%
# `region_mask` is lazy: with a label index, only the chunks that contain the region are read.
brain, inside = (atlaszarr.region_mask(annotation, None, name, storage_options=options) for name in ("root", "RSP"))
mm = (region["volume_mm3"] / region["voxels"]) ** (1 / 3)  # the side of a voxel, a cube

figure, axes = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained")
for panel, seen, axis, down in zip(axes, ("behind", "above"), (0, 1), ("inferior", "posterior"), strict=True):
    outline, thickness = brain.any(axis=axis).compute(), inside.sum(axis=axis).compute() * mm
    extent = (0, thickness.shape[1] * mm, thickness.shape[0] * mm, 0)
    panel.imshow(outline, "Greys", extent=extent, vmax=5)
    drawn = panel.imshow(thickness, "Reds", extent=extent, vmin=0, alpha=(thickness > 0).astype(float))
    panel.set(title=f"{region['name']}, seen from {seen}", xlabel="left to right, mm", ylabel=f"to {down}, mm")
figure.colorbar(drawn, ax=axes, label="thickness along the line of sight, mm")
figure.savefig("retrosplenial.png")

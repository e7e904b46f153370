"""
A volume in napari
==================

A volume and an annotation, each at its position in millimetres. ngff-zarr reads both, so that no plugin is needed. ::

    python examples/napari_volume.py nrp1.ome.zarr ANNOTATION

A coronal plane of both is also drawn by matplotlib, which needs no napari (``pip install "napari[all]"``).
"""

import importlib.util
import sys

import matplotlib.pyplot as plt
import numpy as np
from ngff_zarr import from_ngff_zarr

layers = []  # the levels, and as napari names them the size of a voxel and the centre of the first one along z, y, x
for path in sys.argv[1:3]:
    levels = from_ngff_zarr(path).images
    scale, translate = ([getattr(levels[0], name)[axis] for axis in "zyx"] for name in ("scale", "translation"))
    layers.append(([level.data for level in levels], {"scale": scale, "translate": translate}))
(volume, at), (annotation, on) = layers
if importlib.util.find_spec("napari"):
    import napari

    viewer = napari.Viewer()
    viewer.add_image(volume, channel_axis=0, colormap=["red", "green", "blue"], blending="additive", **at)
    viewer.add_labels(annotation, opacity=0.4, **on)
    napari.run()
figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
for levels, place, style in ((volume, at, {}), (annotation, on, {"cmap": "tab20", "alpha": 0.25})):
    (dz, dy, dx), (z, y, x) = place["scale"], place["translate"]
    plane = levels[0][..., round((7.0 - z) / dz), :, :].compute()
    edges = x - dx / 2, x + (plane.shape[-1] - 0.5) * dx, y + (plane.shape[-2] - 0.5) * dy, y - dy / 2
    shown = plane.transpose(1, 2, 0) if plane.ndim == 3 else np.ma.masked_equal(plane, 0) % 19
    axes.imshow(shown, extent=edges, **style)
axes.set(title="Coronal, z = 7.0 mm, regions in colour", xlabel="left to right, mm", ylabel="superior to inferior, mm")
figure.savefig("napari_volume.png")

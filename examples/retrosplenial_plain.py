"""
The retrosplenial area without atlaszarr
========================================

zarr, dask, pandas and matplotlib are enough: a table next to the annotation has the regions, its metadata the units. ::

    python examples/retrosplenial_plain.py ccf/annotation-sets/allen-adult-mouse-annotation/2017/annotation.ome.zarr
    python examples/retrosplenial_plain.py s3://BUCKET/.../annotation.ome.zarr '{"anon": true}'
"""

import json
import sys

import dask.array as da
import matplotlib.pyplot as plt
import pandas as pd
import zarr
from matplotlib.colors import ListedColormap

url, options = sys.argv[1], json.loads((*sys.argv[2:], "null")[0])
terminology = pd.read_csv(url.rpartition("/")[0] + "/terminology.csv", storage_options=options)
region = terminology[terminology["abbreviation"].str.startswith("RSP")]
name = region.loc[region["abbreviation"] == "RSP", "name"].item()
group = zarr.open_group(url, mode="r", storage_options=options)
(image,) = group.attrs["ome"]["multiscales"]  # OME-Zarr 0.5; its axes are z, y, x
labels = da.from_zarr(group[image["datasets"][0]["path"]])
size, start = (step[step["type"]] for step in image["datasets"][0]["coordinateTransformations"])
sides = {axis["name"]: axis["orientation"]["value"] for axis in image["axes"]}
print("axes:", *sides, labels.shape)
print(f"orientations: {sides}\nscale: {size} {image['axes'][0]['unit']}")
inside = da.isin(labels, region["annotation_value"].to_numpy())  # the values of the voxels
voxels, voxel_mm3 = int(inside.sum().compute()), size[0] * size[1] * size[2]
print(f"{voxels} voxels of {voxel_mm3:g} mm3\n{name}: {voxels * voxel_mm3:.2f} mm3")
z = int(inside.sum(axis=(1, 2)).compute().argmax())  # the coronal plane with most voxels of the region
drawn = {"interpolation": "nearest", "extent": (0, labels.shape[2] * size[2], labels.shape[1] * size[1], 0)}
plt.imshow(labels[z] > 0, "Greys", vmax=5, **drawn)
plt.imshow(inside[z], ListedColormap(["#00000000", "#cd2d3c"]), **drawn)
plt.gca().set(xlabel=f"{sides['x']}, mm", ylabel=f"{sides['y']}, mm")
plt.title(f"{name} in red: coronal plane at z = {start[0] + z * size[0]:.2f} mm")
plt.savefig("retrosplenial_plain.png")

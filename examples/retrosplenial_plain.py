"""
The retrosplenial area without atlaszarr
========================================

pandas reads the terminology next to the annotation, ngff-zarr the annotation, and dask counts voxels. ::

    python examples/retrosplenial_plain.py ccf/annotation-sets/allen-adult-mouse-annotation/2017/annotation.ome.zarr
    python examples/retrosplenial_plain.py s3://BUCKET/.../annotation.ome.zarr '{"anon": true}'
"""

import json
import math
import sys

import dask.array as da
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.colors import ListedColormap
from ngff_zarr import from_ngff_zarr

url, options = sys.argv[1], json.loads((*sys.argv[2:], "null")[0])
terminology = pd.read_csv(url.rpartition("/")[0] + "/terminology.csv", storage_options=options)
region = terminology[terminology["abbreviation"].str.startswith("RSP")]
name = region.loc[region["abbreviation"] == "RSP", "name"].item()
image = from_ngff_zarr(url, validate=True, storage_options=options).images[0]
sides = {axis: orientation.value.value for axis, orientation in image.axes_orientations.items()}
print("axes:", *image.dims, image.data.shape)
print(f"orientations: {sides}\nunits: {image.axes_units}\nscale: {image.scale}")
inside = da.isin(image.data, region["annotation_value"].to_numpy())  # the values of the voxels
voxels, voxel_mm3 = int(inside.sum().compute()), math.prod(image.scale.values())
print(f"{voxels} voxels of {voxel_mm3:g} mm3\n{name}: {voxels * voxel_mm3:.2f} mm3")

# %%
# The coronal section with most voxels of the region.
z = int(inside.sum(axis=(1, 2)).compute().argmax())
plt.imshow(image.data[z] > 0, "Greys", vmax=5, interpolation="nearest")
plt.imshow(inside[z], ListedColormap(["#00000000", "#cd2d3c"]), interpolation="nearest")
plt.title(f"{name} in red: coronal section at z = {image.translation['z'] + z * image.scale['z']:.2f} mm")
plt.gca().set(xlabel=f"{sides['x']}, voxels", ylabel=f"{sides['y']}, voxels")
plt.savefig("retrosplenial_plain.png")

"""
One slice, lazily from S3
=========================

Of a whole dataset only the section images in one coronal slice are fetched, from the Allen API or from a bucket. ::

    python examples/lazy_slice.py 69289763
    python examples/lazy_slice.py 100055044 s3://allen-mouse-brain-atlas

Storage options for another bucket follow as JSON. The records and the alignments come from the API.
"""

import json
import sys

import matplotlib.pyplot as plt
import numpy as np

import atlaszarr

dataset, source = (*sys.argv[1:], "api")[:2]
options = json.loads(sys.argv[3]) if len(sys.argv) > 3 else None
with atlaszarr.AllenClient(image_source=source, image_source_options=options) as client:
    volume = atlaszarr.open_volume(int(dataset), resolution=50, fill="linear", client=client)
    # Coordinates are millimetres from the first 10 um voxel; p_um is in the reference space.
    plane = volume.sel(z=7.0, method="nearest").compute()
sections = np.unique(plane.section)
print(f"p = {float(plane.p_um):.0f} um, from {np.count_nonzero(sections)} section images")

# %%
# xarray draws it by its coordinates.
figure, axes = plt.subplots(figsize=(7, 4.5))
plane.image.plot.imshow(x="x", y="y", rgb="c", yincrease=False, ax=axes)
axes.set(title=f"Dataset {dataset}, coronal plane at p = {float(plane.p_um) / 1000:.2f} mm; black: no section")
axes.set(xlabel="left to right, mm", ylabel="superior to inferior, mm", aspect="equal")
figure.savefig("slice.png")

"""
Regions on the left and on the right
====================================

The volumes of all regions of an atlas, which are counted in one pass. ::

    python examples/regions_by_hemisphere.py ccf/annotation-sets/allen-adult-mouse-annotation/2017/annotation.ome.zarr
    python examples/regions_by_hemisphere.py s3://BUCKET/.../annotation.ome.zarr '{"anon": true}'

The last line says which side of the data is left, and why.
"""

import json
import sys

import matplotlib.pyplot as plt

import atlaszarr

options = json.loads(sys.argv[2]) if len(sys.argv) > 2 else None
table = atlaszarr.region_volumes(sys.argv[1], by_hemisphere=True, storage_options=options)
held = table[table["voxels"] > 0].set_index("acronym")
shown = held[["volume_mm3", "volume_left_mm3", "volume_right_mm3"]].copy()
shown["left share"] = shown["volume_left_mm3"] / shown["volume_mm3"]
print(shown.to_string(float_format="{:.4f}".format))
print(f"{len(held)} regions; {table.attrs['hemispheres']}")

# %%
# The largest regions without descendants.
largest = held[held["voxels"] == held["voxels_direct"]].nlargest(12, "volume_mm3").set_index("name")
figure, axes = plt.subplots(figsize=(7, 5), layout="constrained")
largest[["volume_left_mm3", "volume_right_mm3"]].plot.barh(ax=axes, width=0.8)
axes.invert_yaxis()  # the largest first, in the order of the legend
axes.legend(["left", "right"], loc="lower right")
axes.set(xlabel="volume, mm3", ylabel="", title="The largest regions without descendants")
figure.savefig("regions_by_hemisphere.png")

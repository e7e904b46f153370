"""
Where is my gene expressed?
===========================

A dataset is built in two views, the section images and their masks of expression, and measured in every region. ::

    python examples/expression_by_region.py 74272479 nrp1.ome.zarr ANNOTATION

ANNOTATION is an atlas of ``atlaszarr atlas``, or any OME-Zarr of labels with a terminology.
"""

import sys

import matplotlib.pyplot as plt

import atlaszarr

dataset, target, annotation = int(sys.argv[1]), sys.argv[2], sys.argv[3]
atlaszarr.build(dataset, target, view=("primary", "expression"), resolution=100)
table = atlaszarr.region_statistics(target, annotation)
# Regions without descendants, not too small to be measured, and a third covered: sagittal datasets have one hemisphere.
is_measured = (table["volume_mm3"] >= 0.1) & (table["covered"] > table["voxels"] / 3)
leaves = table[is_measured & (table["voxels"] == table["voxels_direct"])]
top = leaves.nlargest(10, "density").set_index("acronym")
print(top[["name", "density", "intensity", "energy"]].round(3).to_string())

# %%
# Density is the part of the covered voxels that express. Intensity is a grey level, which is low where stain is dark.
major = ["Isocortex", "OLF", "HPF", "CTXsp", "STR", "PAL", "TH", "HY", "MB", "P", "MY", "CB"]
divisions = table[table["acronym"].isin(major) & is_measured]
figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
divisions.set_index("name")["density"][::-1].plot.barh(ax=axes, color="firebrick")
axes.set(xlabel="density: part of the covered voxels that express", ylabel="", title=f"Expression in dataset {dataset}")
figure.savefig("expression_by_region.png")

"""
A volume in BrainGlobe
======================

An atlas that BrainGlobe opens, and a section dataset that is registered in it as an additional reference. ::

    python examples/brainglobe_volume.py brainglobe-atlasapi annotation_100.nrrd template_100.nrrd 74272479

BrainGlobe requires this name of the folder. The files are those of the CCF, at 100 um.
"""

import sys

import matplotlib.pyplot as plt
from ngff_zarr import from_ngff_zarr

import atlaszarr

root, annotation, template, dataset = sys.argv[1:]
atlaszarr.build_atlas(root, annotation=annotation, template=template, layout=("assets", "brainglobe"))
view = atlaszarr.build(int(dataset), root, atlas=root, resolution=100, grey=True).views[0]
print(f"registered: {view.asset} in", *view.listed_in, sep="\n  ")

# %%
# After ``pip install brainglobe-atlasapi``, both open by their names.
try:
    from brainglobe_atlasapi import BrainGlobeAtlas

    atlas = BrainGlobeAtlas("allen-adult-mouse_100um", brainglobe_dir=".", check_latest=False)
    reference, volume = atlas.reference, atlas.additional_references[view.asset.split("/")[2]]
except ImportError:
    print("not installed: ngff-zarr reads the same files")
    paths = f"{root}/templates/allen-adult-mouse-stpt-template/2015/template.ome.zarr", view.target
    reference, volume = (from_ngff_zarr(path).images[0].data.compute() for path in paths)
titles = "The template, coronal at AP 6.55 mm", f"Dataset {dataset}; black: no section"
figure, axes = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
for panel, array, title in zip(axes, (reference, volume), titles, strict=True):
    panel.imshow(array[65], "gray", extent=(0, 11.4, 8, 0))  # mm
    panel.set(title=title, xlabel="left to right by the Allen Institute, mm", ylabel="superior to inferior, mm")
figure.savefig("brainglobe_volume.png")

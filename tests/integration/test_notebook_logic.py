"""The steps of the Allen Institute's notebooks on a tree in a bucket: with pandas, zarr, dask and ngff-zarr alone.

An atlas's manifest leads to its annotation set and terminology. The terminology's lists of descendants select the
voxels of a region among the labels, and ``annotation_values`` its channel among the masks.
"""

import ast
import json
import math
from pathlib import Path

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import zarr
from ngff_zarr import from_ngff_zarr

import institute_assets as institute
import lumps
from atlaszarr import Terminology, build_atlas

DATA = Path(__file__).parents[3] / "shared" / "data"


class Notebook:
    """What a notebook reads of a tree in a bucket, of which it knows the name of the atlas."""

    def __init__(self, bucket, root, atlas):
        import s3fs

        self.root, self.options = bucket.url(root), bucket.options
        self.store = s3fs.S3FileSystem(**bucket.options)
        (reference,) = self.manifest(f"/{atlas}")["annotation_sets"]
        self.location = reference["location"]
        terminology = self.manifest(self.location)["terminology"]["location"]
        with self.store.open(f"{self.root}{terminology}/terminology.csv") as file:
            self.terms = pd.read_csv(file, keep_default_na=False)

    def manifest(self, location):
        return json.loads(self.store.cat(f"{self.root}{location}/manifest.json"))

    def row(self, abbreviation):
        (row,) = self.terms[self.terms["abbreviation"] == abbreviation].to_dict("records")
        return row

    def image(self, name):
        return zarr.open_group(f"{self.root}{self.location}/{name}", mode="r", storage_options=self.options)

    def count(self, abbreviation):
        """Voxels and mm3 of a region at the finest level."""
        group = self.image("annotations_compressed.ome.zarr")
        level = group.attrs["ome"]["multiscales"][0]["datasets"][0]
        labels = da.from_zarr(group[level["path"]])
        values = ast.literal_eval(self.row(abbreviation)["descendant_annotation_values"])
        voxels = int(da.isin(labels, values).sum().compute())
        (scale,) = (step["scale"] for step in level["coordinateTransformations"] if step["type"] == "scale")
        return voxels, voxels * math.prod(scale)

    def mask(self, abbreviation):
        """The mask of a region at the finest level."""
        group = self.image("annotations.ome.zarr")
        level = group.attrs["ome"]["multiscales"][0]["datasets"][0]["path"]
        value = int(self.row(abbreviation)["annotation_value"])
        (channel,) = np.flatnonzero(group["annotation_values"][:] == value)
        return group[level][channel]

    def by_ngff_zarr(self):
        """The labels as ngff-zarr opens them, and the size of a voxel in mm3."""
        url = f"{self.root}{self.location}/annotations_compressed.ome.zarr"
        image = from_ngff_zarr(url, storage_options=self.options).images[0]
        return image.data, math.prod(image.scale[axis] for axis in "zyx")


@pytest.mark.slow
def test_a_tree_of_the_institute_is_counted_by_descendants_and_by_mask(remote, tmp_path):
    tree = institute.write_tree(tmp_path / "tree", masks=True)
    for path in tree.rglob("*"):
        if path.is_file():
            remote.write("institute", str(path.relative_to(tree)), path.read_bytes())
    notebook = Notebook(remote, "institute", institute.ATLAS)
    assert notebook.count("LL") == (480, pytest.approx(lumps.LL_MM3))
    assert notebook.count("grey")[0] == notebook.mask("grey").sum() == np.count_nonzero(lumps.labels())
    assert notebook.mask("LL").sum() == 480


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(not DATA.is_dir(), reason="needs the real data in ../shared/data")
def test_the_ccf_has_the_published_volume_of_the_retrosplenial_area(remote):
    # Every fourth voxel of 25 um. Those of 25 um, whose masks take minutes, are 672,063 voxels and 10.50098 mm3.
    expected, mm3 = 10455, 10.455
    ontology = Terminology.read(DATA / "ontology/structure_graph_1.json")
    root = "ccf"
    build_atlas(
        remote.url(root),
        annotation=DATA / "ccf/annotation_100_every4th_of_25.nrrd",
        ontology=ontology,
        layout="assets",
        storage_options=remote.options,
    )
    notebook = Notebook(remote, root, "atlases/allen-adult-mouse-ccf-atlas/2017")
    voxels, volume = notebook.count("RSP")
    assert voxels == expected
    assert volume == pytest.approx(mm3, abs=5e-5)
    assert notebook.mask("RSP").sum() == voxels
    # A structure without descendants has itself among them.
    leaf = next(row for row in notebook.terms.to_dict("records") if row["abbreviation"] == "RSPv1")
    assert leaf["annotation_value"] in ast.literal_eval(leaf["descendant_annotation_values"])
    assert notebook.mask("RSPv1").sum() == notebook.count("RSPv1")[0] > 0
    labels, size = notebook.by_ngff_zarr()
    values = [structure.id for structure in ontology.descendants("RSP")]
    assert int(da.isin(labels, values).sum().compute()) * size == pytest.approx(volume)

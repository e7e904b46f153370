"""What other programs make of every version, as the table of docs/reading.md says; tests/peers holds the other rows."""

import re
from pathlib import Path

import ngff_zarr
import numpy as np
import pytest
import tensorstore
import xarray as xr
import yaozarrs
import zarr

from atlaszarr import Terminology, build_atlas
from atlaszarr.testing.ontology import structure_graph
from atlaszarr.testing.phantom import default_phantom
from atlaszarr.testing.phantom_volumes import annotation_nrrd

PAGE = Path(__file__).parents[2] / "docs/reading.md"
VERSIONS = ("0.4", "0.5", "0.6")
CORONAL = 74272479
OPTIONS = {"resolution": 200, "chunk": 32}
#: Kinds of images, with the options of `build`; an annotation is built by `build_atlas`.
BUILT = {"volume": {}, "sharded volume": {"shard": 64}, "grey volume": {"grey": True}, "section": {"mode": "sections"}}
CASES = [(k, v) for k in (*BUILT, "annotation") for v in VERSIONS if (k, v) != ("sharded volume", "0.4")]

pytestmark = pytest.mark.filterwarnings("ignore:Object at atlaszarr")


def word(program, version):
    """What the table says of a program and a version."""
    (row,) = re.findall(rf"^\| [^|]*{re.escape(program)}[^|]*\|(.*)\|$", PAGE.read_text(), re.MULTILINE)
    return dict(zip(VERSIONS, map(str.strip, row.split("|")), strict=False))[version]


@pytest.fixture(scope="module")
def image(built, made_once):
    """Builds an image once for all tests; returns its path, and the size and the place of its first voxel in mm."""

    def build_image(kind, version):
        target = built(CORONAL, ome_zarr=version, **OPTIONS, **BUILT[kind])
        return target / "7" if kind == "section" else target

    def build_annotation(version):
        def make(path):
            path.mkdir()
            (path / "x.nrrd").write_bytes(annotation_nrrd(default_phantom(), 200))
            ontology = Terminology.from_structure_graph(structure_graph()["msg"])
            build_atlas(path / "atlas", annotation=path / "x.nrrd", ontology=ontology, ome_zarr=version)

        (found,) = made_once(f"annotation for others {version}", make).glob("atlas/*/*/*/annotation.ome.zarr")
        return found

    def made(kind, version):
        path = build_annotation(version) if kind == "annotation" else build_image(kind, version)
        return path, [0.025 if kind == "section" else 0.2, 0.2, 0.2], [0.095] * 3

    return made


@pytest.mark.parametrize(("kind", "version"), CASES)
def test_ngff_zarr_reads_valid_metadata_voxels_and_places(image, kind, version):
    path, scale, first = image(kind, version)
    assert word("ngff-zarr", version) == "yes"
    read = ngff_zarr.from_ngff_zarr(str(path), validate=True).images[0]
    assert [read.scale[axis] for axis in "zyx"] == scale
    assert [read.translation[axis] for axis in "yx"] == first[1:]
    if kind != "section":
        assert read.translation["z"] == first[0]
    np.testing.assert_array_equal(read.data, zarr.open_array(path / "0", mode="r")[:])


@pytest.mark.parametrize(("kind", "version"), CASES)
def test_tensorstore_reads_the_voxels(image, kind, version):
    path, _, _ = image(kind, version)
    assert word("tensorstore", version) == "yes"
    spec = {"driver": "zarr" if version == "0.4" else "zarr3", "kvstore": {"driver": "file", "path": f"{path}/0"}}
    stored = zarr.open_array(path / "0", mode="r")[:]
    np.testing.assert_array_equal(tensorstore.open(spec).result().read().result(), stored)
    assert stored.any()


@pytest.mark.parametrize(("kind", "version"), CASES)
def test_xarray_opens_a_level_or_misses_the_names_of_its_axes(image, kind, version):
    path, _, _ = image(kind, version)
    options = {"engine": "zarr", "consolidated": False, "drop_variables": ["1", "2", "3"]}
    if word("xarray", version) == "refused":
        with pytest.raises(KeyError, match="_ARRAY_DIMENSIONS"):
            xr.open_dataset(path, **options)
    else:
        assert xr.open_dataset(path, **options)["0"].dims[-3:] == ("z", "y", "x")


def test_xarray_opens_no_tree_of_levels_that_are_in_one_group(image):
    pytest.importorskip("xarray", "2024.10", reason="xarray.open_datatree")
    path, _, _ = image("volume", "0.5")
    with pytest.raises(ValueError, match="conflicting sizes"):
        xr.open_datatree(path, engine="zarr", consolidated=False)


@pytest.mark.parametrize(("kind", "version"), CASES)
def test_yaozarrs_validates_the_versions_that_it_knows(image, kind, version):
    path, _, _ = image(kind, version)
    target = path.parent if kind == "section" else path
    if word("yaozarrs", version) == "refused":
        with pytest.raises(Exception, match=r"0\.6|version"):
            yaozarrs.validate_zarr_store(str(target))
    else:
        yaozarrs.validate_zarr_store(str(target))

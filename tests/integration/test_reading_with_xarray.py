"""docs/reading.md: xarray alone opens the levels of an image, with the coordinates of its voxels."""

import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import zarr

from atlaszarr import build, open_volume

pytest.importorskip("xarray", "2024.10", reason="xarray.DataTree")
pytestmark = pytest.mark.filterwarnings("ignore:Object at atlaszarr")

PAGE = Path(__file__).parents[2] / "docs/reading.md"
CORONAL = 74272479
OPTIONS = {"resolution": 200, "chunk": 32}


@pytest.fixture
def coronal(built):
    return partial(built, CORONAL, **OPTIONS)


@pytest.fixture(scope="module")
def blocks():
    """The Python of the page."""
    return re.findall(r"```py\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def open_pyramid(blocks):
    names = {}
    exec(blocks[0], names)
    return names["open_pyramid"]


@pytest.mark.parametrize("options", [{}, {"ome_zarr": "0.6"}, {"shard": 64, "levels": 2}, {"grey": True}])
def test_a_volume_opens_with_the_coordinates_of_open_volume(allen, coronal, open_pyramid, options):
    tree = open_pyramid(coronal(**options))
    lazy = open_volume(CORONAL, client=allen, **OPTIONS)
    for axis in "zyx":
        # xarray drops voxels whose coordinates differ in the last bit.
        np.testing.assert_array_equal(tree["0"][axis], lazy[axis])
        assert tree["0"][axis].attrs["units"] == "millimeter"
    assert tree["0"].image.chunks is not None
    for level in tree.children:
        stored = zarr.open_array(coronal(**options) / level, mode="r")[:]
        np.testing.assert_array_equal(tree[level].image, stored)
    # A level of doubled voxels begins half a finer voxel later.
    np.testing.assert_allclose(tree["1"].z[0], tree["0"].z[:2].mean(), rtol=0, atol=1e-12)


def test_the_lines_of_the_page_run(coronal, blocks, monkeypatch):
    names = {}
    target = coronal()
    monkeypatch.chdir(target.parent)
    exec(blocks[0], names)
    exec(blocks[1].replace("nrp1.ome.zarr", target.name), names)
    assert names["tree"]["2"].image.dims == ("c", "z", "y", "x")


def test_a_section_and_a_label_open_too(coronal, open_pyramid):
    sections = coronal(mode="sections")
    section = open_pyramid(sections / "7")["0"]
    assert section.image.shape == (3, 1, 40, 57)
    label = open_pyramid(coronal() / "labels/section")["0"]
    assert label.image.dims == ("z", "y", "x")
    whole = open_pyramid(coronal())["0"]
    assert all(label[axis].equals(whole[axis]) for axis in "zyx")
    assert np.isin(np.unique(open_pyramid(sections / "7/labels/section")["0"].image), label.image.compute()).all()


def test_an_image_in_a_bucket_opens_too(allen, coronal, open_pyramid, remote):
    url = remote.url("x.ome.zarr")
    assert build(CORONAL, url, client=allen, storage_options=remote.options, **OPTIONS).ok
    tree, local = open_pyramid(url, storage_options=remote.options), open_pyramid(coronal())
    assert tree["1"].equals(local["1"])


def test_a_web_server_with_lists_of_folders_and_without_ranges_serves_arrays_without_shards(
    coronal, open_pyramid, web, tmp_path
):
    (tmp_path / "x.ome.zarr").symlink_to(coronal())
    (tmp_path / "sharded.ome.zarr").symlink_to(coronal(shard=64, levels=2))
    tree, local = open_pyramid(f"{web}/x.ome.zarr"), open_pyramid(coronal())
    assert tree["1"].equals(local["1"])
    with pytest.raises(ValueError, match="checksum"):  # it takes the first bytes of a shard for its index
        open_pyramid(f"{web}/sharded.ome.zarr")["0"].load()

"""Levels, label groups and arrays of OME-Zarr images on web servers that list nothing, and in other stores."""

import warnings

import fsspec
import numpy as np
import pytest
import zarr

import lumps
from atlaszarr import Terminology, region_volumes
from atlaszarr.engine.ome import Geometry
from atlaszarr.errors import AtlaszarrWarning, InputError, TargetError
from atlaszarr.geometry.plane import PLANES
from atlaszarr.geometry.spaces import ORIENTATION, reference_space
from atlaszarr.previews.annotation_planes import label_planes
from atlaszarr.reference_volumes import open_annotation
from atlaszarr.writing import write_multiscales
from codes import raises
from quiet_web import Forbidding, Quiet, web

TERMINOLOGY = Terminology.from_structure_graph(lumps.graph())


@pytest.fixture(params=[Quiet, Forbidding])
def served(request, tmp_path):
    with web(tmp_path, request.param) as url:
        yield tmp_path, url


def assert_read_right(url, folder):
    table = region_volumes(url, TERMINOLOGY, by_hemisphere=True)
    assert table.loc[10, "volume_left_mm3"] == pytest.approx(lumps.LL_MM3)
    with open_annotation(url, folder) as volume:
        np.testing.assert_array_equal(volume.array, lumps.labels())
    (plane,) = label_planes(url, PLANES["coronal"], [5100.0], 200.0, reference_space(9))
    np.testing.assert_array_equal(plane.labels, lumps.labels()[25])


@pytest.mark.first(3)
@pytest.mark.parametrize("ome_zarr", ["0.4", "0.5", "0.6"])
def test_a_label_group_and_a_level_are_read_from_a_web_server(served, ome_zarr):
    folder, url = served
    geometry = Geometry((0.2,) * 3, orientation=ORIENTATION)
    labels = {"x": lumps.labels()}
    write_multiscales(lumps.template(), folder / "x.ome.zarr", labels=labels, geometry=geometry, ome_zarr=ome_zarr)
    assert_read_right(f"{url}/x.ome.zarr/labels/x", folder)
    assert_read_right(f"{url}/x.ome.zarr/labels/x/0", folder)
    (gone,) = (folder / "x.ome.zarr/labels/x/0").rglob("0/0/0")
    gone.unlink()
    with raises(TargetError, "missing-chunk"):
        region_volumes(f"{url}/x.ome.zarr/labels/x/0", TERMINOLOGY)


def test_a_level_is_read_from_any_store(tmp_path):
    geometry = Geometry((0.2,) * 3, orientation=ORIENTATION)
    write_multiscales(lumps.labels(), "memory://levels/x.ome.zarr", rule="mode", geometry=geometry)
    assert_read_right("memory://levels/x.ome.zarr/0", tmp_path)
    fsspec.filesystem("memory").rm("/levels", recursive=True)


def test_a_collection_on_a_web_server_names_its_images(served):
    folder, url = served
    zarr.open_group(folder / "x.zarr", mode="w", zarr_format=2).attrs["bioformats2raw.layout"] = 3
    with raises(InputError, "not-an-image") as caught:
        region_volumes(f"{url}/x.zarr", TERMINOLOGY)
    assert str(caught.value).endswith(f"{url}/x.zarr/0")


def test_an_array_without_an_image_is_read_from_a_web_server(served):
    folder, url = served
    zarr.save_array(folder / "x.zarr", lumps.labels(), zarr_format=2)
    with raises(InputError, "missing-voxel-size"):
        region_volumes(f"{url}/x.zarr", TERMINOLOGY)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AtlaszarrWarning)
        table = region_volumes(f"{url}/x.zarr", TERMINOLOGY, voxel_size=200.0)
    assert table.loc[10, "volume_mm3"] == pytest.approx(lumps.LL_MM3)

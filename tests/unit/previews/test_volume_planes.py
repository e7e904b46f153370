"""Planes of annotations and templates over a grid, what identifies a volume, and processes that do not see it."""

import pickle
import shutil

import nrrd
import numpy as np
import pytest
from dask.array import from_array

from atlaszarr.dataset_build.records import geometry
from atlaszarr.errors import InputError, SchedulerError
from atlaszarr.geometry.grid import Grid
from atlaszarr.geometry.plane import PLANES
from atlaszarr.geometry.spaces import reference_space
from atlaszarr.previews.annotation_planes import open_planes
from atlaszarr.writing import write_multiscales
from codes import raises

SPACE = reference_space(9)
SHAPE = Grid(SPACE, 200).shape


def labels():
    return np.arange(np.prod(SHAPE), dtype=np.uint32).reshape(SHAPE) % 60_000


def greys():
    return (labels() / 7).astype(np.float32)


def write(folder, kind, values):
    path = folder / kind
    if kind.endswith(".nrrd"):
        header = {"space": "left-posterior-superior", "space directions": np.diag([0.2] * 3), "encoding": "gzip"}
        # (p, i, r) with superior and left first are (r, p, i) of a file whose axes run to the right, back and down.
        turned = values.transpose(2, 0, 1)[::-1, :, ::-1]
        nrrd.write(str(path), turned, header)
    else:
        write_multiscales(from_array(values, chunks=32), path, rule="nearest", geometry=geometry(Grid(SPACE, 200)))
    return path


@pytest.fixture(scope="module", params=["x.ome.zarr", "x.nrrd"])
def annotation(request, tmp_path_factory):
    return write(tmp_path_factory.mktemp("annotation"), request.param, labels())


@pytest.fixture(scope="module", params=["x.ome.zarr", "x.nrrd"])
def template(request, tmp_path_factory):
    return write(tmp_path_factory.mktemp("template"), request.param, greys())


@pytest.mark.parametrize("name", PLANES)
@pytest.mark.parametrize("resolution", [50, 200, 400])
def test_a_pixel_has_the_value_of_the_voxel_that_holds_its_centre(annotation, name, resolution):
    plane, grid = PLANES[name], Grid(SPACE, resolution)
    at = [4999.0, 5001.0]
    with open_planes(annotation, plane, 200, SPACE) as opened:
        found = opened.on_grid([-1.0, *at, 1e6], grid)
    assert not found[0].any()
    assert not found[-1].any()
    rows, columns = ((grid.centres(axis) // 200).astype(int) for axis in (plane.rows, plane.columns))
    for coordinate, values in zip(at, found[1:-1], strict=True):
        whole = np.take(labels(), int(coordinate // 200), axis=plane.fixed)
        whole = whole if plane.rows < plane.columns else whole.T
        inside = np.ix_(rows < whole.shape[0], columns < whole.shape[1])
        expected = np.zeros(plane.shape(grid), np.uint32)
        expected[inside] = whole[np.ix_(rows[rows < whole.shape[0]], columns[columns < whole.shape[1]])]
        np.testing.assert_array_equal(values, expected)


def test_planes_of_a_template_are_its_grey_levels(template):
    with open_planes(template, PLANES["coronal"], 200, SPACE, is_annotation=False) as opened:
        (found,) = opened.on_grid([5001.0], Grid(SPACE, 200))
    np.testing.assert_array_equal(found, greys()[25])
    with (
        raises(InputError, "not-labels" if "zarr" in template.name else "invalid-label"),
        open_planes(template, PLANES["coronal"], 200, SPACE) as opened,
    ):
        opened.on_grid([5001.0], Grid(SPACE, 200))


def test_the_same_voxels_have_the_same_identity_wherever_they_lie(annotation, tmp_path):
    def identity(path):
        with open_planes(path, PLANES["coronal"], 200, SPACE) as opened:
            return opened.identity()

    copy = tmp_path / annotation.name
    shutil.copytree(annotation, copy) if annotation.is_dir() else shutil.copy(annotation, copy)
    assert identity(copy) == identity(annotation)
    (tmp_path / "other").mkdir()
    assert identity(write(tmp_path / "other", annotation.name, labels() + 1)) != identity(annotation)


def test_an_ome_zarr_without_a_ledger_is_identified_by_its_voxels(tmp_path):
    path = write(tmp_path, "x.ome.zarr", labels())
    shutil.rmtree(path / "atlaszarr")
    with open_planes(path, PLANES["coronal"], 200, SPACE) as opened:
        assert set(opened.identity()) == {"voxels", "blocks"}


def test_a_worker_that_does_not_see_the_volume_says_so(annotation, tmp_path):
    moved = tmp_path / "x.ome.zarr" if annotation.is_dir() else tmp_path / "x.nrrd"
    shutil.copytree(annotation, moved) if annotation.is_dir() else shutil.copy(annotation, moved)
    with open_planes(moved, PLANES["coronal"], 200, SPACE) as opened:
        sent = pickle.loads(pickle.dumps(opened.for_workers()))
        sent.require_reachable()
        np.testing.assert_array_equal(sent.on_grid([5001.0], Grid(SPACE, 200))[0], labels()[25])
    if annotation.is_dir():
        shutil.rmtree(moved)
    with raises(SchedulerError, "annotation-unreachable"):
        sent.require_reachable()

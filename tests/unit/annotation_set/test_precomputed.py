"""Meshes: position and volume of their structures, the same bytes every time, readable by neuroglancer."""

import json
import struct

import dask.array as da
import DracoPy
import numpy as np
import pytest
import tensorstore

from atlaszarr.annotation_set.precomputed_folder import INFO, defects, write_precomputed
from atlaszarr.annotation_set.surfaces import surface
from atlaszarr.engine.finished_image import Finished
from atlaszarr.engine.ome import Geometry
from atlaszarr.errors import InputError
from atlaszarr.stores.target import Target
from atlaszarr.terminology.terminology import Structure, Terminology
from atlaszarr.writing import write_multiscales
from codes import raises

TREE = {1: (1,), 2: (1, 2), 30: (1, 2, 30), 4: (1, 2, 4), 5: (1, 5), 6: (1, 6)}
NAMES = {1: "root", 2: "two", 30: "box", 4: "ball", 5: "speck", 6: "nowhere"}
TERMINOLOGY = Terminology(
    tuple(Structure(id, NAMES[id], f"The {NAMES[id]}", "#123456", path) for id, path in TREE.items())
)
#: Size of a voxel, in um.
SIZE = 25.0


def drawn():
    """A box, a ball and a single voxel."""
    labels = np.zeros((90, 80, 100), np.uint32)
    labels[10:50, 20:60, 5:35] = 30
    z, y, x = np.ogrid[:90, :80, :100]
    labels[(z - 60) ** 2 + (y - 40) ** 2 + (x - 70) ** 2 < 20**2] = 4
    labels[80, 70, 90] = 5
    return labels


def annotated(folder, labels):
    target = Target.of(folder / "annotation.ome.zarr")
    geometry = Geometry((SIZE / 1000,) * 3, (0.0075,) * 3)
    write_multiscales(da.from_array(labels), target.url, rule="mode", levels=3, chunk=32, geometry=geometry)
    return Finished.at(target)


@pytest.fixture
def annotation(tmp_path):
    """A pyramid of 25, 50 and 100 um."""
    return annotated(tmp_path, drawn())


@pytest.fixture
def target(tmp_path):
    return Target.of(tmp_path / "annotations.precomputed")


def opened(target, identifier):
    """Vertices (z, y, x) in um and faces, as BrainGlobe's reader decodes them."""
    mesh = DracoPy.decode(target.read(f"mesh/{identifier}"))
    return mesh.points[:, ::-1] / 1000, mesh.faces[:, ::-1]


def volume(vertices, faces):
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    return np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6


def test_a_mesh_has_the_position_and_the_volume_of_its_structure(annotation, target):
    assert write_precomputed(annotation, target, TERMINOLOGY).tasks_done == 5
    labels = drawn()
    for identifier in (1, 2, 30, 4):
        mask = np.isin(labels, [id for id, path in TREE.items() if identifier in path])
        places = np.argwhere(mask)
        vertices, faces = opened(target, identifier)
        level = json.loads(target.read("atlaszarr/ledger.jsonl").split(b"\n")[1])
        assert level["content"]["from"]["level"] in (0, 1)
        if identifier != 1:  # whose single voxel vanishes at 50 um
            np.testing.assert_allclose(vertices.min(axis=0), places.min(axis=0) * SIZE, atol=SIZE + 0.1)
            np.testing.assert_allclose(vertices.max(axis=0), (places.max(axis=0) + 1) * SIZE, atol=SIZE + 0.1)
        assert volume(vertices, faces) == pytest.approx(mask.sum() * SIZE**3, rel=0.04)


def test_a_structure_of_few_voxels_is_made_from_a_finer_level_and_one_that_does_not_occur_has_no_mesh(
    annotation, target
):
    write_precomputed(annotation, target, TERMINOLOGY)
    vertices, _ = opened(target, 5)
    np.testing.assert_allclose(vertices.min(axis=0), np.array([80, 70, 90]) * SIZE, atol=1)
    np.testing.assert_allclose(vertices.max(axis=0), np.array([81, 71, 91]) * SIZE, atol=1)
    assert target.read("mesh/6") is None


def test_meshes_are_the_same_bytes_with_any_number_of_workers(annotation, tmp_path):
    kept = []
    for workers in (1, 4):
        target = Target.of(tmp_path / f"by-{workers}")
        write_precomputed(annotation, target, TERMINOLOGY, workers=workers)
        kept.append({key: target.read(key) for key in target.list_keys()})
    assert kept[0] == kept[1]


def test_neuroglancer_finds_the_whole_mesh_in_one_cell_and_the_names(annotation, target):
    write_precomputed(annotation, target, TERMINOLOGY)
    info = json.loads(target.read("info"))
    assert info["type"] == "segmentation"
    (scale,) = info["scales"]
    assert scale["size"] == [25, 20, 23]
    assert scale["resolution"] == [100000.0] * 3
    chunk = np.frombuffer(target.read(f"{scale['key']}/0-25_0-20_0-23"), "<u4").reshape(23, 20, 25)
    np.testing.assert_array_equal(chunk, annotation.read(2, (slice(0, 23), slice(0, 20), slice(0, 25))))
    mesh = json.loads(target.read(f"{info['mesh']}/info"))
    assert mesh["@type"] == "neuroglancer_multilod_draco"
    index = struct.unpack("<6fI4f5I", target.read("mesh/30.index"))
    assert index[6] == index[11] == 1  # one level of detail, of one fragment
    assert index[-1] == len(target.read("mesh/30"))
    points = DracoPy.decode(target.read("mesh/30")).points
    np.testing.assert_allclose(points.min(axis=0), index[3:6], atol=50)
    assert (points.max(axis=0) - index[3:6]).max() == pytest.approx(index[0], rel=1e-4)
    properties = json.loads(target.read("segment_properties/info"))["inline"]
    assert dict(zip(properties["ids"], properties["properties"][0]["values"], strict=True))["4"] == "ball"
    assert dict(zip(properties["ids"], properties["properties"][1]["values"], strict=True))["4"] == "The ball"


def test_meshes_are_resumed_and_repaired(annotation, target):
    class Stop(Exception):  # noqa: N818
        pass

    def stop(done, *_):
        if done == 2:
            raise Stop

    with pytest.raises(Stop):
        write_precomputed(annotation, target, TERMINOLOGY, workers=1, progress=stop)
    assert [defect.kind for defect in defects(target)] == ["unfinished"]
    assert target.read(INFO) is None
    report = write_precomputed(annotation, target, TERMINOLOGY, workers=1)
    assert report.state == "resumed"
    assert report.tasks_done < 5
    assert defects(target) == []
    whole = {key: target.read(key) for key in target.list_keys()}
    assert write_precomputed(annotation, target, TERMINOLOGY).state == "already finished"
    target.remove("mesh/4.index")
    target.write("segment_properties/info", b"{}")
    assert {defect.key for defect in defects(target)} == {"mesh/4.index", "segment_properties/info"}
    assert write_precomputed(annotation, target, TERMINOLOGY).tasks_done == 1
    assert {key: target.read(key) for key in target.list_keys()} == whole


def test_meshes_of_something_else_are_refused_and_replaced_if_asked(annotation, target, tmp_path):
    write_precomputed(annotation, target, TERMINOLOGY)
    other = annotated(tmp_path / "other", np.where(drawn() == 4, np.uint32(0), drawn()))
    with raises(InputError, "different-options"):
        write_precomputed(other, target, TERMINOLOGY)
    write_precomputed(other, target, TERMINOLOGY, overwrite=True)
    assert target.read("mesh/4") is None
    assert defects(target) == []


def test_a_folder_that_holds_other_files_is_refused(annotation, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with raises(InputError, "target-not-empty"):
        write_precomputed(annotation, Target.of(tmp_path / "mine"), TERMINOLOGY)
    with raises(InputError, "not-atlaszarr"):
        defects(Target.of(tmp_path / "mine"))


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 5, 1), (3, 3, 3), (9, 2, 14)])
def test_the_surface_of_a_box_is_closed_and_faces_outwards(shape):
    vertices, faces = surface(np.ones(shape, bool))
    np.testing.assert_allclose(vertices.min(axis=0), 0, atol=0.5)
    np.testing.assert_allclose(vertices.max(axis=0), shape, atol=0.5)
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    _, counts = np.unique(edges, axis=0, return_counts=True)
    assert (counts == 2).all()
    assert 0 < volume(vertices, faces) <= np.prod(shape)


def test_holes_are_filled():
    hollow = np.ones((9, 9, 9), bool)
    hollow[3:6, 3:6, 3:6] = False
    np.testing.assert_array_equal(surface(hollow)[0], surface(np.ones((9, 9, 9), bool))[0])


def test_another_reader_of_neuroglancer_s_format_opens_the_volume(annotation, target):
    write_precomputed(annotation, target, TERMINOLOGY)
    spec = {"driver": "neuroglancer_precomputed", "kvstore": {"driver": "file", "path": target.url}}
    opened_there = tensorstore.open(spec).result()
    coarsest = annotation.read(2, tuple(map(slice, (0, 0, 0), annotation.multiscale.pyramid.levels[2].shape)))
    np.testing.assert_array_equal(opened_there[..., 0].read().result().T, coarsest)
    units = [unit.multiplier for unit in opened_there.dimension_units[:3]]
    assert units == [4 * SIZE * 1000] * 3  # nm

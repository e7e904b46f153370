"""The precomputed folder: labels as tensorstore reads them, meshes at the position of their structures, resume."""

import json
import re
import struct
from pathlib import Path

import dask.array as da
import DracoPy
import numpy as np
import pytest
import tensorstore

from atlaszarr.annotation_set import precomputed, segmentation
from atlaszarr.annotation_set.precomputed_folder import INFO, MESHES, NAMES, defects, write_precomputed
from atlaszarr.annotation_set.surfaces import surface
from atlaszarr.boxes import everywhere
from atlaszarr.engine.finished_image import Finished
from atlaszarr.engine.ledger import compact, compacted, digest, read
from atlaszarr.engine.ome import Geometry
from atlaszarr.engine.pyramid import Level
from atlaszarr.errors import InputError
from atlaszarr.stores.target import Target
from atlaszarr.terminology.terminology import Structure, Terminology
from atlaszarr.writing import write_multiscales
from codes import raises

TREE = {1: (1,), 2: (1, 2), 30: (1, 2, 30), 4: (1, 2, 4), 5: (1, 5), 6: (1, 6)}
ACRONYMS = {1: "root", 2: "two", 30: "box", 4: "ball", 5: "speck", 6: "nowhere"}
TERMINOLOGY = Terminology(
    tuple(Structure(id, ACRONYMS[id], f"The {ACRONYMS[id]}", "#123456", path) for id, path in TREE.items())
)
#: Size of a voxel, in um.
SIZE = 25.0
#: Blocks of all levels of the annotation, and its levels.
BLOCKS, LEVELS = 3, 3


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


def origins(target):
    """What each object was made from, by its key."""
    return {key: entry.origin for entry in read(target).done.values() for key in entry.written}


def volume(vertices, faces):
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    return np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6


def test_a_mesh_has_the_position_and_the_volume_of_its_structure(annotation, target):
    report = write_precomputed(annotation, target, TERMINOLOGY)
    assert report.tasks_done == BLOCKS + 5
    labels = drawn()
    for identifier in (1, 2, 30, 4):
        mask = np.isin(labels, [id for id, path in TREE.items() if identifier in path])
        places = np.argwhere(mask)
        vertices, faces = opened(target, identifier)
        assert origins(target)[f"mesh/{identifier}"]["level"] in (0, 1)
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


@pytest.mark.parametrize("word", ["blocks", "meshes"])
def test_a_folder_is_resumed_and_repaired(annotation, target, word):
    class Stop(Exception):  # noqa: N818
        pass

    def stop(done, _, what):
        if done == 2 and what == word:
            raise Stop

    with pytest.raises(Stop):
        write_precomputed(annotation, target, TERMINOLOGY, workers=1, progress=stop)
    assert [defect.kind for defect in defects(target)] == ["unfinished"]
    assert target.read(INFO) is target.read(MESHES) is None
    target.write("mesh/77", b"of no task")
    target.write(f"mesh/.77.{'0' * 32}.partial", b"of a killed process")
    report = write_precomputed(annotation, target, TERMINOLOGY, workers=1)
    assert report.state == "resumed"
    assert report.tasks_done < 5 + (BLOCKS if word == "blocks" else 0)
    assert defects(target) == []
    whole = {key: target.read(key) for key in target.list_keys()}
    assert not any("77" in key for key in whole)
    assert write_precomputed(annotation, target, TERMINOLOGY).state == "already finished"
    target.remove("mesh/4.index")
    target.remove("50000_50000_50000/0-50_0-40_0-45")
    target.write("segment_properties/info", b"{}")
    assert {defect.key for defect in defects(target)} == {
        "mesh/4.index",
        "50000_50000_50000/0-50_0-40_0-45",
        "segment_properties/info",
    }
    assert write_precomputed(annotation, target, TERMINOLOGY).tasks_done == 2
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


def read_by_tensorstore(target, level):
    """The labels of a level (z, y, x) and the size of a voxel along (x, y, z) in nm, by tensorstore's own reader."""
    spec = {"driver": "neuroglancer_precomputed", "kvstore": {"driver": "file", "path": target.url}}
    opened_there = tensorstore.open({**spec, "scale_index": level}).result()
    units = [unit.multiplier for unit in opened_there.dimension_units[:3]]
    return opened_there[..., 0].read().result().T, units


def assert_the_same_labels(annotation, target):
    for level, at in enumerate(annotation.multiscale.pyramid.levels):
        labels, units = read_by_tensorstore(target, level)
        assert labels.dtype == np.uint32
        np.testing.assert_array_equal(labels, annotation.read(level, everywhere(at.shape)))
        assert units == [size * 1000 for size in annotation.resolutions[level][::-1]]


def test_another_reader_of_neuroglancer_s_format_reads_the_labels_of_every_level(annotation, target):
    write_precomputed(annotation, target, TERMINOLOGY)
    assert_the_same_labels(annotation, target)
    info = json.loads(target.read(INFO))
    assert [scale["encoding"] for scale in info["scales"]] == ["compressed_segmentation"] * LEVELS
    assert [scale["compressed_segmentation_block_size"] for scale in info["scales"]] == [[8, 8, 8]] * LEVELS


def written_labels(folder, labels, **options):
    """An annotation, and the labels alone of its precomputed folder."""
    image, target = Target.of(folder / "annotation.ome.zarr"), Target.of(folder / "annotations.precomputed")
    write_multiscales(labels, image.url, rule="mode", geometry=Geometry((1.0,) * 3), **options)
    annotation = Finished.at(image)
    target.write(INFO, segmentation.info(annotation))
    for task in segmentation.tasks(annotation):
        segmentation.write_block(annotation, target, task)
    return annotation, target


@pytest.mark.slow
@pytest.mark.parametrize(
    ("chunk", "sides"),
    [
        (8, [64, 64]),
        (20, [60, 60]),
        (64, [64, 64]),
        ((80, 64), [80, 64]),
        (100, [50, 50]),
        (128, [64, 64]),
        (131, [131, 131]),
        (257, [64, 64]),
        ((30, 90), [60, 45]),
    ],
    ids=str,
)
def test_chunks_are_near_64_voxels_and_parts_or_multiples_of_those_of_the_annotation(tmp_path, chunk, sides):
    labels = np.random.default_rng(0).choice(np.array([0, 30, 4, 5], np.uint32), (14, 14, 14))
    labels[:13, :13, :13] = 0
    annotation, target = written_labels(
        tmp_path, labels.repeat(10, 0).repeat(10, 1).repeat(10, 2), levels=2, chunk=chunk
    )
    assert_the_same_labels(annotation, target)
    assert [scale["chunk_sizes"] for scale in json.loads(target.read(INFO))["scales"]] == [[[n] * 3] for n in sides]
    for level in annotation.multiscale.pyramid.levels:
        layer = segmentation.layer(level)
        assert all(n % chunk == 0 for n, chunk in zip(layer.unit, layer.chunk, strict=True))
        assert chunk == 257 or all(n % unit == 0 for n, unit in zip(layer.unit, level.unit, strict=True))


def test_no_chunk_is_too_large_for_the_format():
    for side in range(8, 1025):
        layer = segmentation.layer(Level((2000, 2000, 2000), (8, 8, 8), (side, 64, 64)))
        assert 32 <= layer.chunk[0] <= 216, side
        assert layer.unit[0] % layer.chunk[0] == 0, side
        assert layer.unit[0] <= max(side, 192), side


@pytest.mark.slow
def test_the_largest_chunk_of_noise_is_read_as_it_was_written(tmp_path):
    shape = (216,) * 3
    labels = np.random.default_rng(0).integers(1, 2**32, shape, np.uint32)
    info = precomputed.volume_info([(shape, (25.0,) * 3, shape)])
    target = Target.of(tmp_path / "annotations.precomputed")
    target.write(INFO, info)
    target.write_all(segmentation.encode(info, 0, everywhere(shape), labels).items())
    assert np.array_equal(read_by_tensorstore(target, 0)[0], labels)


def test_a_shard_of_the_annotation_is_read_once(tmp_path):
    annotation, target = written_labels(tmp_path, drawn().repeat(2, 0), levels=2, chunk=32, shard=96)
    assert_the_same_labels(annotation, target)
    layer = segmentation.layer(annotation.multiscale.pyramid.levels[0])
    assert (layer.unit, layer.chunk) == ((96, 96, 96), (48, 48, 48))


def test_a_chunk_without_labels_is_not_written(tmp_path):
    labels = np.zeros((300, 70, 40), np.uint32)
    labels[299, 69, 39] = 5
    annotation, target = written_labels(tmp_path, labels, levels=1, chunk=64)
    # A folder without an exponent: in URLs, a plus sign stands for a space.
    assert target.list_keys("1000000_1000000_1000000") == ["1000000_1000000_1000000/0-40_64-70_256-300"]
    assert_the_same_labels(annotation, target)


def test_labels_of_other_integers_are_the_same_and_those_above_32_bits_are_refused():
    region = everywhere((4, 5, 6))
    info = precomputed.volume_info([((4, 5, 6), (25.0, 25.0, 25.0), (64, 64, 64))])
    labels = np.arange(120).reshape(4, 5, 6)
    small, large = (segmentation.encode(info, 0, region, labels.astype(dtype)) for dtype in ("uint8", "int64"))
    assert small == large
    for wrong in (2**32, -1):
        with raises(InputError, "unknown-label") as caught:
            segmentation.encode(info, 0, region, np.where(labels == 7, wrong, labels))
        assert str(wrong) in str(caught.value)


@pytest.mark.parametrize("damage", ["missing", "truncated", "altered", "empty"])
def test_every_damaged_file_is_named_and_repaired(annotation, target, damage):
    write_precomputed(annotation, target, TERMINOLOGY)
    whole = {key: target.read(key) for key in target.list_keys()}
    damaged = [key for key in whole if not key.startswith("atlaszarr/")]
    for key in damaged:
        if damage == "missing":
            target.remove(key)
        else:
            body = whole[key]
            middle = len(body) // 2
            flipped = bytes([body[middle] ^ 1])
            parts = {"truncated": body[:-1], "altered": body[:middle] + flipped + body[middle + 1 :], "empty": b""}
            target.write(key, parts[damage])
    assert {defect.key for defect in defects(target)} == set(damaged)
    assert write_precomputed(annotation, target, TERMINOLOGY).state == "resumed"
    assert {key: target.read(key) for key in target.list_keys()} == whole


def test_a_folder_of_an_earlier_version_is_refused_and_replaced_if_asked(annotation, target):
    names = precomputed.segment_properties(TERMINOLOGY)
    request = {"meshes_of": annotation.digest, "terminology": digest(names), "resolution": 50.0}
    compact(target, compacted({"request": request, "finished": True}, {}), {NAMES: (len(names), digest(names))})
    target.write(NAMES, names)
    target.write(MESHES, precomputed.mesh_info())
    target.write("100000_100000_100000/0-25_0-20_0-23", b"raw labels")
    with raises(InputError, "different-options") as caught:
        write_precomputed(annotation, target, TERMINOLOGY)
    assert "another segmentation" in str(caught.value)
    write_precomputed(annotation, target, TERMINOLOGY, overwrite=True)
    assert_the_same_labels(annotation, target)
    assert defects(target) == []


def test_names_are_those_of_labels():
    structures = (
        Structure("X:1", "root", "All", "#FFFFFF", ("X:1",), None),
        Structure("X:20", "A", "The A", "#FFFFFF", ("X:1", "X:20"), 7),
    )
    inline = json.loads(precomputed.segment_properties(Terminology(structures)))["inline"]
    assert inline["ids"] == ["7"]
    assert [one["values"] for one in inline["properties"]] == [["A"], ["The A"]]


def test_a_source_for_neuroglancer_is_shifted_from_corners_to_the_translation_of_the_annotation():
    geometry = Geometry((0.025, 0.05, 0.1), (0.0075, 0.0, 1.0))
    source = precomputed.layer_source("https://host/annotations.precomputed", geometry)
    transform = source["transform"]
    assert transform["outputDimensions"] == {"x": [1e-4, "m"], "y": [5e-5, "m"], "z": [2.5e-5, "m"]}
    # The corner of the first voxel of the annotation, in voxels.
    assert transform["matrix"] == [[1, 0, 0, 9.5], [0, 1, 0, -0.5], [0, 0, 1, -0.2]]
    assert source["subsources"] == {"mesh": True, "properties": True}


def test_the_documentation_has_the_source_for_the_ccf():
    text = (Path(__file__).parents[3] / "docs/neuroglancer.md").read_text()
    (code,), (shown,) = (
        re.findall(rf"^```{name}\n(.*?)^```", text, re.DOTALL | re.MULTILINE) for name in ("py", "json")
    )
    names = {}
    exec(code, names)
    assert names["source"] == json.loads(shown)

"""An atlas from its sources: levels, labels, tables, repairs, and errors."""

import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import zarr
from ngff_zarr import from_ngff_zarr

from atlaszarr import Terminology, build_atlas, region_mask, region_volumes, verify
from atlaszarr.cli.commands import main
from atlaszarr.engine.label_index import KEY as INDEX
from atlaszarr.engine.ome import Geometry
from atlaszarr.errors import InputError, NotFoundError
from atlaszarr.geometry.spaces import ORIENTATION
from atlaszarr.stores.target import Target
from atlaszarr.writing import write_multiscales
from codes import raises
from tiny_atlas import GRAPH, ONTOLOGY, SET, files, labels, save, write_sources

TEMPLATE = "templates/tiny-template/1/template.ome.zarr"


@pytest.fixture
def sources(tmp_path):
    return write_sources(tmp_path / "sources")


@pytest.fixture
def target(tmp_path):
    return tmp_path / "atlas"


def test_an_atlas_is_laid_out_as_published(sources, target):
    report = build_atlas(target, **sources)
    assert [image.state for image in report.images] == ["built"] * 3
    image = from_ngff_zarr(str(target / SET / "annotation.ome.zarr"), validate=True)
    assert [level.scale["z"] for level in image.images] == [0.025, 0.05, 0.1]
    assert [level.translation["x"] for level in image.images] == [0.0, 0.0125, 0.0375]
    assert {axis: one.value for axis, one in image.images[0].axes_orientations.items()} == ORIENTATION
    assert image.images[0].axes_units == dict.fromkeys("zyx", "millimeter")
    np.testing.assert_array_equal(image.images[0].data.compute(), labels())
    template = from_ngff_zarr(str(target / TEMPLATE), validate=True)
    assert template.images[0].data.dtype == np.uint16
    sides = from_ngff_zarr(str(target / SET / "hemispheres.ome.zarr"), validate=True)
    for level in sides.images:
        values = level.data.compute()
        half = values.shape[2] // 2
        assert (values[..., :half] == 1).all()
        assert (values[..., half:] == 2).all()
    for folder in (SET, "terminologies/tiny-terminology/1"):
        table = pd.read_csv(target / folder / "terminology.csv")
        assert list(table["identifier"]) == [997, 8, 3, 3_000_000_003, 7]
    assert verify(target, deep=True).ok


CCF = (66, 40, 57)


@pytest.mark.parametrize("brainglobe", [False, True])
@pytest.mark.parametrize("named", ["asl", "asr"])
def test_volumes_of_the_ccf_with_opposite_names_of_their_sides_lie_in_one_frame(target, tmp_path, named, brainglobe):
    values, template = labels(CCF), np.random.default_rng(0).integers(0, 4000, CCF).astype("uint16")
    given = {
        "annotation": save(tmp_path / "annotation.nrrd", values, 200),
        "template": save(tmp_path / "template.nrrd", template, 200, sides=named),
        "ontology": ONTOLOGY,
        "name": "tiny",
        "version": "1",
        "citation": "Tiny, T. (2026)",
        "species": "Mus inventus",
    }
    if brainglobe:
        target = target.parent / "brainglobe-atlasapi"
    report = build_atlas(target, **given, brainglobe=brainglobe)
    images = {
        name: from_ngff_zarr(str(target / path))
        for name, path in (("annotation", f"{SET}/annotation.ome.zarr"), ("template", TEMPLATE))
    }
    np.testing.assert_array_equal(images["annotation"].images[0].data, values)
    np.testing.assert_array_equal(images["template"].images[0].data, template)
    wanted = "right-to-left" if brainglobe else "left-to-right"
    assert {image.images[0].axes_orientations["x"].value for image in images.values()} == {wanted}
    remarked = [remark for remark in report.remarks if "opposite names" in remark]
    # For BrainGlobe the names of the Allen Institute are the opposite ones.
    assert len(remarked) == {"asl": 2 if brainglobe else 0, "asr": 1}[named]
    record = json.loads((target / "atlaszarr/tiny-1.json").read_text())["sides"]
    assert record["x"] == wanted
    assert record["named_by"].startswith("BrainGlobe" if brainglobe else "Allen Institute")
    sides = zarr.open_array(target / SET / "hemispheres.ome.zarr/0", mode="r")[0, 0]
    assert (sides[0], sides[-1]) == ((2, 1) if brainglobe else (1, 2))
    low, table = "right" if brainglobe else "left", pd.read_csv(report.volumes, index_col="identifier")
    assert table.loc[7, f"voxels_{low}"] == (values[..., :28] == 7).sum()
    convention = region_volumes(target / SET / "annotation.ome.zarr", by_hemisphere=True).attrs["hemispheres"]
    assert ("BrainGlobe" in convention) == brainglobe


def test_a_volume_other_than_the_ccf_is_flipped_by_the_names_of_its_sides(target, tmp_path):
    values = labels()
    given = {"annotation": save(tmp_path / "annotation.nrrd", values, 25, sides="asr"), "ontology": ONTOLOGY}
    build_atlas(target, **given, name="tiny", version="1")
    found = zarr.open_array(target / SET / "annotation.ome.zarr/0", mode="r")[:]
    np.testing.assert_array_equal(found, values[..., ::-1])


def test_ten_microns_make_the_published_levels(sources, target, tmp_path):
    fine = labels((50, 40, 60))
    given = {"annotation": save(tmp_path / "a.nrrd", fine, 10), "template": ()}
    build_atlas(target, **{**sources, **given})
    levels = from_ngff_zarr(str(target / SET / "annotation.ome.zarr"), validate=True).images
    assert [level.scale["z"] for level in levels] == [0.01, 0.025, 0.05, 0.1]
    assert [level.translation["z"] for level in levels] == [0.0, 0.0075, 0.02, 0.045]
    assert [level.data.shape for level in levels] == [(50, 40, 60), (20, 16, 24), (10, 8, 12), (5, 4, 6)]
    np.testing.assert_array_equal(levels[0].data.compute(), fine)


def test_an_annotation_names_and_colours_its_labels(sources, target):
    build_atlas(target, **sources)
    described = zarr.open_group(target / SET / "annotation.ome.zarr", mode="r").attrs["ome"]["image-label"]
    assert {one["label-value"]: one["acronym"] for one in described["properties"]} == {
        3: "A1",
        7: "B",
        997: "root",
        3_000_000_003: "a1",
    }
    assert {"label-value": 3, "rgba": [0, 255, 0, 255]} in described["colors"]


def test_the_table_of_volumes_counts_the_voxels_of_the_annotation(sources, target):
    report = build_atlas(target, **sources)
    table = pd.read_csv(report.volumes, index_col="identifier")
    values = labels()
    for label in (997, 3, 3_000_000_003, 7):
        assert table.loc[label, "voxels_direct"] == (values == label).sum()
        assert table.loc[label, "voxels_direct_left"] == (values[..., :18] == label).sum()
    assert table.loc[8, "voxels"] == np.isin(values, [3, 3_000_000_003]).sum()
    assert table.loc[997, "volume_mm3"] == pytest.approx((values > 0).sum() * 0.025**3)


@pytest.mark.parametrize("version", ["0.4", "0.5", "0.6"])
def test_the_label_index_is_written_with_the_annotation_and_answers(sources, target, version):
    build_atlas(target, **sources, ome_zarr=version)
    image = target / SET / "annotation.ome.zarr"
    by_index = region_volumes(image)
    for level in range(3):
        (image / str(level)).rename(image / f"aside-{level}")
    assert (image / INDEX).exists()
    for level in range(3):
        (image / f"aside-{level}").rename(image / str(level))
    (image / INDEX).unlink()
    pd.testing.assert_frame_equal(region_volumes(image), by_index)


def test_a_finished_atlas_is_not_changed(sources, target):
    build_atlas(target, **sources)
    before = files(target)
    report = build_atlas(target, **sources)
    assert {image.state for image in report.images} == {"already finished"}
    after = files(target)
    assert {key for key in after if after[key] != before.get(key)} <= {"atlaszarr/tiny-1.json"}


def test_an_interrupted_atlas_is_unfinished_and_resumes_to_the_same_bytes(sources, target, tmp_path):
    class StopError(Exception):
        pass

    def stop(done, *_):
        if done == 2:
            raise StopError

    with pytest.raises(StopError):
        build_atlas(target, **sources, chunk=8, progress=stop, workers=1)
    kinds = {defect.kind for defect in verify(target).defects}
    assert kinds == {"unfinished"}
    report = build_atlas(target, **sources, chunk=8)
    assert [image.state for image in report.images] == ["resumed", "built", "built"]
    build_atlas(tmp_path / "undisturbed", **sources, chunk=8)
    one, other = files(target), files(tmp_path / "undisturbed")
    assert {key for key in {*one, *other} if one.get(key) != other.get(key)} <= {"atlaszarr/tiny-1.json"}


PLANTED = {
    "a table is altered": (lambda t: (t / SET / "volumes.csv").write_text("x"), ("altered", f"{SET}/volumes.csv")),
    "a terminology is missing": (
        lambda t: (t / "terminologies/tiny-terminology/1/terminology.csv").unlink(),
        ("missing", "terminologies/tiny-terminology/1/terminology.csv"),
    ),
    "a chunk is missing": (
        lambda t: (t / SET / "annotation.ome.zarr/0/c/0/0/0").unlink(),
        ("missing", f"{SET}/annotation.ome.zarr/0/c/0/0/0"),
    ),
    "an index is altered": (
        lambda t: (t / SET / "annotation.ome.zarr" / INDEX).write_bytes(b"x"),
        ("altered", f"{SET}/annotation.ome.zarr/{INDEX}"),
    ),
    "an image is missing": (lambda t: shutil.rmtree(t / TEMPLATE), ("missing", f"{TEMPLATE}/")),
    "the manifest is cut": (
        lambda t: (t / "atlaszarr/tiny-1.json").write_text("{"),
        ("metadata", "atlaszarr/tiny-1.json"),
    ),
}


@pytest.mark.first(3)
@pytest.mark.parametrize("plant", PLANTED)
def test_a_defect_anywhere_is_named_and_repaired(sources, target, plant):
    build_atlas(target, **sources)
    before = files(target)
    damage, expected = PLANTED[plant]
    damage(target)
    assert [(defect.kind, defect.key) for defect in verify(target).defects] == [expected]
    build_atlas(target, **sources)
    assert verify(target, deep=True).ok
    after = files(target)
    assert {key for key in {*before, *after} if before.get(key) != after.get(key)} <= {"atlaszarr/tiny-1.json"}


def test_a_strided_coarser_volume_has_the_origin_of_the_finer_one(sources, target, tmp_path):
    strided = save(tmp_path / "strided.nrrd", labels()[::2, ::2, ::2].copy(), 50)
    build_atlas(target, **{**sources, "annotation": [strided, sources["annotation"]]})
    image = from_ngff_zarr(str(target / SET / "annotation.ome.zarr"), validate=True)
    np.testing.assert_array_equal(image.images[1].data.compute(), labels()[::2, ::2, ::2])
    assert [level.translation["z"] for level in image.images] == [0.0, 0.0, 0.0375]
    assert verify(target, deep=True).ok
    assert (
        (region_volumes(target / SET / "annotation.ome.zarr", level=1).loc[7, "voxels"])
        == (labels()[::2, ::2, ::2] == 7).sum()
    )


def test_a_mask_is_read_by_the_label_index(sources, target):
    build_atlas(target, **sources, chunk=8)
    image = target / SET / "annotation.ome.zarr"
    mask = region_mask(image, ONTOLOGY, "B")
    np.testing.assert_array_equal(mask.compute(), labels() == 7)


def cut(whole, path):
    path.write_bytes(whole.read_bytes()[:-100])
    return path


WRONG = {
    "unknown label": (
        lambda s, p: {**s, "annotation": save(p / "w.nrrd", labels() + (labels() == 7) * np.uint32(5), 25)},
        "unknown-label",
        "12",
    ),
    "negative": (
        lambda s, p: {**s, "annotation": save(p / "w.nrrd", -labels().astype("int64"), 25)},
        "invalid-label",
        "-",
    ),
    "fractional": (lambda s, p: {**s, "annotation": save(p / "w.nrrd", labels() / 2.0, 25)}, "invalid-label", "w.nrrd"),
    "cut short": (lambda s, p: {**s, "annotation": cut(s["annotation"], p / "w.nrrd")}, "truncated-file", "w.nrrd"),
    "no such file": (lambda s, p: {**s, "annotation": p / "nowhere.nrrd"}, "file-not-found", "nowhere"),
    "two of one resolution": (lambda s, _: {**s, "annotation": [s["annotation"]] * 2}, "duplicate-resolution", "25 um"),
    "no level": (
        lambda s, p: {**s, "annotation": [s["annotation"], save(p / "w.nrrd", labels((20, 16, 18)), 40)]},
        "resolution-mismatch",
        "40 um",
    ),
    "another extent": (
        lambda s, p: {**s, "annotation": [s["annotation"], save(p / "w.nrrd", labels((30, 30, 30)), 50)]},
        "shape-mismatch",
        "30 x 30 x 30",
    ),
    "no annotation": (lambda s, _: {**s, "annotation": []}, "missing-annotation", "annotation"),
    "no scheduler": (lambda s, _: {**s, "scheduler": "tcp://127.0.0.1:9"}, "scheduler-unreachable", "127.0.0.1:9"),
    "name": (lambda s, _: {**s, "name": "Tiny Atlas"}, "invalid-name", "Tiny Atlas"),
    "version": (lambda s, _: {**s, "version": "one"}, "invalid-version", "one"),
    "workers": (lambda s, _: {**s, "workers": 0}, "out-of-range", "workers 0"),
    "chunk": (lambda s, _: {**s, "chunk": 0}, "out-of-range", "chunk 0"),
    "ome_zarr": (lambda s, _: {**s, "ome_zarr": "0.3"}, "unknown-value", "0.3"),
    "brainglobe without template": (
        lambda s, _: {**s, "template": (), "brainglobe": True},
        "missing-template",
        "template",
    ),
    "brainglobe with 0.4": (lambda s, _: {**s, "ome_zarr": "0.4", "brainglobe": True}, "not-supported", "0.4"),
    "orientation": (lambda s, _: {**s, "orientation": "xyz"}, "invalid-orientation", "xyz"),
    "shards of 0.4": (lambda s, _: {**s, "ome_zarr": "0.4", "chunk": 8, "shard": 16}, "not-supported", "0.4"),
}


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_input_is_named_and_nothing_is_written(sources, target, tmp_path, wrong):
    change, code, named = WRONG[wrong]
    with raises(NotFoundError if code == "file-not-found" else InputError, code) as caught:
        build_atlas(target, **change(sources, tmp_path))
    assert named in str(caught.value)
    assert not target.exists() or not any(path.is_file() for path in target.rglob("*"))


def test_unknown_labels_are_kept_if_they_are_allowed(sources, target, tmp_path):
    values = labels()
    values[values == 7] = 12
    report = build_atlas(target, **{**sources, "annotation": save(tmp_path / "w.nrrd", values, 25)}, allow_unknown=True)
    assert any("12" in remark for remark in report.remarks)
    assert verify(target, deep=True).ok
    table = pd.read_csv(report.volumes, index_col="identifier")
    assert table.loc[12, "voxels"] == (values == 12).sum()


def test_another_annotation_is_refused_unless_it_may_overwrite(sources, target, tmp_path):
    build_atlas(target, **sources)
    before = files(target)
    other = {**sources, "annotation": save(tmp_path / "other.nrrd", np.flip(labels(), 2).copy(), 25)}
    with raises(InputError, "different-options"):
        build_atlas(target, **other)
    changed = {key for key, body in files(target).items() if body != before.get(key)}
    assert changed <= {"atlaszarr/tiny-1.json"}
    build_atlas(target, **other, overwrite=True)
    assert verify(target, deep=True).ok


def test_another_terminology_is_refused(sources, target):
    build_atlas(target, **sources)
    graph = json.loads(json.dumps(GRAPH))
    graph[0]["children"][1]["name"] = "Region B"
    before = files(target)
    with raises(InputError, "different-options") as caught:
        build_atlas(target, **{**sources, "ontology": Terminology.from_structure_graph(graph)})
    assert "terminology.csv" in str(caught.value)
    assert files(target) == before


def test_a_template_stays_in_the_atlas_when_a_second_call_leaves_it_out(sources, target):
    build_atlas(target, **sources)
    build_atlas(target, **{**sources, "template": ()})
    assert "template" in json.loads((target / "atlaszarr/tiny-1.json").read_text())["sources"]
    shutil.rmtree(target / TEMPLATE)
    assert [(defect.kind, defect.key) for defect in verify(target).defects] == [("missing", f"{TEMPLATE}/")]


def test_a_source_that_would_be_overwritten_is_refused(sources, target):
    build_atlas(target, **sources)
    before = files(target)
    for again in ({"annotation": target / SET / "annotation.ome.zarr"}, {"template": target / TEMPLATE}):
        with raises(InputError, "target-overlaps-source"):
            build_atlas(target, **{**sources, **again}, overwrite=True)
    assert files(target) == before


def snapshot(folder: Path) -> dict[str, bytes | Path]:
    """The content of files and the targets of links."""
    found = [path for path in sorted(folder.rglob("*")) if path.is_symlink() or path.is_file()]
    return {
        str(path.relative_to(folder)): path.readlink() if path.is_symlink() else path.read_bytes() for path in found
    }


def test_a_source_that_would_be_overwritten_is_refused_under_every_path(sources, target, tmp_path, monkeypatch):
    build_atlas(target, **sources, brainglobe=True)
    before = snapshot(target)
    monkeypatch.chdir(target)
    (tmp_path / "link.ome.zarr").symlink_to(target / SET / "annotation.ome.zarr")
    (tmp_path / "folder").symlink_to(target)
    (tmp_path / "view.ome.zarr").mkdir()
    for name in ("zarr.json", "0"):
        (tmp_path / "view.ome.zarr" / name).symlink_to(target / SET / "annotation.ome.zarr" / name)
    for annotation in (
        target / SET / "annotations_compressed.ome.zarr",  # a link that every such atlas has
        f"{SET}/annotation.ome.zarr",
        f"templates/../{SET}/annotation.ome.zarr",
        tmp_path / "link.ome.zarr",
        f"file://{tmp_path}/folder/{SET}/annotation.ome.zarr",
        f"local://{target}/{SET}/annotation.ome.zarr",
        tmp_path / "view.ome.zarr",
    ):
        for folder in (target, tmp_path / "folder"):
            with raises(InputError, "target-overlaps-source"):
                build_atlas(folder, **{**sources, "annotation": annotation}, brainglobe=True, overwrite=True)
            with raises(InputError, "target-overlaps-source"):
                build_atlas(folder, **{**sources, "annotation": annotation})
    assert snapshot(target) == before


def test_an_ontology_is_not_replaced_by_its_table(sources, target):
    build_atlas(target, **sources)
    graph = target / "terminologies/tiny-terminology/1/terminology.csv"
    build_atlas(target, **{**sources, "ontology": graph}, overwrite=True)  # it is its table
    graph.write_text(json.dumps(GRAPH))
    with raises(InputError, "target-overlaps-source"):
        build_atlas(target, **{**sources, "ontology": graph}, overwrite=True)
    assert json.loads(graph.read_text()) == GRAPH


def test_the_second_name_in_a_bucket_is_refused_as_a_source(sources):
    url = "memory://second-name/atlas"
    build_atlas(url, **sources, brainglobe=True)
    source = f"{url}/{SET}/annotations_compressed.ome.zarr"
    with raises(InputError, "target-overlaps-source"):
        build_atlas(url, **{**sources, "annotation": source}, brainglobe=True, overwrite=True)
    Target.of(url).remove()


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """An atlas that links lead into; the tests must not change it."""
    folder = tmp_path_factory.mktemp("other")
    template = np.random.default_rng(0).integers(0, 4000, (40, 32, 36)).astype("uint16")
    volumes = {"annotation": save(folder / "a.nrrd", labels(), 25), "template": save(folder / "t.nrrd", template, 25)}
    credit = {"citation": "Tiny, T. (2026) An invented atlas", "species": "Mus inventus"}
    build_atlas(folder / "atlas", **volumes, ontology=ONTOLOGY, name="tiny", version="1", **credit, brainglobe=True)
    return folder / "atlas"


@pytest.mark.first(2)
@pytest.mark.parametrize(
    "link",
    [
        f"{SET}/annotation.ome.zarr",
        f"{SET}/annotation.ome.zarr/1",
        f"{SET}/annotations_compressed.ome.zarr",
        f"{SET}/annotations.ome.zarr",
        f"{SET}/annotations.precomputed",
        f"{SET}/annotations.precomputed/mesh",
        SET,
        "terminologies",
        "atlases",
    ],
)
def test_another_atlas_is_never_written_through_a_link(sources, target, tmp_path, other, link):
    before = snapshot(other)
    shutil.copytree(other, target, symlinks=True)
    path = target / link
    path.unlink() if path.is_symlink() else shutil.rmtree(path)
    path.symlink_to(other / link)
    changed = save(tmp_path / "changed.nrrd", np.roll(labels(), 1, axis=0), 25)
    build_atlas(target, **{**sources, "annotation": changed}, brainglobe=True, overwrite=True)
    assert snapshot(other) == before
    assert verify(target, deep=True).ok
    second = target / SET / "annotations_compressed.ome.zarr"
    assert [one for one in target.rglob("*") if one.is_symlink()] == [second]
    # For BrainGlobe x runs from the right.
    np.testing.assert_array_equal(zarr.open_array(second / "0", mode="r")[:], np.roll(labels(), 1, axis=0)[..., ::-1])


def test_an_atlas_with_a_link_in_the_way_is_refused_before_anything_is_written(sources, target, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    target.mkdir()
    (target / "terminologies").symlink_to(tmp_path / "elsewhere")
    before = snapshot(tmp_path)
    with raises(InputError, "link-in-target") as caught:
        build_atlas(target, **sources)
    assert "terminologies" in str(caught.value)
    assert snapshot(tmp_path) == before


def test_sources_and_target_may_be_relative_or_begin_with_a_tilde(sources, target, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "graph.json").write_text(json.dumps(GRAPH))
    given = {"annotation": "../sources/annotation.nrrd", "template": "~/sources/template.nrrd"}
    report = build_atlas("../atlas", **{**sources, **given, "ontology": "~/graph.json"}, spool="../sources")
    assert report.target == str(target)
    assert verify("~/here/../atlas").ok
    named = json.loads((target / "atlaszarr/tiny-1.json").read_text())["sources"]
    assert named["annotation"]["0"]["uri"] == "../sources/annotation.nrrd"
    found = region_volumes(f"../atlas/{SET}/annotation.ome.zarr", "~/graph.json")
    assert found.loc[7, "voxels"] == (labels() == 7).sum()


@pytest.mark.parametrize("kind", ["raw", "ome.zarr"])
def test_a_changed_source_is_refused(sources, target, tmp_path, kind):
    source = tmp_path / f"source.{kind}"

    def put(values):
        if kind == "raw":
            path = save(tmp_path / "source.nrrd", values, 25, encoding="raw")
            path.rename(source)
        else:
            shutil.rmtree(source, ignore_errors=True)
            geometry = Geometry((0.025,) * 3, (0.0075,) * 3, "millimeter", ORIENTATION)
            write_multiscales(values, source, rule="mode", geometry=geometry, levels=1)

    put(labels())
    build_atlas(target, **{**sources, "annotation": source})
    assert {image.state for image in build_atlas(target, **{**sources, "annotation": source}).images} == {
        "already finished"
    }
    put(np.where(labels() == 7, np.uint32(3), labels()))
    with raises(InputError, "different-options"):
        build_atlas(target, **{**sources, "annotation": source})


def test_an_atlas_keeps_the_origin_of_an_ome_zarr(sources, target, tmp_path):
    source = tmp_path / "source.ome.zarr"
    geometry = Geometry((0.025,) * 3, (0.5, -0.25, 0), "millimeter", ORIENTATION)
    write_multiscales(labels(), source, rule="mode", geometry=geometry, levels=1)
    build_atlas(target, **{**sources, "annotation": source, "template": ()})
    levels = from_ngff_zarr(str(target / SET / "annotation.ome.zarr")).images
    assert [level.translation for level in levels[:2]] == [
        {"z": 0.5, "y": -0.25, "x": 0.0},
        {"z": 0.5125, "y": -0.2375, "x": 0.0125},
    ]


def test_another_orientation_or_voxel_size_is_refused(sources, target, tmp_path):
    cube = save(tmp_path / "cube.nrrd", np.ascontiguousarray(labels()[:32, :, :32]), 25)
    given = {**sources, "annotation": cube, "template": ()}
    build_atlas(target, **given, orientation="asl")
    for other in ({"orientation": "psl"}, {"orientation": "asl", "voxel_size": 50}):
        with raises(InputError, "different-options"):
            build_atlas(target, **given, **other)
    assert verify(target).ok


@pytest.mark.filterwarnings("ignore:the midline is assumed")
@pytest.mark.first(2)
@pytest.mark.parametrize("columns", [36, 35, 34, 33])
def test_hemispheres_and_volumes_agree_at_every_level_also_at_strided_ones(sources, target, tmp_path, columns):
    values = np.full((24, 20, columns), 7, np.uint32)
    fine = save(tmp_path / "fine.nrrd", values, 25)
    strided = save(tmp_path / "strided.nrrd", np.ascontiguousarray(values[::2, ::2, ::2]), 50)
    for given in ([fine], [fine, strided]):
        build_atlas(target, **{**sources, "annotation": given, "template": ()}, overwrite=True)
        image = target / SET / "annotation.ome.zarr"
        levels = from_ngff_zarr(str(image)).images
        middle = levels[0].translation["x"] + levels[0].scale["x"] * (columns - 1) / 2
        for level, grid in enumerate(levels):
            sides = zarr.open_array(target / SET / f"hemispheres.ome.zarr/{level}", mode="r")[0, 0]
            centres = grid.translation["x"] + grid.scale["x"] * np.arange(len(sides))
            np.testing.assert_array_equal(sides, np.where(centres < middle - 1e-9, 1, 2))
            found = region_volumes(image, level=level, by_hemisphere=True).loc[7]
            per_column = found["voxels"] // len(sides)
            assert found["voxels_right"] == per_column * (sides == 2).sum()
        before = region_volumes(image, level=1, by_hemisphere=True)
        (image / INDEX).unlink()
        pd.testing.assert_frame_equal(region_volumes(image, level=1, by_hemisphere=True), before)


def test_a_template_of_another_space_is_refused(sources, target, tmp_path):
    other = save(tmp_path / "other.nrrd", np.zeros((40, 30, 36), "uint16"), 25)
    with raises(InputError, "extent-mismatch"):
        build_atlas(target, **{**sources, "template": other})
    assert not target.exists()


def test_what_brainglobe_cannot_open_is_refused_before_anything_is_written(sources, target, tmp_path):
    float_template = save(tmp_path / "t.nrrd", np.full((40, 32, 36), 0.5, "float32"), 25)
    values = np.where(labels() == 7, np.uint32(12), labels())
    for other, code in (
        ({"template": float_template}, "unsupported-dtype"),
        ({"annotation": save(tmp_path / "u.nrrd", values, 25), "allow_unknown": True}, "unknown-label"),
    ):
        with raises(InputError, code):
            build_atlas(target, **{**sources, **other}, brainglobe=True)
        assert not target.exists()
    build_atlas(target, **sources)
    with raises(InputError, "unsupported-dtype"):
        build_atlas(target, **{**sources, "template": float_template}, brainglobe=True)
    assert verify(target).ok


def test_a_damaged_terminology_is_repaired(sources, target):
    build_atlas(target, **sources)
    table = target / SET / "terminology.csv"
    whole = table.read_bytes()
    table.write_bytes(whole[:-20])
    build_atlas(target, **sources)
    assert table.read_bytes() == whole
    assert verify(target).ok


def test_a_target_may_hold_two_atlases(sources, target):
    build_atlas(target, **sources)
    build_atlas(target, **{**sources, "name": "other", "version": "2.1"})
    assert verify(target).ok
    assert (target / "annotation-sets/other-annotation/2_1/annotation.ome.zarr").is_dir()


def test_the_command_ends_with_a_command_that_measures_the_regions(sources, tmp_path, command):
    graph = tmp_path / "graph.json"
    graph.write_text(json.dumps({"success": True, "msg": GRAPH}))
    target = tmp_path / "an atlas"
    arguments = ["atlas", target, "--annotation", sources["annotation"], "--terminology", graph, "--name", "tiny"]
    ran = command(*arguments, "--version", "1")
    assert (ran.code, ran.out.splitlines()[0]) == (0, f"built: {target / SET / 'annotation.ome.zarr'}")
    program, *rest = shlex.split(ran.out.splitlines()[-1].removeprefix("open it with: "))
    assert program == "atlaszarr"
    measured = command(*rest, "--region", "B")
    assert (measured.code, measured.out[:8]) == (0, "Area B: ")


def test_the_command_prints_a_report_in_json(sources, target, tmp_path, capsys):
    graph = tmp_path / "graph.json"
    graph.write_text(json.dumps({"success": True, "msg": GRAPH}))
    arguments = ["atlas", str(target), "--annotation", str(sources["annotation"]), "--ontology", str(graph)]
    arguments += ["--name", "tiny", "--version", "1", "--json"]
    assert main(arguments) == 0
    out = json.loads(capsys.readouterr().out)
    assert [image["state"] for image in out["images"]] == ["built", "built"]
    assert main(["volumes", str(target / SET / "annotation.ome.zarr"), "--region", "B"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("Area B: ")
    assert float(printed.split()[2]) == pytest.approx((labels() == 7).sum() * 0.025**3, rel=0.01)
    assert main(["verify", str(target)]) == 0
    (target / SET / "volumes.csv").unlink()
    assert main(["verify", str(target)]) == 1
    assert main(["atlas", str(target), "--annotation", str(tmp_path / "none.nrrd"), "--ontology", str(graph)]) == 2

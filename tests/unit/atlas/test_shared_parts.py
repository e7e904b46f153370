"""What atlases of one tree share, and what is in a tree that no atlas made: nothing is replaced that is another's."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from atlaszarr import Terminology, build_atlas, verify
from atlaszarr.atlas.second_name import give_second_name
from atlaszarr.engine.lock import KEYS, owning
from atlaszarr.errors import InputError
from atlaszarr.stores.target import Target
from atlaszarr.writing import write_multiscales
from codes import raises
from tiny_atlas import GRAPH, files, save

LAYOUTS = {
    "plain": {},
    "assets": {"layout": "assets"},
    "brainglobe": {"layout": "brainglobe"},
    "strict": {"layout": "assets", "strict": True},
}
SHARED = {"space_name": "our", "space_version": "2020", "terminology_name": "our", "terminology_version": "2020"}
TEMPLATE = {"template_name": "our", "template_version": "2020"}
SET = "annotation-sets/tiny-annotation/2026"


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """An atlas of 16^3 voxels."""
    folder = tmp_path_factory.mktemp("sources")
    values = np.zeros((16, 16, 16), np.uint32)
    for inset, label in ((1, 997), (3, 3), (5, 7)):
        values[inset:-inset, inset:-inset, inset:-inset] = label
    template = np.arange(16**3, dtype=np.uint16).reshape(16, 16, 16)
    return {
        "annotation": save(folder / "annotation.nrrd", values, 25),
        "template": save(folder / "template.nrrd", template, 25),
        "ontology": Terminology.from_structure_graph(json.loads(json.dumps(GRAPH).replace('"a1"', '"A2"'))),
        "name": "tiny",
        "version": "2026",
        "citation": "Tiny, T. (2026) An invented atlas",
        "species": "Mus inventus",
        "workers": 1,
    }


@pytest.fixture
def tree(tmp_path):
    return tmp_path / "tree"


@pytest.mark.first(2)
@pytest.mark.filterwarnings("ignore:the midline is assumed")
@pytest.mark.parametrize(
    ("first", "second"),
    [("plain", "assets"), ("brainglobe", "assets"), ("plain", "strict")],
)
def test_atlases_of_any_layout_share_a_terminology_and_a_space(given, tree, first, second):
    for name, layout in (("tiny", first), ("other", second), ("tiny", first)):
        build_atlas(tree, **{**given, "name": name}, **SHARED, **LAYOUTS[layout])
        assert verify(tree, deep=True).defects == ()


@pytest.mark.filterwarnings("ignore:the midline is assumed")  # threads share the filters of `catch_warnings`
def test_atlases_that_share_a_terminology_and_a_space_are_built_at_the_same_time(given, tree):
    jobs = [{**given, **SHARED, "name": name, **LAYOUTS[name]} for name in ("plain", "assets", "brainglobe")]
    with ThreadPoolExecutor(len(jobs)) as pool:
        list(pool.map(lambda job: build_atlas(tree, **job), jobs))
    assert verify(tree, deep=True).defects == ()


def test_exports_of_a_shared_template_are_written_once_and_again_if_they_are_damaged(given, tree):
    build_atlas(tree, **given, **SHARED, **TEMPLATE, layout="assets")
    exports = sorted(tree.glob("templates/our-template/2020/*.nii.gz"))
    damaged, *intact = exports
    before = {path: path.stat().st_ino for path in exports}
    body = damaged.read_bytes()
    damaged.write_bytes(body[:-1])
    build_atlas(tree, **{**given, "name": "other"}, **SHARED, **TEMPLATE, layout="assets")
    assert {path: path.stat().st_ino for path in intact} == {path: before[path] for path in intact}
    assert damaged.read_bytes() == body
    assert verify(tree).ok


def test_a_shared_image_is_verified_once(given, tree):
    for name in ("tiny", "other"):
        build_atlas(tree, **{**given, "name": name}, **TEMPLATE)
    images = [path.parent for path in tree.rglob("*.ome.zarr/zarr.json")]
    assert len(images) == 5
    assert verify(tree).objects == sum(verify(image).objects for image in images)
    (tree / "templates/our-template/2020/template.ome.zarr/0/c/0/0/0").unlink()
    assert len(verify(tree).defects) == 1


OTHERS = {
    "volumes.csv": ("plain", f"{SET}/volumes.csv"),
    "the table of the standard": ("assets", f"{SET}/parcellation_volumes.csv"),
    "the manifest of an atlas": ("assets", "atlases/tiny-atlas/2026/manifest.json"),
    "the manifest of a space": ("brainglobe", "coordinate-spaces/tiny-space/2026/manifest.json"),
    "a description": ("strict", "templates/tiny-template/2026/data_description.json"),
    "a NIfTI": ("assets", "templates/tiny-template/2026/template_25.nii.gz"),
    "labels under their second name": ("assets", f"{SET}/annotations_compressed.ome.zarr/zarr.json"),
    "labels of zarr 2 under it": ("assets", f"{SET}/annotations_compressed.ome.zarr/.zgroup"),
    "masks": ("assets", f"{SET}/annotations.ome.zarr/zarr.json"),
    "a segmentation": ("assets", f"{SET}/annotations.precomputed/info"),
}


@pytest.mark.first(3)
@pytest.mark.parametrize(
    ("case", "extended"),
    [*((case, False) for case in OTHERS), ("a NIfTI", True), ("labels under their second name", True)],
)
def test_a_file_of_another_program_is_refused_before_anything_is_written(given, tree, case, extended):
    layout, key = OTHERS[case]
    if extended:  # a plain atlas
        build_atlas(tree, **given)
    (tree / key).parent.mkdir(parents=True, exist_ok=True)
    (tree / key).write_text('{"name": "of another program"}')
    before = files(tree)
    with raises(InputError, "not-atlaszarr" if case == "masks" else "target-not-empty") as caught:
        build_atlas(tree, **given, **LAYOUTS[layout])
    whole = case not in ("masks", "a segmentation", "labels of zarr 2 under it")
    assert (key if whole else key.rpartition("/")[0]) in str(caught.value)
    assert files(tree) == before


def test_with_overwrite_such_a_file_is_replaced(given, tree):
    for key in (
        f"{SET}/volumes.csv",
        "atlases/tiny-atlas/2026/manifest.json",
        f"{SET}/annotations_compressed_25.nii.gz",
    ):
        (tree / key).parent.mkdir(parents=True, exist_ok=True)
        (tree / key).write_text("{}")
    build_atlas(tree, **given, layout="assets", overwrite=True)
    assert verify(tree, deep=True).ok


def test_the_files_of_an_atlas_whose_record_is_lost_are_its_own(given, tree):
    build_atlas(tree, **given, layout="assets")
    (tree / "atlaszarr/tiny-2026.json").unlink()
    (tree / SET / "volumes.csv").write_text("damaged")
    build_atlas(tree, **given, layout="assets")
    assert verify(tree, deep=True).ok


def test_a_shared_template_lies_in_one_space(given, tree):
    build_atlas(tree, **given, **TEMPLATE, layout="assets")
    before = files(tree)
    with raises(InputError, "wrong-reference-space") as caught:
        build_atlas(tree, **{**given, "name": "other"}, **TEMPLATE, layout="assets")
    assert "our-template 2020 in the coordinate space tiny-space 2026" in str(caught.value)
    assert files(tree) == before


CHANGES = {
    "no template": ({"template": ()}, "tiny-template 2026, not without a template"),
    "another template": ({"template_name": "new"}, "tiny-template 2026, not with new-template 2026"),
    "another terminology": ({"terminology_version": "2025"}, "2026, not with tiny-terminology 2025"),
    "another space": ({"space_name": "new"}, "tiny-space 2026, not with new-space 2026"),
}


@pytest.mark.first(2)
@pytest.mark.parametrize("change", CHANGES)
def test_an_atlas_of_other_parts_is_refused_with_both_shown(given, tree, change):
    build_atlas(tree, **given, layout="assets")
    before, (other, shown) = files(tree), CHANGES[change]
    with raises(InputError, "different-options") as caught:
        build_atlas(tree, **{**given, **other}, layout="assets")
    assert shown in str(caught.value)
    assert files(tree) == before


def test_a_template_may_be_added_later(given, tree):
    report = build_atlas(tree, **{**given, "template": ()}, layout="assets")
    assert "no template" in "".join(report.remarks)
    report = build_atlas(tree, **given, layout="assets")
    assert "no template" not in "".join(report.remarks)
    manifest = json.loads((tree / "atlases/tiny-atlas/2026/manifest.json").read_text())
    assert [one["name"] for one in manifest["templates"]] == ["tiny-template"]
    assert verify(tree, deep=True).ok


@pytest.mark.slow
def test_an_atlas_that_is_overwritten_without_its_template_names_none_although_another_has_it(given, tree):
    for name in ("tiny", "other"):
        build_atlas(tree, **{**given, "name": name}, **SHARED, **TEMPLATE, layout="assets")
    build_atlas(tree, **{**given, "template": ()}, **SHARED, **TEMPLATE, layout="assets", overwrite=True)
    manifest = json.loads((tree / "atlases/tiny-atlas/2026/manifest.json").read_text())
    assert manifest["templates"] == []
    assert verify(tree, deep=True).ok


def test_a_build_with_overwrite_is_refused_during_the_whole_of_another(given, tree):
    build_atlas(tree, **given)
    refused = []

    def progress(*event):
        if "meshes" in event and not refused:
            before = files(tree)
            with raises(InputError, "target-locked") as caught:
                build_atlas(tree, **given, overwrite=True)
            assert files(tree) == before
            refused.append(str(caught.value))

    build_atlas(tree, **given, layout="assets", progress=progress)
    assert f"{SET} is being built" in refused[0]
    assert verify(tree, deep=True).ok
    assert not list(tree.rglob("*.lock"))
    assert not (tree / SET / "atlaszarr").exists()


@pytest.mark.slow
def test_a_template_of_an_unfinished_atlas_is_not_removed_by_another(given, tree):
    build_atlas(tree, **{**given, "name": "other"}, **SHARED, **TEMPLATE)

    def progress(_, __, word):
        if word == "meshes":
            build_atlas(tree, **{**given, "name": "other", "template": ()}, **SHARED, overwrite=True)

    build_atlas(tree, **given, **SHARED, **TEMPLATE, layout="assets", progress=progress)
    assert verify(tree, deep=True).ok


def test_a_list_of_atlases_that_brainglobe_cannot_read_stops_only_builds_that_change_it(given, tree):
    listed = tree / "atlases/custom_atlases.conf"
    listed.parent.mkdir(parents=True)
    listed.write_text("no list")
    build_atlas(tree, **given)
    assert listed.read_text() == "no list"
    listed.unlink()
    build_atlas(tree, **{**given, "name": "other"}, layout="brainglobe")
    listed.write_text("no list")
    build_atlas(tree, **given)
    before = files(tree)
    for layout, overwrite in (("brainglobe", False), ("plain", True)):
        with raises(InputError, "not-a-list-of-atlases"):
            build_atlas(tree, **{**given, "name": "other"}, layout=layout, overwrite=overwrite)
        assert files(tree) == before


def test_a_second_name_is_copied_without_the_lock_of_the_image():
    image, second = (Target.of(f"memory://second-name/{name}.ome.zarr") for name in ("one", "two"))
    write_multiscales(np.ones((4, 4, 4), np.uint8), image.url, levels=1)
    for _ in range(2):
        with owning(image):
            assert set(KEYS) & set(image.list_keys())
            give_second_name(image, second)
        assert second.list_keys() == image.list_keys()
        second.write(KEYS[1], b"{}")  # that an earlier copy took with it


def test_a_link_to_something_else_under_the_second_name_is_refused(given, tree, tmp_path):
    build_atlas(tree, **given)
    elsewhere = shutil.copytree(tree / SET / "hemispheres.ome.zarr", tmp_path / "elsewhere.ome.zarr")
    link = tree / SET / "annotations_compressed.ome.zarr"
    link.symlink_to(elsewhere)
    with raises(InputError, "target-not-empty") as caught:
        build_atlas(tree, **given, layout="assets")
    assert "annotations_compressed.ome.zarr" in str(caught.value)
    assert link.readlink() == elsewhere
    link.unlink()
    link.symlink_to("annotation.ome.zarr")
    build_atlas(tree, **given, layout="assets")
    assert verify(tree).ok

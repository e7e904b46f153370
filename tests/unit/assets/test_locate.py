"""Annotation sets, atlases, manifests and trees lead to labels and a terminology, or are refused in a sentence."""

import shutil

import numpy as np
import pytest

import institute_assets as institute
import lumps
from atlaszarr import Terminology, region_mask, region_volumes
from atlaszarr.assets.locate import locate
from atlaszarr.errors import AtlaszarrWarning, InputError
from atlaszarr.geometry.plane import PLANES
from atlaszarr.geometry.spaces import reference_space
from atlaszarr.previews.annotation_planes import label_planes
from atlaszarr.reference_volumes import open_annotation
from atlaszarr.terminology.terminology import terminology_of
from codes import raises
from institute_assets import ATLAS, LABELS, NAME, SET, TERMINOLOGY
from small_annotation import CSV, write_annotation

FORMS = {
    "annotation set": SET,
    "annotation set without version": f"annotation-sets/{NAME}",
    "manifest of an annotation set": f"{SET}/manifest.json",
    "atlas": ATLAS,
    "atlas without version": ATLAS.rpartition("/")[0],
    "manifest of an atlas": f"{ATLAS}/manifest.json",
    "tree": "",
}


@pytest.fixture
def root(tmp_path):
    return institute.write_tree(tmp_path / "tree")


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory):
    return institute.write_tree(tmp_path_factory.mktemp("assets") / "tree", masks=True)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_leads_to_the_labels_and_the_terminology(unchanged, form):
    found = locate(unchanged / FORMS[form])
    assert found.annotation == f"{unchanged}/{LABELS}"
    assert found.terminology == f"{unchanged}/{TERMINOLOGY}/terminology.csv"
    assert (found.name, found.version, found.remarks) == (NAME, "2020", ())
    own = f"{unchanged}/{SET}/manifest.json"
    is_atlas = "atlas" in form
    assert found.manifests == ((f"{unchanged}/{ATLAS}/manifest.json", own) if is_atlas else (own,))


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_measured_drawn_and_read_for_an_atlas(unchanged, form, tmp_path):
    given = unchanged / FORMS[form]
    table = region_volumes(given, by_hemisphere=True)
    assert table.loc["MBA:10", "volume_mm3"] == pytest.approx(lumps.LL_MM3)
    assert table.loc["MBA:10", "volume_left_mm3"] == pytest.approx(lumps.LL_MM3)
    assert table.loc["MBA:997", "voxels"] == np.count_nonzero(lumps.labels())
    assert int(region_mask(given, None, "LL").sum().compute()) == 480
    (plane,) = label_planes(given, PLANES["coronal"], [25 * 200 + 100.0], 200.0, reference_space(9))
    np.testing.assert_array_equal(plane.labels == 1, lumps.labels()[25] == 10)
    np.testing.assert_array_equal(plane.labels > 0, lumps.labels()[25] > 0)
    assert (plane.corner, plane.size) == (pytest.approx((0, 0)), pytest.approx((200, 200)))
    with open_annotation(given, tmp_path) as volume:
        assert volume.uri == f"{unchanged}/{LABELS}"
        np.testing.assert_array_equal(np.asarray(volume.array) == 1, lumps.labels() == 10)


def test_relative_paths_and_paths_with_a_slash_at_the_end_are_taken(unchanged, monkeypatch):
    monkeypatch.chdir(unchanged / SET)
    for given in (".", "manifest.json", "../2020/", f"../../../{ATLAS}/"):
        assert locate(given).annotation == f"{unchanged}/{LABELS}"


def test_labels_under_the_name_of_the_tutorial_are_found(root):
    (root / LABELS).rename(root / SET / "annotation.ome.zarr")
    assert locate(root / SET).annotation == f"{root}/{SET}/annotation.ome.zarr"


def test_an_annotation_set_without_a_manifest_has_the_terminology_next_to_it(tmp_path):
    folder = tmp_path / "annotation-sets/small-annotation/1"
    folder.mkdir(parents=True)
    write_annotation(folder)
    for given in (folder, folder.parent, tmp_path):
        assert region_volumes(given).loc[3, "voxels"] == 1500


def test_an_image_in_an_annotation_set_finds_its_terminology_by_the_manifest(root):
    image = root / LABELS
    for given in (image, image / "s0"):
        assert terminology_of(None, given)["LL"].id == "MBA:10"
    (root / SET / "terminology.csv").write_text(CSV)
    assert terminology_of(None, image)["RSP"].id == 3


def test_a_terminology_that_is_given_wins_and_nothing_else_is_looked_up(root, command):
    given = (root / TERMINOLOGY / "terminology.csv").rename(root.parent / "other.csv")
    assert region_volumes(root / SET, given).loc["MBA:10", "voxels"] == 480
    ran = command("volumes", root / SET, "--terminology", given, "--region", "LL")
    assert (ran.code, ran.out, ran.err) == (0, "Left lump: 3.84 mm3\n", "")


def test_the_newest_version_is_taken_and_named(root, command):
    for version in ("2017", "2019-12", "notes"):
        shutil.copytree(root / SET, root / SET.replace("2020", version))
    found = locate(root / "annotation-sets" / NAME)
    assert found.version == "2020"
    (remark,) = found.remarks
    assert "2020, 2019-12, 2017; 2020 is used" in remark
    with pytest.warns(AtlaszarrWarning, match="2020 is used"):
        region_volumes(root)
    ran = command("volumes", root, "--region", "LL")
    assert ran.out == "Left lump: 3.84 mm3\n"
    assert ran.err.count("2020 is used") == 1


@pytest.mark.parametrize(
    ("versions", "newest"),
    [(["1.9.0", "1.10.0", "1.10.0-old"], "1.10.0-old"), (["2017", "2016-12"], "2017"), (["3_0", "2_5"], "3_0")],
)
def test_versions_are_ordered_by_their_numbers(root, versions, newest):
    for version in versions:
        shutil.copytree(root / SET, root / "annotation-sets/other" / version)
    assert locate(root / "annotation-sets/other").version == newest


def test_an_annotation_set_that_an_atlas_lists_twice_is_one(root):
    institute.edit(root, ATLAS, annotation_sets=[institute.reference(SET), {"name": NAME, "version": "2020"}])
    assert locate(root / ATLAS).annotation == f"{root}/{LABELS}"


def test_a_reference_without_a_location_is_found_by_name_and_version(root):
    institute.edit(root, ATLAS, annotation_sets=[{"name": NAME, "version": 2020}])
    institute.edit(root, SET, terminology={"name": "allen-adult-mouse-terminology", "version": "2020"})
    assert locate(root / ATLAS).terminology == f"{root}/{TERMINOLOGY}/terminology.csv"


def test_an_atlas_of_brainglobe_is_followed_to_the_terminology_that_it_names(root):
    (root / SET / "manifest.json").unlink()
    terminology = institute.reference(TERMINOLOGY)
    institute.edit(root, ATLAS, annotation_sets=None, annotation_set=institute.reference(SET), terminology=terminology)
    found = locate(root / ATLAS)
    assert (found.annotation, found.terminology) == (f"{root}/{LABELS}", f"{root}/{TERMINOLOGY}/terminology.csv")
    nested = institute.reference(SET, terminology=terminology)
    institute.edit(root, ATLAS, annotation_set=nested, terminology=institute.reference("terminologies/x/1"))
    assert locate(root / ATLAS).terminology == found.terminology


# What is refused


def test_several_annotation_sets_of_an_atlas_are_listed(root):
    other = "annotation-sets/other-annotation/2020"
    shutil.copytree(root / SET, root / other)
    institute.edit(root, ATLAS, annotation_sets=[institute.reference(SET), institute.reference(other)])
    for given in (root / ATLAS, root):
        with raises(InputError, "ambiguous-asset") as caught:
            locate(given)
        assert f"{root}/{SET}" in str(caught.value) or f"{root}/annotation-sets/{NAME}" in str(caught.value)
        assert f"{root}/annotation-sets/other-annotation" in str(caught.value)


def test_a_tree_of_one_atlas_and_several_annotation_sets_is_that_atlas(root):
    shutil.copytree(root / SET, root / "annotation-sets/other-annotation/2020")
    assert locate(root).annotation == f"{root}/{LABELS}"


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 200, b'{"annotation_sets": 3}', b'{"annotation_sets": []}'], ids=repr
)
def test_a_broken_manifest_is_named(root, body):
    (root / ATLAS / "manifest.json").write_bytes(body)
    with raises(InputError, "damaged-manifest") as caught:
        locate(root / ATLAS)
    assert f"{root}/{ATLAS}/manifest.json" in str(caught.value)


def test_a_manifest_that_is_too_large_is_not_read(root):
    with (root / SET / "manifest.json").open("wb") as file:
        file.truncate(2**26 + 1)
    with raises(InputError, "file-too-large"):
        locate(root / SET)


OUTSIDE = [
    "/annotation-sets/../../secret/annotation-sets/x",
    "../annotation-sets/x/1",
    "/annotation-sets/x/..",
    "/annotation-sets/%2e%2e/1",
    "s3://bucket/annotation-sets/x/1",
    "https://example.org/annotation-sets/x/1",
    "//annotation-sets/x/1",
    "/annotation-sets/x/1/y",
    "\\annotation-sets\\x\\1",
    "/annotation-sets/x/1\0",
    f"/annotation-sets/{'x' * 300}/1",
    3,
    "",
    # to an asset of another kind, such as the atlas itself: a circle
    f"/{ATLAS}",
    f"/{TERMINOLOGY}",
]


@pytest.mark.parametrize("location", OUTSIDE, ids=repr)
def test_a_reference_that_leaves_the_tree_or_leads_to_another_kind_is_refused(root, location):
    institute.edit(root, ATLAS, annotation_sets=[{"name": NAME, "version": "1", "location": location}])
    with raises(InputError, "invalid-reference") as caught:
        locate(root / ATLAS)
    assert f"{root}/{ATLAS}/manifest.json" in str(caught.value)
    terminology = {"name": "x", "version": "1", "location": str(location).replace("annotation-sets", "terminologies")}
    if str(location) != f"/{TERMINOLOGY}":
        institute.edit(root, SET, terminology=terminology)
        with raises(InputError, "invalid-reference"):
            region_volumes(root / SET)


@pytest.mark.parametrize("reference", [None, 3, "x", {}, {"name": NAME}, {"name": "..", "version": "1"}], ids=repr)
def test_a_reference_that_names_nothing_is_refused(root, reference):
    institute.edit(root, ATLAS, annotation_sets=[reference])
    with raises(InputError, "invalid-reference"):
        locate(root / ATLAS)


def test_a_reference_to_what_does_not_exist_is_named(root):
    missing = "annotation-sets/missing-annotation/2020"
    institute.edit(root, ATLAS, annotation_sets=[institute.reference(missing)])
    with raises(InputError, "broken-reference") as caught:
        locate(root / ATLAS)
    assert f"{root}/{missing}" in str(caught.value)
    shutil.rmtree(root / TERMINOLOGY)
    with raises(InputError, "file-not-found") as caught:
        region_volumes(root / SET)
    assert f"{root}/{TERMINOLOGY}/terminology.csv, which {root}/{SET}/manifest.json names," in str(caught.value)


def test_a_manifest_outside_of_a_tree_cannot_name_other_assets(root, tmp_path):
    shutil.copytree(root / SET, tmp_path / "alone")
    found = locate(tmp_path / "alone")
    assert found.annotation == f"{tmp_path}/alone/annotations_compressed.ome.zarr"
    for read in (lambda: region_volumes(tmp_path / "alone"), lambda: found.terminology):
        with raises(InputError, "manifest-outside-tree") as caught:
            read()
        assert f"{tmp_path}/alone/manifest.json" in str(caught.value)


@pytest.mark.parametrize("folder", [TERMINOLOGY, "templates/x/1"])
def test_the_manifest_of_another_asset_is_named_for_what_it_is(root, folder):
    if folder != TERMINOLOGY:
        institute.put(root, folder)
    for given in (folder, f"{folder}/manifest.json"):
        with raises(InputError, "no-annotation-set") as caught:
            locate(root / given)
        assert f"a {folder.split('/')[0].replace('ies', 'y').removesuffix('s')}" in str(caught.value)


def test_an_annotation_set_with_masks_alone_is_refused(root):
    institute.write_masks(root / institute.MASKS)
    shutil.rmtree(root / LABELS)
    with raises(InputError, "labels-not-found") as caught:
        locate(root / SET)
    assert f"{root}/{SET}" in str(caught.value)


@pytest.mark.parametrize("level", ["", "/s0"])
def test_masks_are_named_for_what_they_are(unchanged, level, tmp_path):
    given = f"{unchanged}/{institute.MASKS}{level}"
    for read in (
        lambda: region_volumes(given),
        lambda: region_mask(given, Terminology(()), "LL"),
        lambda: label_planes(given, PLANES["coronal"], [5100.0], 200.0, reference_space(9)),
        lambda: open_annotation(given, tmp_path).__enter__(),
    ):
        with raises(InputError, "masks-not-labels") as caught:
            read()
        assert f"{unchanged}/{LABELS}" in str(caught.value)


def test_labels_that_bear_the_name_of_masks_are_read_as_before(unchanged, tmp_path):
    shutil.copytree(unchanged / LABELS, tmp_path / "annotations.ome.zarr")
    assert locate(tmp_path / "annotations.ome.zarr").annotation == tmp_path.joinpath("annotations.ome.zarr").as_posix()


def test_a_version_that_does_not_exist_is_refused_with_those_that_do(root):
    with raises(InputError, "version-not-found") as caught:
        locate(root / SET.replace("2020", "2021"))
    assert "has the versions 2020" in str(caught.value)


def test_a_newest_version_without_anything_in_it_is_refused(root):
    for folder in ("2021", "2021/notes"):
        (root / SET.replace("2020", folder)).mkdir()
        with raises(InputError, "version-not-found") as caught:
            locate(root / "annotation-sets" / NAME)
        assert f"{NAME}/2021" in str(caught.value)


def test_a_manifest_that_does_not_exist_is_refused(root):
    with raises(InputError, "file-not-found"):
        locate(root / "annotation-sets" / NAME / "manifest.json")


def test_what_is_no_asset_is_given_as_it_was(tmp_path):
    (tmp_path / "manifest.json").write_text('{"name": "a web page"}')
    for given in (tmp_path, tmp_path / "missing", tmp_path / "x.nrrd", tmp_path / "a.ome.zarr/0"):
        found = locate(str(given))
        assert (found.annotation, found.is_asset, found.terminology) == (str(given), False, None)
    array = np.zeros((2, 2, 2))
    assert locate(array) is array


def test_no_storage_option_is_shown():
    found = locate("s3://bucket/x.ome.zarr", {"secret": "hidden"})
    assert "hidden" not in repr(found)


def test_the_command_line_refuses_in_one_sentence(root, command):
    shutil.copytree(root / ATLAS, root / "atlases/other-atlas/1")
    shutil.copytree(root / SET, root / "annotation-sets/other-annotation/2020")
    institute.write_masks(root / institute.MASKS)
    (root / "templates/x-template/1").mkdir(parents=True)
    (root / "templates/x-template/1/manifest.json").write_text("{}")
    for given in ("", f"{SET}x", institute.MASKS, "templates/x-template/1", "manifest.json"):
        ran = command("volumes", root / given)
        assert (ran.code, ran.out) == (2, "")
        assert len(ran.err.splitlines()) == 1

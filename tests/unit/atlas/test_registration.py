"""An atlas that is found by its manifest, which another program may have written, and what its manifests keep."""

import json

import pytest

from atlaszarr.assets.names import Asset
from atlaszarr.atlas.registration import AtlasAsset, register, with_registered
from atlaszarr.engine.ome import Geometry
from atlaszarr.errors import InputError
from atlaszarr.geometry.spaces import ORIENTATION, reference_space
from atlaszarr.stores.target import Target
from atlaszarr.verification import verify
from atlaszarr.writing import write_multiscales
from codes import raises
from small_annotation import labels

FOLDER = "atlases/allen-adult-mouse-ccf-atlas/2017"
SPACE = Asset("coordinate-spaces", "a-space", "2015").reference()
TEMPLATE = Asset("templates", "a-template", "2015").reference()
SET = Asset("annotation-sets", "a-annotation", "2017").reference(template=TEMPLATE)
MANIFEST = {"coordinate_space": SPACE, "templates": [TEMPLATE], "annotation_sets": [SET]}
OTHER = Asset("templates", "b-template", "2026")
BRAINGLOBE = "atlases/a_25um/2017/manifest.json"


def write(root, manifest, key=f"{FOLDER}/manifest.json"):
    (root / key).parent.mkdir(parents=True, exist_ok=True)
    (root / key).write_text(manifest if isinstance(manifest, str) else json.dumps(manifest))
    return Target.of(root)


@pytest.fixture
def atlas(tmp_path):
    """An atlas that another program made: no record, an annotation of 2 mm."""
    root = write(tmp_path, MANIFEST)
    image = tmp_path / "annotation-sets/a-annotation/2017/annotations_compressed.ome.zarr"
    write_multiscales(labels(), image, rule="mode", geometry=Geometry((0.1,) * 3, orientation=ORIENTATION))
    return AtlasAsset.at(root)


def test_an_atlas_is_found_by_its_manifest(atlas, tmp_path):
    assert (atlas.root.url, atlas.folder, atlas.name) == (str(tmp_path), FOLDER, "a")
    assert atlas.own == {"templates/a-template/2015"}
    for given in (tmp_path / FOLDER, tmp_path / FOLDER / "manifest.json"):
        assert AtlasAsset.at(Target.of(given)) == atlas


@pytest.mark.parametrize(
    "manifest",
    [
        "",
        "[]",
        "[" * 5000,
        '{"annotation_sets": 1e999}',
        {},
        {**MANIFEST, "annotation_sets": []},
        {**MANIFEST, "annotation_sets": None},
        {**MANIFEST, "annotation_sets": "annotation"},
        {**MANIFEST, "annotation_sets": [7]},
        {**MANIFEST, "annotation_sets": [{**SET, "location": "/annotation-sets/../x"}]},
        {**MANIFEST, "annotation_sets": [{**SET, "location": "https://elsewhere/annotation-sets/a/2017"}]},
        {**MANIFEST, "annotation_sets": [{**SET, "location": "/templates/a-template/2015"}]},
        {**MANIFEST, "annotation_sets": [{**SET, "template": "a-template"}]},
        {**MANIFEST, "coordinate_space": "a-space"},
        {**MANIFEST, "coordinate_space": {**SPACE, "version": {"year": 2015}}},
        {**MANIFEST, "coordinate_space": {**SPACE, "version": "../2015"}},
        {**MANIFEST, "templates": {"a": TEMPLATE}},
        {**MANIFEST, "templates": [None]},
    ],
    ids=str,
)
def test_a_manifest_that_is_none_of_an_atlas_is_refused(tmp_path, manifest):
    root = write(tmp_path, manifest)
    with raises(InputError, "damaged-manifest") as caught:
        AtlasAsset.at(root)
    assert f"{FOLDER}/manifest.json" in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("place", ["", "atlases/allen-adult-mouse-ccf-atlas", "templates/a-template/2015"])
def test_a_place_without_an_atlas_is_refused(tmp_path, place):
    with raises(InputError, "not-an-atlas") as caught:
        AtlasAsset.at(Target.of(tmp_path / place))
    assert str(tmp_path / place) in str(caught.value)


def test_an_atlas_of_another_space_is_refused(atlas):
    with raises(InputError, "wrong-reference-space") as caught:
        atlas.sides_in(reference_space(9))
    assert "annotations_compressed.ome.zarr" in str(caught.value)
    assert "scale 0.1, 0.1, 0.1" in str(caught.value)


def test_an_annotation_set_without_labels_is_refused(tmp_path):
    with raises(InputError, "labels-not-found"):
        AtlasAsset.at(write(tmp_path, MANIFEST)).sides_in(reference_space(9))


@pytest.mark.parametrize(
    "manifest",
    [
        "{",
        {"annotation_set": SET, "resolution": [10**400] * 3, "shape": [1, 1, 1], "additional_references": []},
        {"annotation_set": SET, "resolution": 25, "shape": [1, 1, 1], "additional_references": []},
        {"annotation_set": SET, "resolution": [25] * 3, "shape": None, "additional_references": []},
        {"annotation_set": SET, "resolution": [25] * 3, "shape": [1, 1, 1], "additional_references": ["a"]},
    ],
    ids=str,
)
def test_a_damaged_manifest_of_brainglobe_is_named_when_a_template_is_registered(atlas, tmp_path, manifest):
    write(tmp_path, manifest, BRAINGLOBE)
    with raises(InputError, "damaged-manifest") as caught:
        register(atlas, OTHER, {}, {25.0: (1, 1, 1)})
    assert BRAINGLOBE in str(caught.value)


def test_it_is_listed_in_an_atlas_without_a_record_and_only_where_it_fits(atlas, tmp_path):
    fits = {"annotation_set": SET, "resolution": [25] * 3, "shape": [2, 3, 4], "additional_references": []}
    others = {
        "atlases/a_50um/2017/manifest.json": {**fits, "resolution": [50] * 3},
        "atlases/b_25um/2017/manifest.json": {**fits, "shape": [2, 3, 5]},
        "atlases/c_25um/2017/manifest.json": {**fits, "resolution": [25, 25, 50]},
        "atlases/d_25um/2017/manifest.json": {
            **fits,
            "annotation_set": Asset("annotation-sets", "other-annotation", "2017").reference(),
        },
    }
    for key, manifest in (others | {BRAINGLOBE: fits}).items():
        write(tmp_path, manifest, key)
    before = {key: (tmp_path / key).read_bytes() for key in others}
    for _ in range(2):
        assert register(atlas, OTHER, {"manifest.json": b"{}"}, {25.0: (2, 3, 4)}) == [
            f"{FOLDER}/manifest.json",
            BRAINGLOBE,
        ]
        written = json.loads((tmp_path / FOLDER / "manifest.json").read_text())
        assert written == {**MANIFEST, "templates": [TEMPLATE, OTHER.reference()]}
        assert json.loads((tmp_path / BRAINGLOBE).read_text())["additional_references"] == [OTHER.reference()]
    assert {key: (tmp_path / key).read_bytes() for key in others} == before


def test_new_manifests_keep_the_templates_that_exist(tmp_path):
    gone, mine = Asset("templates", "gone-template", "2026"), {**TEMPLATE, "note": "mine"}
    listed = [mine, gone.reference(), OTHER.reference()]
    root = write(tmp_path, {**MANIFEST, "templates": listed})
    write(tmp_path, "{}", f"{OTHER.folder}/manifest.json")
    write(tmp_path, "{", BRAINGLOBE)
    key = f"{FOLDER}/manifest.json"
    new = {key: json.dumps(MANIFEST).encode(), BRAINGLOBE: b'{"additional_references": []}', "x/manifest.json": b"[]"}
    found = with_registered(root, new)
    assert json.loads(found[key]) == {**MANIFEST, "templates": [TEMPLATE, OTHER.reference()]}
    assert {name: body for name, body in found.items() if name != key} == {
        name: body for name, body in new.items() if name != key
    }
    assert with_registered(root, found)[key] == found[key]


@pytest.mark.parametrize("place", ["", "atlases/allen-adult-mouse-ccf-atlas"])
def test_without_a_version_the_newest_is_taken(tmp_path, place):
    for version in ("2017", "2020", "1.0.0"):
        write(tmp_path, MANIFEST, f"atlases/allen-adult-mouse-ccf-atlas/{version}/manifest.json")
    found = AtlasAsset.at(Target.of(tmp_path / place))
    assert (found.root.url, found.folder) == (str(tmp_path), "atlases/allen-adult-mouse-ccf-atlas/2020")


def test_a_version_of_another_atlas_is_not_taken_for_it(tmp_path):
    for name in ("one", "two"):
        write(tmp_path, MANIFEST, f"atlases/{name}-atlas/2017/manifest.json")
    with raises(InputError, "ambiguous-asset"):
        AtlasAsset.at(Target.of(tmp_path))
    assert AtlasAsset.at(Target.of(tmp_path / "atlases/two-atlas")).folder == "atlases/two-atlas/2017"


@pytest.mark.parametrize("templates", [7, [7], [{"name": "a"}], {"a": 1}, ["a"]], ids=str)
def test_a_list_of_templates_that_is_damaged_after_the_atlas_was_opened_is_named(atlas, tmp_path, templates):
    write(tmp_path, {**MANIFEST, "templates": templates})
    before = (tmp_path / FOLDER / "manifest.json").read_text()
    with raises(InputError, "damaged-manifest") as caught:
        register(atlas, OTHER, {}, None)
    assert f"{FOLDER}/manifest.json" in str(caught.value)
    assert (tmp_path / FOLDER / "manifest.json").read_text() == before


@pytest.mark.parametrize(
    "registered",
    [
        7,
        [],
        {"/templates/a/1": None},
        {"/templates/a/1": {"reference": {"location": "/x"}, "image": "../x", "files": {}, "listed_in": []}},
        {"/templates/a/1": {"reference": {"location": "/../x"}, "image": "x", "files": {}, "listed_in": []}},
        {"/templates/a/1": {"reference": {"location": "/x"}, "image": "x", "files": {"/x": [1, "a"]}, "listed_in": []}},
        {"/templates/a/1": {"reference": {"location": "/x"}, "image": "x", "files": {"x": 1}, "listed_in": []}},
        {"/templates/a/1": {"reference": {"location": "/x"}, "image": "x", "files": {}, "listed_in": 1}},
    ],
    ids=str,
)
def test_a_record_with_damaged_entries_is_a_defect(tmp_path, registered):
    known = {"name": "a", "version": "1", "state": "finished", "sources": {}, "images": [], "files": {}}
    root = write(tmp_path, {**known, "registered": {}}, "atlaszarr/a-1.json")
    assert verify(tmp_path).ok
    write(tmp_path, {**known, "registered": registered}, "atlaszarr/a-1.json")
    assert [(defect.kind, defect.key) for defect in verify(tmp_path).defects] == [("metadata", "atlaszarr/a-1.json")]
    assert with_registered(root, {BRAINGLOBE: b"{}"}) == {BRAINGLOBE: b"{}"}

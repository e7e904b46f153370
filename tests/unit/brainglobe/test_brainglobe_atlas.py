"""A whole atlas for BrainGlobe: every file at the path that its reader opens, manifests last, errors before writing.

The reader itself opens one in tests/peers.
"""

import json
import shutil

import numpy as np
import pytest
import zarr

from atlaszarr import Terminology, build_atlas, verify
from atlaszarr.assets.names import ANNOTATION, COMPRESSED, HEMISPHERES, MASKS, PRECOMPUTED, TEMPLATE, AtlasNames, below
from atlaszarr.assets.validation import findings
from atlaszarr.atlas.second_name import give_second_name
from atlaszarr.brainglobe.demands import refuse
from atlaszarr.credit import Credit
from atlaszarr.engine.finished_image import Finished
from atlaszarr.errors import InputError
from atlaszarr.stores.target import Target
from atlaszarr.terminology.terminology import Structure
from codes import raises
from tiny_atlas import files, save

NAMES = AtlasNames.of("tiny", "3.0", template_name="tiny-mean", space_name="tiny-frame", terminology_name="tiny-words")
SET = NAMES.annotation_set.folder
#: 5 and its child 6 occur nowhere; the parent of 70000 needs more than 16 bits too.
TERMINOLOGY = Terminology(
    (
        Structure(997, "root", "root", "#FFFFFF", (997,)),
        Structure(5, "none", "Nowhere", "#010203", (997, 5)),
        Structure(6, "less", "Nowhere, below", "#010204", (997, 5, 6)),
        Structure(80000, "grey", "Grey, basic", "#BFDAE3", (997, 80000)),
        Structure(70000, "far", "Far away", "#0A0B0C", (997, 80000, 70000)),
    )
)
LEVELS = {25: [60, 40, 44], 50: [30, 20, 22], 100: [15, 10, 11]}


def labels(shape=(60, 40, 44)):
    found = np.zeros(shape, np.uint32)
    found[10:40, 5:30, 5:40] = 80000
    found[20:35, 10:20, 10:20] = 70000
    return found


def given(folder, um=25, template_um=None, dtype=np.uint16):
    """The options of `build_atlas` for an annotation and a template."""
    folder.mkdir(exist_ok=True)
    step = int((template_um or um) // um)
    template = (labels() // 300 + 7)[::step, ::step, ::step].astype(dtype)
    return {
        "annotation": save(folder / "annotation.nrrd", labels(), um, sides="asr"),
        "template": save(folder / "template.nrrd", template, um * step, sides="asr"),
        "ontology": TERMINOLOGY,
        "name": "tiny",
        "version": "3.0",
        "template_name": "tiny-mean",
        "space_name": "tiny-frame",
        "terminology_name": "tiny-words",
        "citation": "Tiny, T. (2026)",
        "species": "Mus inventus",
    }


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return given(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="module")
def built(sources, tmp_path_factory):
    """The folder of an atlas; not to be changed."""
    folder = tmp_path_factory.mktemp("built") / "brainglobe-atlasapi"
    report = build_atlas(folder, **sources, brainglobe=True)
    assert {image.state for image in report.images} == {"built"}
    return folder


@pytest.fixture
def copied(built, tmp_path):
    """A copy of that folder."""
    return shutil.copytree(built, tmp_path / "brainglobe-atlasapi", symlinks=True)


def manifest(root, resolution):
    return json.loads((root / f"atlases/tiny_{resolution}um/3_0/manifest.json").read_text())


def test_every_file_is_at_the_path_that_the_reader_opens(built):
    for resolution, shape in LEVELS.items():
        found = manifest(built, resolution)
        assert found["resolution"] == [resolution] * 3
        assert found["shape"] == shape
        assert found["version"] == "3.0"
        assert found["orientation"] == "asr"
        for part, file in (
            ("annotation_set", f"{COMPRESSED}/zarr.json"),
            ("annotation_set", f"{MASKS}/annotation_values/c/0"),
            ("annotation_set", f"{HEMISPHERES}/zarr.json"),
            ("annotation_set", f"{PRECOMPUTED}/mesh/997"),
            ("terminology", "terminology.csv"),
            ("terminology", "manifest.json"),
            ("template", f"{TEMPLATE}/zarr.json"),
            ("coordinate_space", "manifest.json"),
        ):
            location = found[part]["location"]
            assert location.startswith("/")
            assert (built / location[1:] / file).is_file()
        assert found["annotation_set"]["template"] == found["template"]
        assert found["annotation_set"]["terminology"] == found["terminology"]
    space = json.loads((built / NAMES.coordinate_space.folder / "manifest.json").read_text())
    assert space["template"]["name"] == "tiny-mean-template"
    assert verify(built, deep=True).ok


def test_manifests_have_what_the_published_standard_demands_of_an_atlas(built):
    found = manifest(built, 50)
    assert found["templates"] == [NAMES.template.reference()]
    (one,) = found["annotation_sets"]
    assert one["location"] == f"/{SET}"
    assert one["terminology"] == found["terminology"]
    assert found["schema_version"] == "0.2.0"
    assert found["coordinate_space"]["name"] == "tiny-frame-space"
    for key in (found["terminology"], found["coordinate_space"]):
        document = json.loads((built / key["location"][1:] / "manifest.json").read_text())
        assert {"name", "version", "location", "schema_version"} <= document.keys()


def test_the_standard_has_nothing_against_the_tree_but_names(tmp_path):
    root, names = Target.of(tmp_path / "brainglobe-atlasapi"), AtlasNames.of("tiny", "2017")
    options = {name: value for name, value in given(tmp_path / "sources").items() if "_name" not in name}
    build_atlas(root.url, **options | {"version": "2017"}, layout=["assets", "brainglobe"])
    assert list(findings(root)) == []
    assert {(one.kind, one.key) for one in findings(root, strict=True)} == {
        ("extra", key)
        for key in (
            "atlaszarr",
            "atlases/custom_atlases.conf",
            "atlases/last_versions.conf",
            *(f"atlases/tiny_{resolution}um" for resolution in LEVELS),
            *(
                f"{names.annotation_set.folder}/{name}"
                for name in (ANNOTATION, HEMISPHERES, "terminology.csv", "volumes.csv")
            ),
        )
    }
    assert verify(root.url, deep=True).ok


def test_credit_is_in_the_manifests(built):
    found = manifest(built, 25)
    assert (found["citation"], found["species"], found["symmetric"]) == ("Tiny, T. (2026)", "Mus inventus", False)
    assert found["atlas_link"] == ""


def test_a_second_build_changes_nothing_but_the_record(sources, built, copied):
    report = build_atlas(copied, **sources, brainglobe=True)
    assert {image.state for image in report.images} == {"already finished"}
    before, after = files(built), files(copied)
    record = "atlaszarr/tiny-3.0.json"
    assert {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)} <= {record}


def test_brainglobes_terminology_has_only_what_occurs_and_the_other_has_all(built):
    location = manifest(built, 25)["terminology"]["location"]
    assert location == "/terminologies/tiny-brainglobe-terminology/3_0"
    pruned = Terminology.read(built / location[1:] / "terminology.csv")
    assert [one.id for one in pruned] == [997, 80000, 70000]
    assert [pruned[id] for id in (997, 80000, 70000)] == [TERMINOLOGY[id] for id in (997, 80000, 70000)]
    for folder in (NAMES.terminology.folder, SET):
        assert Terminology.read(built / folder / "terminology.csv") == TERMINOLOGY
    meshes = (built / SET / PRECOMPUTED / "mesh").iterdir()
    assert {int(path.name) for path in meshes if path.name.isdigit()} == {one.id for one in pruned}


def test_every_image_and_manifest_names_the_sides_as_brainglobe_does(built):
    images = sorted((built / "annotation-sets").glob("*/*/*.ome.zarr")) + list((built / "templates").glob("*/*/*.zarr"))
    assert {path.name for path in images} == {ANNOTATION, COMPRESSED, MASKS, HEMISPHERES, TEMPLATE}
    for path in images:
        (multiscale,) = zarr.open_group(path, mode="r").attrs["ome"]["multiscales"]
        (x,) = (axis for axis in multiscale["axes"] if axis["name"] == "x")
        assert x["orientation"]["value"] == "right-to-left", path.name
    assert {manifest(built, resolution)["orientation"] for resolution in LEVELS} == {"asr"}
    assert json.loads((built / "atlaszarr/tiny-3.0.json").read_text())["sides"]["x"] == "right-to-left"


def test_hemispheres_have_the_levels_of_the_annotation_and_for_brainglobe_the_low_half_of_x_is_right(built):
    target = Target.of(built / SET / HEMISPHERES)
    assert Finished.at(target).resolutions == tuple((float(resolution),) * 3 for resolution in LEVELS)
    for level, (shape, middle) in enumerate(zip(LEVELS.values(), (22, 11, 5), strict=True)):
        sides = zarr.open_array(f"{target.url}/{level}", mode="r")[:]
        assert sides.dtype == np.uint8
        assert sides.shape == tuple(shape)
        assert (sides[..., :middle] == 2).all()
        assert (sides[..., middle:] == 1).all()


def test_the_second_name_of_the_annotation_opens_the_same_image(copied):
    assert (copied / SET / COMPRESSED).is_symlink()
    image = Target.of(copied / SET / ANNOTATION)
    give_second_name(image, Target.of(copied / SET / COMPRESSED))
    assert (copied / SET / COMPRESSED).is_symlink()
    remote = Target.of("memory://second-names/a.ome.zarr")
    for key in image.list_keys():
        remote.write(key, image.read(key))
    second = Target.of("memory://second-names/b.ome.zarr")
    second.write("0/c/9/9/9", b"of another image")
    for _ in range(2):
        give_second_name(remote, second)
        assert {key: second.read(key) for key in second.list_keys()} == {
            key: image.read(key) for key in image.list_keys()
        }
    assert verify(second.url).ok
    for target in (remote, second):
        target.remove()


def test_an_atlas_is_written_to_an_object_store_too(sources, built):
    root = Target.of("memory://whole-atlas/brainglobe-atlasapi")
    build_atlas(root.url, **sources, brainglobe=True)
    local = Target.of(built)
    remote = {key for key in root.list_keys() if f"/{COMPRESSED}/" not in key}
    assert remote == {key for key in local.list_keys() if f"/{COMPRESSED}/" not in key}
    for key in remote - {key for key in remote if "/atlaszarr/" in key or key.startswith("atlaszarr/")}:
        assert root.read(key) == local.read(key), key
    for key in below(root, f"{SET}/{ANNOTATION}").list_keys():
        assert root.read(f"{SET}/{COMPRESSED}/{key}") == root.read(f"{SET}/{ANNOTATION}/{key}")
    assert verify(root.url).ok
    root.remove()


@pytest.mark.parametrize(
    ("changed", "code", "named"),
    [
        ({"um": 12.5}, "fractional-resolution", "12.5 um"),
        ({"template_um": 50}, "resolution-mismatch", "voxels of 50 um, but the annotation of 25 um"),
    ],
)
def test_volumes_that_the_reader_cannot_open_are_refused_before_anything_is_written(tmp_path, changed, code, named):
    with raises(InputError, code) as caught:
        build_atlas(tmp_path / "atlas", **given(tmp_path / "sources", **changed), brainglobe=True)
    assert named in str(caught.value)
    assert not (tmp_path / "atlas").exists()


@pytest.mark.parametrize(
    ("options", "code", "named"),
    [
        ({"template": ()}, "missing-template", "--template"),
        ({"ome_zarr": "0.4"}, "not-supported", "0.4"),
        ({"species": None}, "missing-credit", "--species"),
        ({"citation": None}, "missing-credit", "--citation"),
        ({"version": "1.0.0"}, "invalid-version", "1.0.0"),
        ({"version": "2017-10"}, "invalid-version", "2017-10"),
        ({"template_version": "1.0.0"}, "invalid-version", "1.0.0"),
        ({"name": "Allen mouse"}, "invalid-name", "Allen mouse"),
        ({"name": "a/b"}, "invalid-name", "a/b"),
        ({"strict": True, "layout": "assets"}, "conflicting-options", "BrainGlobe"),
        ({"ontology": Terminology(TERMINOLOGY.structures[:4]), "allow_unknown": True}, "unknown-label", "70000"),
    ],
)
def test_options_that_the_reader_cannot_follow_are_refused_before_anything_is_written(
    sources, tmp_path, options, code, named
):
    with raises(InputError, code) as caught:
        build_atlas(tmp_path / "atlas", **{**sources, **options}, brainglobe=True)
    assert named in str(caught.value)
    assert not (tmp_path / "atlas").exists()


def test_an_annotation_with_the_orientation_of_the_allen_institute_is_refused(sources, tmp_path):
    build_atlas(tmp_path / "atlas", **sources)
    one, other = (
        Finished.at(Target.of(tmp_path / "atlas" / path))
        for path in (f"{SET}/{ANNOTATION}", f"{NAMES.template.folder}/{TEMPLATE}")
    )
    with raises(InputError, "unsupported-orientation") as caught:
        refuse(one, other, TERMINOLOGY, Credit("Tiny, T. (2026)", species="Mus inventus"))
    assert "left-to-right" in str(caught.value)

"""Several atlases in one tree, and one in several layouts: none takes from another what is its own."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from atlaszarr import Terminology, build_atlas, verify
from atlaszarr.assets.names import Asset
from atlaszarr.atlas.registration import AtlasAsset, register
from atlaszarr.errors import InputError
from atlaszarr.stores.target import Target
from codes import raises
from tiny_atlas import GRAPH, files, labels, save, write_sources

LAYOUTS = {
    "plain": {},
    "assets": {"layout": "assets"},
    "brainglobe": {"layout": "brainglobe"},
    "both": {"layout": ["assets", "brainglobe"]},
    "strict": {"layout": "assets", "strict": True},
}
SHARED = {
    "space_name": "our",
    "space_version": "2020",
    "terminology_name": "our",
    "terminology_version": "2020",
}
TEMPLATE = {"template_name": "our", "template_version": "2020"}


def ontology(acronym="A2"):
    return Terminology.from_structure_graph(json.loads(json.dumps(GRAPH).replace('"a1"', f'"{acronym}"')))


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    own = {"version": "2026", "ontology": ontology(), "chunk": 32, "workers": 1}
    return write_sources(tmp_path_factory.mktemp("given") / "sources") | own


@pytest.fixture(scope="module")
def trees(given, tmp_path_factory):
    """A tree of each layout."""
    folder = tmp_path_factory.mktemp("trees")
    for name, layout in LAYOUTS.items():
        build_atlas(folder / name, **given, **layout)
    return folder


def names(folder):
    """Every file of a tree that is no record."""
    return {name for name in files(folder) if "atlaszarr/" not in name}


@pytest.mark.slow
@pytest.mark.parametrize("first", [name for name in LAYOUTS if name != "strict"])
def test_an_atlas_has_all_names_or_those_of_the_standard_alone(given, trees, tmp_path, first):
    for before, after in ((first, "strict"), ("strict", first)):
        target = shutil.copytree(trees / before, tmp_path / before, symlinks=True)
        found = files(target)
        with raises(InputError, "different-layout") as caught:
            build_atlas(target, **given, **LAYOUTS[after])
        assert "--strict" in str(caught.value)
        assert files(target) == found
        build_atlas(target, **given, **LAYOUTS[after], overwrite=True)
        assert verify(target, deep=True).ok
        assert names(target) == names(trees / after)


@pytest.mark.slow
def test_the_layout_of_brainglobe_leaves_what_the_standard_needs(given, trees, tmp_path):
    target = shutil.copytree(trees / "both", tmp_path / "atlas", symlinks=True)
    build_atlas(target, **given, layout="brainglobe")
    assert verify(target).ok
    key = "coordinate-spaces/tiny-space/2026/manifest.json"
    assert (target / key).read_bytes() == (trees / "both" / key).read_bytes()


@pytest.mark.slow
def test_a_plain_atlas_needs_no_documents_in_a_tree_of_the_standard(given, trees, tmp_path):
    target = shutil.copytree(trees / "assets", tmp_path / "atlas", symlinks=True)
    build_atlas(target, **{**given, "name": "other"})
    assert verify(target).ok


@pytest.fixture
def two(given, tmp_path):
    """A tree of two atlases, and the options of the second, which has larger voxels and the space of the first."""
    target = tmp_path / "atlas"
    other = {**given, **SHARED, "layout": "assets", "name": "other", "template": ()}
    other["annotation"] = save(tmp_path / "coarse.nrrd", labels()[::2, ::2, ::2].copy(), 50)
    build_atlas(target, **given, **SHARED, **TEMPLATE, layout="assets")
    build_atlas(target, **other)
    return target, other


def test_the_space_of_two_atlases_is_that_of_the_first(given, two):
    target, _ = two
    assert verify(target, deep=True).ok
    before = names(target)
    build_atlas(target, **given, **SHARED, **TEMPLATE, layout="assets")
    assert names(target) == before
    assert verify(target).ok
    space = json.loads((target / "coordinate-spaces/our-space/2020/manifest.json").read_text())
    assert space["spacing"]["values"] == [0.025] * 3


def test_what_two_atlases_have_is_not_replaced_by_one(two):
    target, other = two
    before = files(target)
    with raises(InputError, "different-options") as caught:
        build_atlas(target, **{**other, "ontology": ontology("A3")}, overwrite=True)
    assert "terminologies/our-terminology/2020/terminology.csv" in str(caught.value)
    assert "another atlas" in str(caught.value)
    assert files(target) == before
    with raises(InputError, "different-options") as caught:
        template = save(target.parent / "other.nrrd", np.ones((20, 16, 18), np.uint16), 50)
        build_atlas(target, **{**other, **TEMPLATE, "template": template}, overwrite=True)
    assert "--template-version" in str(caught.value)
    assert files(target) == before


def test_an_atlas_that_is_overwritten_leaves_what_another_has(two):
    target, other = two
    build_atlas(target, **{**other, "layout": "plain", "space_name": "own", "terminology_name": "own"}, overwrite=True)
    assert verify(target, deep=True).ok
    assert (target / "terminologies/our-terminology/2020/terminology.csv").exists()
    assert not (target / "annotation-sets/other-annotation/2026/annotations.ome.zarr").exists()


@pytest.mark.parametrize("word", ["meshes", "annotations_compressed_50.nii.gz"])
def test_a_template_that_is_registered_during_a_build_stays_registered(given, tmp_path, word):
    target = tmp_path / "atlas"
    build_atlas(target, **given, layout="assets")
    for path in (target / "annotation-sets/tiny-annotation/2026").glob("*.nii.gz"):
        path.unlink()
    shutil.rmtree(target / "annotation-sets/tiny-annotation/2026/annotations.precomputed/mesh")
    asset, done = Asset("templates", "tiny-ish-a-1-template", "2026"), []

    def progress(*event):
        if word in event and not done:
            done.append(event)
            image = target / asset.folder / "template.ome.zarr"
            shutil.copytree(target / "templates/tiny-template/2026/template.ome.zarr", image)
            found = {"manifest.json": json.dumps(asset.reference()).encode()}
            register(AtlasAsset.at(Target.of(target)), asset, found, None)

    build_atlas(target, **given, layout="assets", progress=progress)
    assert done
    manifest = json.loads((target / "atlases/tiny-atlas/2026/manifest.json").read_text())
    assert manifest["templates"][-1]["name"] == asset.name
    record = json.loads((target / "atlaszarr/tiny-2026.json").read_text())
    assert [one["image"] for one in record["registered"].values()] == [f"{asset.folder}/template.ome.zarr"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the midline is assumed")  # threads share the filters of `catch_warnings`
def test_atlases_of_any_layout_are_built_into_one_tree_at_the_same_time(given, tmp_path):
    target = tmp_path / "atlas"
    jobs = [{**given, "name": name, **LAYOUTS[name]} for name in ("plain", "assets", "brainglobe", "both")]
    with ThreadPoolExecutor(len(jobs)) as pool:
        reports = list(pool.map(lambda job: build_atlas(target, **job), jobs))
    assert {image.state for report in reports for image in report.images} == {"built"}
    assert verify(target, deep=True).ok
    listed = (target / "atlases/custom_atlases.conf").read_text()
    assert "brainglobe_25um" in listed
    assert "both_25um" in listed
    assert not [path for path in target.rglob("*") if path.name.endswith((".lock", ".partial"))]


def test_two_builds_of_one_atlas_at_the_same_time_do_no_harm(given, tmp_path):
    target, refused = tmp_path / "atlas", []

    def progress(*_):
        if not refused:
            with raises(InputError, "target-locked") as caught:
                build_atlas(target, **given, layout="plain")
            refused.append(str(caught.value))

    build_atlas(target, **given, layout="assets", progress=progress)
    assert "tiny-annotation/2026 is being built" in refused[0]
    assert verify(target, deep=True).ok


def test_atlases_of_one_space_and_version_have_a_manifest_each(given, tmp_path):
    for name in ("one", "two"):
        build_atlas(tmp_path / "tree", **{**given, "name": name}, **SHARED, **TEMPLATE, layout="assets")
        manifest = json.loads((tmp_path / f"tree/atlases/{name}-atlas/2026/manifest.json").read_text())
        assert [one["name"] for one in manifest["annotation_sets"]] == [f"{name}-annotation"]
    assert verify(tmp_path / "tree").ok


def test_an_atlas_that_is_overwritten_without_a_template_names_none(given, tmp_path):
    build_atlas(tmp_path / "tree", **given, layout="assets")
    build_atlas(tmp_path / "tree", **{**given, "template": ()}, layout="assets", overwrite=True)
    manifest = json.loads((tmp_path / "tree/atlases/tiny-atlas/2026/manifest.json").read_text())
    assert manifest["templates"] == []
    assert not (tmp_path / "tree/templates").exists()
    assert verify(tmp_path / "tree").ok

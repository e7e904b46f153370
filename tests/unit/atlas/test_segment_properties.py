"""Acronyms and names for neuroglancer next to the annotation of an atlas without a precomputed segmentation."""

import json

import pytest

from atlaszarr import build_atlas, verify
from atlaszarr.atlas import record
from tiny_atlas import ONTOLOGY, SET, files, write_sources

NAMES = f"{SET}/segment_properties/info"
RECORD = "atlaszarr/tiny-1.json"


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return write_sources(tmp_path_factory.mktemp("sources") / "tiny")


@pytest.fixture
def atlas(sources, tmp_path):
    build_atlas(tmp_path / "atlas", **sources)
    return tmp_path / "atlas"


def test_a_plain_atlas_has_acronym_and_name_of_every_label(atlas):
    found = json.loads((atlas / NAMES).read_text())
    assert found["@type"] == "neuroglancer_segment_properties"
    assert found["inline"]["ids"] == [str(one.value) for one in ONTOLOGY]
    acronyms, names = found["inline"]["properties"]
    assert (acronyms["type"], acronyms["values"]) == ("label", [one.acronym for one in ONTOLOGY])
    assert (names["type"], names["values"]) == ("description", [one.name for one in ONTOLOGY])
    assert verify(atlas, deep=True).ok


def test_they_are_those_of_the_segmentation_and_only_a_plain_atlas_has_them_twice(atlas, sources, tmp_path):
    build_atlas(tmp_path / "assets", **{**sources, "version": "2017"}, layout="assets")
    found = {key: body for key, body in files(tmp_path / "assets").items() if key.endswith("segment_properties/info")}
    (key,) = found
    assert key.endswith("annotations.precomputed/segment_properties/info")
    assert found[key] == (atlas / NAMES).read_bytes()


@pytest.mark.parametrize(
    ("damage", "kind"),
    [(lambda path: path.unlink(), "missing"), (lambda path: path.write_text("{}"), "altered")],
    ids=["missing", "altered"],
)
def test_a_defect_is_named_and_repaired(atlas, sources, damage, kind):
    before = (atlas / NAMES).read_bytes()
    damage(atlas / NAMES)
    assert [(defect.kind, defect.key) for defect in verify(atlas).defects] == [(kind, NAMES)]
    build_atlas(atlas, **sources)
    assert (atlas / NAMES).read_bytes() == before
    assert verify(atlas).ok


def test_an_atlas_that_was_built_without_them_is_sound_and_has_them_after_the_same_command(atlas, sources):
    before = files(atlas)
    (atlas / NAMES).unlink()
    content = json.loads((atlas / RECORD).read_text())
    del content["files"][NAMES], content["check"]
    (atlas / RECORD).write_bytes(record._body(content))
    assert verify(atlas, deep=True).ok
    report = build_atlas(atlas, **sources)
    assert {image.state for image in report.images} == {"already finished"}
    assert {key for key, body in files(atlas).items() if body != before[key]} <= {RECORD}
    assert verify(atlas).ok


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_atlas_that_gets_a_segmentation_keeps_them_unless_it_is_built_anew(sources, tmp_path, overwrite):
    given = {**sources, "version": "2017"}
    names = tmp_path / "atlas" / NAMES.replace("/1/", "/2017/")
    build_atlas(tmp_path / "atlas", **given)
    assert names.exists()
    build_atlas(tmp_path / "atlas", **given, layout="assets", overwrite=overwrite)
    assert names.exists() is not overwrite
    assert names.parent.exists() is not overwrite
    assert verify(tmp_path / "atlas").ok

"""The published standard has nothing against an atlas that was built, in any layout."""

import json

import numpy as np
import pandas as pd
import pytest

from atlaszarr import build_atlas, verify
from atlaszarr.assets.names import AtlasNames
from atlaszarr.assets.validation import findings
from atlaszarr.errors import InputError
from atlaszarr.stores.target import Target
from codes import raises
from tiny_atlas import labels, save, write_sources

NAMES = AtlasNames.of("tiny", "2026")
SET, TERMS = NAMES.annotation_set.folder, NAMES.terminology.folder


@pytest.fixture
def given(tmp_path):
    """The options of an atlas whose version the standard has."""
    return write_sources(tmp_path / "sources") | {"version": "2026"}


def bodies(folder):
    """Every object of a tree but records of atlaszarr, which have times."""
    root = Target.of(folder)
    return {key: root.read(key) for key in root.list_keys() if "atlaszarr/" not in key}


def test_only_names_of_a_built_atlas_are_not_those_of_the_standard(tmp_path, given):
    build_atlas(tmp_path / "atlas", layout="assets", **given)
    root = Target.of(tmp_path / "atlas")
    assert list(findings(root)) == []
    left = {(one.kind, one.key.rpartition("/")[2]) for one in findings(root, strict=True)}
    further = ("atlaszarr", "annotation.ome.zarr", "hemispheres.ome.zarr", "terminology.csv", "volumes.csv")
    assert left == {("extra", name) for name in further}
    assert verify(tmp_path / "atlas", deep=True).ok


def test_a_strict_tree_has_no_other_names_and_its_record_is_next_to_the_ledger_of_its_annotation(tmp_path, given):
    report = build_atlas(tmp_path / "atlas", layout="assets", strict=True, **given)
    root = Target.of(tmp_path / "atlas")
    assert list(findings(root, strict=True)) == []
    assert set(root.entries()) == {"annotation-sets", "atlases", "coordinate-spaces", "templates", "terminologies"}
    record = json.loads(root.read(f"{SET}/annotations_compressed.ome.zarr/atlaszarr/atlas.json"))
    assert record["state"] == "finished"
    assert record["layout"] == {"assets": True, "brainglobe": False, "strict": True}
    assert report.volumes.endswith("parcellation_volumes.csv")
    assert verify(tmp_path / "atlas", deep=True).ok
    before = bodies(tmp_path / "atlas")
    again = build_atlas(tmp_path / "atlas", layout="assets", strict=True, **given)
    assert {image.state for image in again.images} == {"already finished"}
    assert bodies(tmp_path / "atlas") == before
    build_atlas(tmp_path / "atlas", layout="assets", strict=True, overwrite=True, **given)
    assert verify(tmp_path / "atlas").ok


def test_a_strict_tree_without_its_record_is_named(tmp_path, given):
    build_atlas(tmp_path / "atlas", layout="assets", strict=True, **given)
    (tmp_path / "atlas" / SET / "annotations_compressed.ome.zarr/atlaszarr/atlas.json").unlink()
    assert [defect.kind for defect in verify(tmp_path / "atlas").defects] == ["missing"]
    build_atlas(tmp_path / "atlas", layout="assets", strict=True, **given)
    assert verify(tmp_path / "atlas").ok


@pytest.mark.parametrize(
    "options", [{}, {"layout": "plain"}, {"layout": ["assets", "brainglobe"]}, {"layout": "brainglobe"}]
)
def test_strict_is_refused_without_the_layout_assets_alone(tmp_path, given, options):
    with raises(InputError, "conflicting-options"):
        build_atlas(tmp_path / "atlas", strict=True, **options, **given)
    assert not (tmp_path / "atlas").exists()


def test_a_plain_atlas_becomes_one_of_the_standard_in_place(tmp_path, given):
    build_atlas(tmp_path / "atlas", **given)
    before = bodies(tmp_path / "atlas")
    report = build_atlas(tmp_path / "atlas", layout="assets", **given)
    assert [image.state for image in report.images] == ["already finished"] * 3 + ["built"] * 2
    after = bodies(tmp_path / "atlas")
    changed = {key for key, body in before.items() if after[key] != body}
    assert changed == {f"{SET}/terminology.csv", f"{TERMS}/terminology.csv"}  # with descendants
    assert list(findings(Target.of(tmp_path / "atlas"))) == []
    assert verify(tmp_path / "atlas").ok
    build_atlas(tmp_path / "atlas", **given)
    assert bodies(tmp_path / "atlas") == after
    assert verify(tmp_path / "atlas").ok


def test_without_a_template_the_rest_is_built_and_a_remark_says_what_is_missing(tmp_path, given):
    report = build_atlas(tmp_path / "atlas", layout="assets", **{**given, "template": ()})
    assert any("no template" in remark for remark in report.remarks)
    root = Target.of(tmp_path / "atlas")
    assert "templates" not in root.entries()
    assert json.loads(root.read(f"{NAMES.atlas.folder}/manifest.json"))["templates"] == []
    assert list(findings(root)) == []
    assert verify(tmp_path / "atlas").ok


def test_a_second_atlas_shares_space_terminology_and_template_with_the_first(tmp_path, given):
    shared = {"template_version": "2026", "space_version": "2026", "terminology_version": "2026"}
    build_atlas(tmp_path / "atlas", layout="assets", **given)
    other = save(tmp_path / "other.nrrd", np.where(labels() == 7, np.uint32(3), labels()), 25)
    build_atlas(tmp_path / "atlas", layout="assets", **shared, **{**given, "annotation": other, "version": "2027"})
    root = Target.of(tmp_path / "atlas")
    assert set(root.entries("annotation-sets/tiny-annotation")) == {"2026", "2027"}
    assert set(root.entries("templates/tiny-template")) == {"2026"}
    assert list(findings(root)) == []
    assert verify(tmp_path / "atlas").ok


def test_an_atlas_of_an_earlier_version_is_not_resumed(tmp_path, given):
    build_atlas(tmp_path / "atlas", **given)
    record = tmp_path / "atlas/atlaszarr/tiny-2026.json"
    content = json.loads(record.read_text())
    del content["rules"], content["check"]
    record.write_text(json.dumps(content))
    with raises(InputError, "different-layout") as caught:
        build_atlas(tmp_path / "atlas", layout="assets", **given)
    assert "earlier version" in str(caught.value)
    build_atlas(tmp_path / "atlas", layout="assets", overwrite=True, **given)
    assert verify(tmp_path / "atlas").ok


def test_tables_of_the_standard_have_descendants_and_volumes(tmp_path, given):
    build_atlas(tmp_path / "atlas", layout="assets", **given)
    frame = pd.read_csv(tmp_path / "atlas" / TERMS / "terminology.csv").set_index("abbreviation")
    assert frame.loc["A", "descendant_annotation_values"] == "[8, 3, 3000000003]"
    parquet = pd.read_parquet(tmp_path / "atlas" / TERMS / "terminology.parquet").set_index("abbreviation")
    assert list(parquet.loc["A", "descendant_annotation_values"]) == [8, 3, 3_000_000_003]
    volumes = pd.read_csv(tmp_path / "atlas" / SET / "parcellation_volumes.csv").set_index("identifier")
    assert volumes.loc[7, "voxel_count"] == np.count_nonzero(labels() == 7)


def test_a_version_that_the_standard_lacks_is_refused(tmp_path, given):
    with raises(InputError, "invalid-version"):
        build_atlas(tmp_path / "atlas", layout="assets", **{**given, "version": "3.0"})
    assert not (tmp_path / "atlas").exists()

"""Atlases in the layouts of the standard and of BrainGlobe from unusual annotations: nothing is missing or invented."""

import json
from pathlib import Path

import nrrd
import numpy as np
import pandas as pd
import pytest
import zarr

from atlaszarr import Terminology, build_atlas, region_volumes, verify
from atlaszarr.assets.validation import findings
from atlaszarr.errors import InputError, RecordError
from atlaszarr.stores.target import Target
from codes import raises
from tiny_atlas import GRAPH, files, labels, save, write_sources

SET = "annotation-sets/tiny-annotation/2026"
STRICT, BOTH = {"layout": "assets", "strict": True}, {"layout": ["assets", "brainglobe"]}
SHAPE = (40, 32, 36)
#: Identifiers are CURIEs, and voxels hold other numbers, as in HOMBA.
CURIES = """\
identifier,annotation_value,parent_identifier,name,abbreviation,color_hex_triplet
H:10154,501,,nervous system,CNS,#3cb44b
H:10155,502,H:10154,brain,Br,#808000
"""


def of_labels(*boxes):
    """Labels of nested boxes, each with its distance from the faces."""
    found = np.zeros(SHAPE, np.uint32)
    for inset, label in boxes:
        found[inset : 40 - inset, inset : 32 - inset, inset : 36 - inset] = label
    return found


@pytest.fixture
def given(tmp_path):
    ontology = Terminology.from_structure_graph(json.loads(json.dumps(GRAPH).replace('"a1"', '"A2"')))
    own = {"version": "2026", "ontology": ontology, "chunk": 32, "workers": 1}
    return write_sources(tmp_path / "sources") | own


def built(tmp_path, given, layout, values, **more):
    """Build an atlas of labels twice; it is valid, and the second build finds nothing to do."""
    target = tmp_path / "atlas"
    options = {**given, "annotation": save(tmp_path / "own.nrrd", values, 25), **layout, **more}
    report = build_atlas(target, **options)
    assert any("every voxel is 0" in remark for remark in report.remarks) is not values.any()
    before = files(target)
    assert {image.state for image in build_atlas(target, **options).images} == {"already finished"}
    after = files(target)
    changed = {key for key in {*before, *after} if before.get(key) != after.get(key)}
    assert all(key.endswith(("atlaszarr/tiny-2026.json", "atlaszarr/atlas.json")) for key in changed)
    valid(target, layout)
    return target


def valid(target, layout):
    assert verify(target, deep=True).ok
    assert list(findings(Target.of(target), strict=layout is STRICT)) == []


def occurring(target):
    """The labels that have a mesh."""
    return {int(path.name) for path in (target / SET / "annotations.precomputed/mesh").glob("*[0-9]")}


@pytest.mark.first(2)
@pytest.mark.parametrize("layout", [STRICT, BOTH], ids=["strict", "both"])
@pytest.mark.parametrize(
    ("boxes", "expected"),
    [((), set()), (((0, 7),), {7, 997}), (((15, 7),), {7, 997})],
    ids=["no label", "one label everywhere", "a small structure"],
)
def test_annotations_of_no_or_one_label_have_what_occurs(tmp_path, given, layout, boxes, expected):
    values = of_labels(*boxes)
    target = built(tmp_path, given, layout, values)
    assert occurring(target) == expected
    table = pd.read_csv(target / SET / "parcellation_volumes.csv").set_index("identifier")
    assert table["voxel_count"].loc[7] == np.count_nonzero(values == 7)
    assert (target / SET / "annotations.precomputed/segment_properties/info").exists()


def test_labels_that_the_terminology_lacks_are_in_the_labels_alone(tmp_path, given):
    values = of_labels((2, 997), (5, 12345), (10, 3))
    with raises(InputError, "unknown-label") as caught:
        built(tmp_path, given, STRICT, values)
    assert "12345" in str(caught.value)
    with raises(InputError, "unknown-label") as caught:
        built(tmp_path, given, BOTH, values, allow_unknown=True)
    assert "12345" in str(caught.value)
    assert not (tmp_path / "atlas").exists()
    target = built(tmp_path, given, STRICT, values, allow_unknown=True)
    assert occurring(target) == {3, 8, 997}
    group = zarr.open_group(target / SET / "annotations.ome.zarr", mode="r")
    (root,) = np.flatnonzero(group["annotation_values"][:] == 997)
    np.testing.assert_array_equal(group["0"][root].astype(bool), np.isin(values, [997, 3]))
    kept = zarr.open_array(target / SET / "annotations_compressed.ome.zarr/0", mode="r")[:]
    np.testing.assert_array_equal(kept, values)
    table = pd.read_csv(target / SET / "parcellation_volumes.csv")
    assert 12345 not in set(table["identifier"])


def test_voxels_hold_the_values_of_identifiers_that_are_no_numbers(tmp_path, given):
    path = tmp_path / "curies.csv"
    path.write_text(CURIES)
    values = of_labels((5, 501), (10, 502))
    target = built(tmp_path, given, STRICT, values, ontology=path)
    assert occurring(target) == {501, 502}
    table = pd.read_csv(target / SET / "parcellation_volumes.csv").set_index("identifier")
    assert table["voxel_count"].to_dict()["H:10155"] == np.count_nonzero(values == 502)
    found = region_volumes(target / SET)
    assert found.loc["H:10154", "voxels"] == np.count_nonzero(values)
    assert found.loc["H:10154", "voxels_direct"] == np.count_nonzero(values == 501)
    with raises(RecordError, "invalid-id") as caught:
        build_atlas(tmp_path / "other", **{**given, "annotation": tmp_path / "own.nrrd", "ontology": path}, **BOTH)
    assert "H:10154" in str(caught.value)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("layout", [STRICT, BOTH], ids=["strict", "both"])
def test_voxels_may_have_other_sizes_along_each_axis(tmp_path, given, layout):
    directions = np.array([[0, 50, 0], [0, 0, -25], [-25, 0, 0]], float)
    header = {"space": "left-posterior-superior", "space directions": directions, "space units": ["um"] * 3}
    for name, values in (("annotation", labels()), ("template", np.ones(SHAPE, np.uint16))):
        nrrd.write(str(tmp_path / f"{name}.nrrd"), values, header)
    given |= {name: tmp_path / f"{name}.nrrd" for name in ("annotation", "template")}
    build_atlas(tmp_path / "atlas", **given, **layout)
    valid(tmp_path / "atlas", layout)
    names = {path.name for path in (tmp_path / "atlas" / SET).glob("*.nii.gz")}
    assert "annotations_compressed_50x25x25.nii.gz" in names


@pytest.mark.parametrize("layout", [STRICT, BOTH], ids=["strict", "both"])
def test_an_atlas_is_built_of_the_images_of_another_in_ome_zarr(tmp_path, given, layout):
    source = tmp_path / "source"
    build_atlas(source, **given, **STRICT)
    images = {
        "annotation": source / SET / "annotations_compressed.ome.zarr",
        "template": source / "templates/tiny-template/2026/template.ome.zarr",
    }
    build_atlas(tmp_path / "atlas", **{**given, **images}, **layout)
    valid(tmp_path / "atlas", layout)
    name = "annotations_compressed.ome.zarr" if layout is STRICT else "annotation.ome.zarr"
    one = zarr.open_array(Path(tmp_path, "atlas", SET, name, "0"), mode="r")[:]
    # The header says that low x is left, and BrainGlobe's axis begins at the right.
    np.testing.assert_array_equal(one, labels() if layout is STRICT else labels()[..., ::-1])

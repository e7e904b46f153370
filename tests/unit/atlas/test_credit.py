"""Credit, terms, species, symmetry, names and ontology: only the CCF has defaults, nothing is invented."""

import json

import numpy as np
import pytest
import zarr

from atlaszarr import AllenClient, Terminology, build_atlas, verify
from atlaszarr.credit import BUCKETS, CCF, is_institutes
from atlaszarr.engine.ome import Geometry
from atlaszarr.errors import InputError, ServiceError
from atlaszarr.writing import write_multiscales
from codes import raises
from lumps import graph, labels, template
from tiny_atlas import SET, files, save, write_sources

ONTOLOGY = Terminology.from_structure_graph(graph())
#: Labels that are no structures of the CCF.
OTHER = np.where(labels() == 10, np.uint32(123456), labels())


def other_ontology():
    nodes = graph()
    nodes[0]["children"][0]["children"][0]["id"] = 123456
    return Terminology.from_structure_graph(nodes)


@pytest.fixture
def ccf(tmp_path):
    return {
        "annotation": save(tmp_path / "a.nrrd", labels(), 200),
        "template": save(tmp_path / "t.nrrd", template(), 200),
    }


@pytest.fixture
def other(tmp_path):
    """An annotation over the extent of the CCF that is not the CCF, and a template."""
    return {
        "annotation": save(tmp_path / "o.nrrd", OTHER, 200),
        "template": save(tmp_path / "t.nrrd", template(), 200),
        "ontology": other_ontology(),
        "name": "other",
        "version": "1",
    }


@pytest.fixture
def target(tmp_path):
    return tmp_path / "atlas"


def credits_of(target):
    """Citation and terms of every image under a target, by its name; and those of its record."""
    found = {}
    for path in sorted(target.glob("*/*/*/*.ome.zarr")):
        own = zarr.open_group(path, mode="r").attrs["atlaszarr"]
        found[path.name] = own.get("citation"), own.get("terms")
    (record,) = (target / "atlaszarr").glob("*.json")
    return found, json.loads(record.read_text())["credit"]


def manifest_of(target):
    (path,) = target.glob("atlases/*_200um/*/manifest.json")
    return json.loads(path.read_text())


@pytest.mark.parametrize("brainglobe", [False, True])
def test_the_ccf_is_credited_to_the_allen_institute_by_default(ccf, target, brainglobe):
    report = build_atlas(target, **ccf, ontology=ONTOLOGY, brainglobe=brainglobe)
    assert "allen-adult-mouse-annotation/2017/annotation.ome.zarr" in report.images[0].target
    images, record = credits_of(target)
    assert set(images.values()) == {(CCF.citation, CCF.terms)}
    assert len(images) == (5 if brainglobe else 3)
    assert record == {**CCF.texts(), "species": "Mus musculus", "symmetric": True}
    if brainglobe:
        manifest = manifest_of(target)
        assert (manifest["species"], manifest["symmetric"]) == ("Mus musculus", True)
        assert manifest["citation"] == "Wang et al 2020, https://doi.org/10.1016/j.cell.2020.04.007"


def test_nothing_is_credited_where_nothing_is_known(other, target):
    build_atlas(target, **other)
    images, record = credits_of(target)
    assert set(images.values()) == {(None, None)}
    assert record == {"symmetric": False}
    text = b"".join(body for key, body in files(target).items() if "/c/" not in key)
    assert b"Allen Institute for Brain Science" not in text
    assert b"musculus" not in text
    assert b"alleninstitute" not in text


def test_every_image_of_an_atlas_cites_what_the_caller_gives(other, target):
    given = {"citation": "Other, O. (2026)", "terms": "CC-BY-4.0", "species": "Rattus norvegicus"}
    build_atlas(target, **other, **given, brainglobe=True)
    images, record = credits_of(target)
    assert set(images) >= {"annotation.ome.zarr", "annotations.ome.zarr", "annotations_compressed.ome.zarr"}
    assert set(images.values()) == {("Other, O. (2026)", "CC-BY-4.0")}
    assert record == {**given, "symmetric": False}
    manifest = manifest_of(target)
    assert {key: manifest[key] for key in ("citation", "species", "symmetric", "atlas_link")} == {
        "citation": "Other, O. (2026)",
        "species": "Rattus norvegicus",
        "symmetric": False,
        "atlas_link": "",
    }
    assert verify(target, deep=True).ok


def test_what_the_caller_gives_replaces_the_defaults_of_the_ccf(ccf, target):
    build_atlas(target, **ccf, ontology=ONTOLOGY, citation="Mine", asymmetric=True, brainglobe=True)
    images, record = credits_of(target)
    assert set(images.values()) == {("Mine", CCF.terms)}
    assert record["symmetric"] is False
    assert (manifest_of(target)["citation"], manifest_of(target)["species"]) == ("Mine", "Mus musculus")
    with raises(InputError, "different-options"):
        build_atlas(target, **ccf, ontology=ONTOLOGY, citation="Another", brainglobe=True)


@pytest.mark.parametrize("given", [{}, {"species": "Rattus norvegicus"}, {"citation": "Other, O. (2026)"}])
def test_brainglobe_asks_for_the_species_and_the_citation_before_anything_is_written(other, target, given):
    with raises(InputError, "missing-credit") as caught:
        build_atlas(target, **other, **given, brainglobe=True)
    for option in ("species", "citation"):
        assert (f"--{option}" in str(caught.value)) == (option not in given)
    assert not target.exists()


@pytest.mark.parametrize("name", ["citation", "terms", "species"])
def test_an_empty_credit_is_refused(ccf, target, name):
    with raises(InputError, "invalid-value"):
        build_atlas(target, **ccf, ontology=ONTOLOGY, **{name: " "})
    assert not target.exists()


@pytest.mark.parametrize(
    ("left_out", "code"),
    [(["name"], "missing-name"), (["version"], "missing-version"), (["ontology"], "missing-ontology")],
)
@pytest.mark.parametrize("kind", ["other labels", "another extent"])
def test_an_annotation_that_is_not_the_ccf_needs_a_name_a_version_and_an_ontology(
    other, target, tmp_path, kind, left_out, code
):
    if kind == "another extent":
        other |= {"annotation": save(tmp_path / "w.nrrd", labels()[:50], 200), "template": (), "ontology": ONTOLOGY}
    given = {key: value for key, value in other.items() if key not in left_out}
    # Nothing listens there: the API must not be asked.
    with AllenClient("http://127.0.0.1:9/api/v2", cache="none") as client, raises(InputError, code) as caught:
        build_atlas(target, **given, client=client)
    assert f"--{left_out[0]}" in str(caught.value)
    named = {"other labels": "its label 123456 is not", "another extent": "it has another extent"}
    assert named[kind] in str(caught.value)
    assert not target.exists()


@pytest.mark.parametrize(
    ("values", "ontology", "named"),
    [
        # Numbers that any list has, and most of them are ids of the CCF too.
        ({10: 1, 20: 2, 614454277: 3}, "id,name\n1,One\n2,Two\n3,Three\n", "its labels are just 1 to 3"),
        ({10: 1, 20: 1, 614454277: 1}, "id,name\n1,Mask\n", "its only label is 1"),
        (
            {10: 10, 20: 20, 614454277: 30},
            "id,name\n10,Ten\n20,Twenty\n30,Thirty\n",
            "its ontology has no structure 997",
        ),
    ],
)
def test_other_labels_in_the_frame_of_the_ccf_are_not_credited_to_the_allen_institute(
    values, ontology, named, target, tmp_path
):
    own = labels()
    for label, other in values.items():
        own[labels() == label] = other
    annotation = save(tmp_path / "own.nrrd", own, 200)
    (tmp_path / "own.csv").write_text(ontology)
    given = {"annotation": annotation, "ontology": tmp_path / "own.csv"}
    with raises(InputError, "missing-name") as caught:
        build_atlas(target, **given)
    assert f"as the CCF: {named}. Only" in str(caught.value)
    assert not target.exists()
    build_atlas(target, **given, name="own", version="1")
    assert credits_of(target)[1] == {"symmetric": False}


@pytest.mark.usefixtures("impatient")
def test_the_ontology_of_the_ccf_is_fetched_only_for_the_ccf(ccf, target):
    with AllenClient("http://127.0.0.1:9/api/v2", cache="none") as client, pytest.raises(ServiceError):
        build_atlas(target, **ccf, client=client)


def test_a_terminology_that_names_under_half_of_the_labels_is_refused_unless_it_is_allowed(ccf, target):
    nodes = graph()
    del nodes[0]["children"][0]["children"][:2]
    few = Terminology.from_structure_graph(nodes)
    with raises(InputError, "other-ontology") as caught:
        build_atlas(target, **ccf, ontology=few)
    assert "names 1 of the 3 labels" in str(caught.value)
    assert "--allow-unknown" in str(caught.value)
    assert not target.exists()
    report = build_atlas(target, **ccf, ontology=few, allow_unknown=True)
    assert any("10, 20" in remark for remark in report.remarks)


def test_volumes_by_another_terminology_are_refused_unless_it_is_allowed(tmp_path, command):
    nodes = graph()
    del nodes[0]["children"][0]["children"][:2]
    (tmp_path / "t.csv").write_text(Terminology.from_structure_graph(nodes).to_csv())
    annotation = tmp_path / "a.ome.zarr"
    write_multiscales(labels(), annotation, rule="mode", geometry=Geometry((0.2,) * 3), levels=1)
    arguments = ["volumes", annotation, "--terminology", tmp_path / "t.csv", "--region", "BIG"]
    refused = command(*arguments)
    assert (refused.code, refused.out, len(refused.err.splitlines())) == (2, "", 1)
    assert "names 1 of the 3 labels" in refused.err
    allowed = command(*arguments, "--allow-unknown")
    assert (allowed.code, allowed.out) == (0, "Big id: 5.12 mm3\n")


def test_a_label_that_the_given_ontology_lacks_is_named_first(target, tmp_path):
    annotation = save(tmp_path / "u.nrrd", np.where(labels() == 10, np.uint32(182305696), labels()), 200)
    with raises(InputError, "unknown-label") as caught:
        build_atlas(target, annotation=annotation, ontology=ONTOLOGY)
    assert "182305696" in str(caught.value)


def test_the_command_takes_the_credit(other, target, tmp_path, command):
    (tmp_path / "t.csv").write_text(other_ontology().to_csv())
    arguments = ["atlas", target, "--annotation", other["annotation"], "--ontology", tmp_path / "t.csv"]
    refused = command(*arguments)
    assert (refused.code, len(refused.err.splitlines())) == (2, 1)
    assert "--name and --version" in refused.err
    given = ["--citation", "Other", "--terms", "CC0", "--species", "Rattus", "--symmetric"]
    assert command(*arguments, "--name", "other", "--version", "1", *given).code == 0
    images, record = credits_of(target)
    assert set(images.values()) == {("Other", "CC0")}
    assert record == {"citation": "Other", "terms": "CC0", "species": "Rattus", "symmetric": True}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://download.alleninstitute.org/informatics-archive/a.nrrd", True),
        ("http://api.brain-map.org/api/v2/well_known_file_download/1", True),
        ("HTTPS://Download.AllenInstitute.org/a.nrrd", True),
        ("simplecache::https://download.alleninstitute.org/a.nrrd", True),
        *((f"s3://{bucket}/a.nii.gz", True) for bucket in BUCKETS),
        (f"https://{BUCKETS[0]}.s3.us-west-2.amazonaws.com/a.nii.gz", True),
        (f"https://{BUCKETS[0]}.s3-us-west-2.amazonaws.com/a.nii.gz", True),
        (f"https://{BUCKETS[0]}.s3.amazonaws.com/a.nii.gz", True),
        (f"https://s3.us-west-2.amazonaws.com/{BUCKETS[0]}/a.nii.gz", True),
        ("https://alleninstitute.org.example.com/a.nrrd", False),
        ("https://notalleninstitute.org/a.nrrd", False),
        ("https://example.com/alleninstitute.org/a.nrrd", False),
        ("https://download.alleninstitute.org@example.com/a.nrrd", False),
        (f"s3://my-{BUCKETS[0]}/a.nii.gz", False),
        (f"s3://mine/{BUCKETS[0]}/a.nii.gz", False),
        (f"https://mine.s3.amazonaws.com/{BUCKETS[0]}/a.nii.gz", False),
        ("/download.alleninstitute.org/a.nrrd", False),
        ("a.nrrd", False),
    ],
)
def test_a_host_or_a_bucket_of_the_allen_institute_is_recognised(url, expected):
    assert is_institutes([url]) == expected
    assert not is_institutes([url, "a.nrrd"])
    assert not is_institutes([])


# What is left of an earlier atlas


def test_an_atlas_that_is_overwritten_leaves_nothing_of_the_earlier_one(tmp_path):
    sources, target = write_sources(tmp_path / "sources"), tmp_path / "atlas"
    build_atlas(target, **sources, brainglobe=True)
    build_atlas(target, **{**sources, "name": "kept"})
    kept = {key: body for key, body in files(target).items() if "kept" in key}
    plain = {**sources, "template": ()}
    build_atlas(target, **plain, overwrite=True)
    build_atlas(tmp_path / "fresh", **plain)
    found, fresh = files(target), files(tmp_path / "fresh")
    assert {key for key in found if "kept" not in key} == set(fresh)
    assert {key: body for key, body in found.items() if "kept" in key} == kept
    assert not [path for path in target.rglob("*") if path.is_symlink()]
    assert verify(target, deep=True).ok
    record = json.loads((target / "atlaszarr/tiny-1.json").read_text())
    assert set(record["sources"]) == {"annotation"}


def test_a_source_in_an_earlier_atlas_is_not_removed(tmp_path):
    sources, target = write_sources(tmp_path / "sources"), tmp_path / "atlas"
    build_atlas(target, **sources, brainglobe=True)
    before = files(target)
    source = target / SET / "annotations.ome.zarr"
    old = target / "templates/tiny-template/1/template.ome.zarr"
    for given in ({"annotation": source}, {"annotation": old, "template": ()}):
        with pytest.raises(InputError):
            build_atlas(target, **{**sources, **given}, overwrite=True)
        assert files(target) == before


@pytest.mark.parametrize("gone", ["atlaszarr/tiny-1.json", f"{SET}/annotations.precomputed/atlaszarr/ledger.jsonl"])
def test_a_missing_record_or_ledger_is_a_defect_and_the_build_writes_it_again(tmp_path, gone, command):
    sources, target = write_sources(tmp_path / "sources"), tmp_path / "atlas"
    build_atlas(target, **sources, brainglobe=True)
    before = files(target)
    (target / gone).unlink()
    (defect,) = verify(target).defects
    assert defect.key == gone
    assert "missing" in defect.text
    ran = command("verify", target)
    assert ran.code == 1
    assert gone in ran.out + ran.err
    build_atlas(target, **sources, brainglobe=True)
    assert verify(target, deep=True).ok
    assert {key for key, body in files(target).items() if before.get(key) != body} <= {"atlaszarr/tiny-1.json"}
    assert set(files(target)) == set(before)


def test_a_record_is_missed_next_to_that_of_another_atlas(tmp_path):
    sources, target = write_sources(tmp_path / "sources"), tmp_path / "atlas"
    build_atlas(target, **sources)
    build_atlas(target, **{**sources, "name": "other", "version": "2.1"})
    (target / "atlaszarr/other-2.1.json").unlink()
    (defect,) = verify(target).defects
    assert (defect.kind, defect.key) == ("missing", "atlaszarr/other-2.1.json")

"""The documents of the assets of an atlas: their keys, and what aind-data-schema says of them."""

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest

from atlaszarr.assets.documents import UNKNOWN, documents, template_documents
from atlaszarr.assets.names import SUFFIXES, Asset, AtlasNames
from atlaszarr.assets.standard import KINDS
from atlaszarr.credit import CCF, INSTITUTE, Credit
from atlaszarr.engine.ome import Geometry
from atlaszarr.errors import InputError
from atlaszarr.geometry.spaces import ORIENTATION
from codes import raises

CREATED = datetime(2026, 11, 28, 13, 30, 5, tzinfo=UTC)
SOURCES = {
    "0": {"uri": "https://example.org/average_template_10.nrrd", "bytes": 5, "sha256": "ab" * 32},
    "average.25": {"uri": "s3://bucket/average_template_25.nrrd", "bytes": 3, "sha256": "cd" * 32},
}
GEOMETRY = Geometry((0.01,) * 3, (0.0, 0.0025, 0.0), "millimeter", ORIENTATION)
LEVELS = [(10.0,) * 3, (25.0,) * 3, (12.5,) * 3, (20.0, 10.0, 10.0)]
TINY = Credit(citation="Tiny, T. (2026) An invented atlas", species="Mus inventus")


def made(names=None, credit=CCF, template_sources=SOURCES, created=CREATED, geometry=GEOMETRY):
    return documents(
        names or AtlasNames.of(),
        credit,
        geometry=geometry,
        resolutions=LEVELS,
        template_sources=template_sources,
        created=lambda _: created,
    )


def parsed(found):
    return {key: json.loads(body) for key, body in found.items()}


def test_every_asset_of_the_ccf_has_its_documents_and_those_of_the_atlas_are_last():
    assert list(made()) == [
        "terminologies/allen-adult-mouse-terminology/2017/data_description.json",
        "terminologies/allen-adult-mouse-terminology/2017/manifest.json",
        "coordinate-spaces/allen-adult-mouse-ccf-space/2015/data_description.json",
        "coordinate-spaces/allen-adult-mouse-ccf-space/2015/manifest.json",
        "templates/allen-adult-mouse-stpt-template/2015/data_description.json",
        "templates/allen-adult-mouse-stpt-template/2015/processing.json",
        "templates/allen-adult-mouse-stpt-template/2015/manifest.json",
        "annotation-sets/allen-adult-mouse-annotation/2017/data_description.json",
        "annotation-sets/allen-adult-mouse-annotation/2017/manifest.json",
        "atlases/allen-adult-mouse-ccf-atlas/2017/data_description.json",
        "atlases/allen-adult-mouse-ccf-atlas/2017/manifest.json",
    ]


def test_every_manifest_gives_its_asset_the_version_of_the_standard_and_its_page():
    for key, content in parsed(made()).items():
        if not key.endswith("manifest.json"):
            continue
        kind, name, version, _ = key.split("/")
        assert content["name"] == name
        assert content["version"] == version
        assert content["location"] == f"/{kind}/{name}/{version}"
        assert content["schema_version"] == "0.2.0"
        assert content["described_by"] == KINDS[kind].url
    assert KINDS["annotation-sets"].url == "https://atlas-assets.readthedocs.io/en/v0.2.0/annotation_set.html"


def test_references_name_assets_of_the_same_tree():
    found = parsed(made())
    template = {
        "name": "allen-adult-mouse-stpt-template",
        "version": "2015",
        "location": "/templates/allen-adult-mouse-stpt-template/2015",
    }
    terminology = {
        "name": "allen-adult-mouse-terminology",
        "version": "2017",
        "location": "/terminologies/allen-adult-mouse-terminology/2017",
    }
    space = {
        "name": "allen-adult-mouse-ccf-space",
        "version": "2015",
        "location": "/coordinate-spaces/allen-adult-mouse-ccf-space/2015",
        "template": template,
    }
    atlas = found["atlases/allen-adult-mouse-ccf-atlas/2017/manifest.json"]
    assert atlas["coordinate_space"] == space
    assert atlas["templates"] == [template]
    (annotation_set,) = atlas["annotation_sets"]
    assert annotation_set["location"] == "/annotation-sets/allen-adult-mouse-annotation/2017"
    assert (annotation_set["template"], annotation_set["terminology"]) == (template, terminology)
    annotation = found["annotation-sets/allen-adult-mouse-annotation/2017/manifest.json"]
    assert annotation["scales"] == [10, 25, 12.5, [20, 10, 10]]
    assert (annotation["coordinate_space"], annotation["template"]) == (space, template)
    assert annotation["terminology"] == terminology
    assert found["templates/allen-adult-mouse-stpt-template/2015/manifest.json"]["coordinate_space"] == space


def test_a_coordinate_space_gives_its_origin_in_words_and_numbers_and_its_spacing():
    space = parsed(made())["coordinate-spaces/allen-adult-mouse-ccf-space/2015/manifest.json"]
    assert space["origin"] == {
        "description": "The centre of the first voxel, of 0.01 x 0.01 x 0.01 millimeter, "
        "is at z 0, y 0.0025, x 0 millimeter; it is the voxel at the anterior, superior, left corner",
        "first_voxel": [0.0, 0.0025, 0.0],
        "axes": [{"name": axis, "orientation": ORIENTATION[axis]} for axis in "zyx"],
        "unit": "millimeter",
    }
    assert space["spacing"] == {"values": [0.01] * 3, "axes": ["z", "y", "x"], "unit": "millimeter"}
    assert space["template"]["name"] == "allen-adult-mouse-stpt-template"


def test_no_corner_is_named_without_an_orientation():
    found = parsed(made(geometry=Geometry((0.01,) * 3)))
    origin = found["coordinate-spaces/allen-adult-mouse-ccf-space/2015/manifest.json"]["origin"]
    assert "corner" not in origin["description"]
    assert origin["axes"] == [{"name": "z"}, {"name": "y"}, {"name": "x"}]


def test_an_atlas_without_a_template_refers_to_none():
    found = parsed(made(AtlasNames.of("tiny", "1.0.0"), TINY, template_sources=None))
    assert not [key for key in found if key.startswith("templates/")]
    assert found["atlases/tiny-atlas/1.0.0/manifest.json"]["templates"] == []
    assert found["coordinate-spaces/tiny-space/1.0.0/manifest.json"]["template"] is None
    assert "template" not in found["annotation-sets/tiny-annotation/1.0.0/manifest.json"]
    assert "template" not in json.dumps(found["atlases/tiny-atlas/1.0.0/manifest.json"]["annotation_sets"])
    assert found["atlases/tiny-atlas/1.0.0/data_description.json"]["modalities"] == []


def test_only_templates_and_atlases_have_modalities():
    for key, content in parsed(made()).items():
        if key.endswith("data_description.json"):
            has = key.startswith(("templates/", "atlases/"))
            assert content["modalities"] == ([{"abbreviation": "STPT"}] if has else [])


@pytest.mark.parametrize(
    ("name", "modality"),
    [
        ("allen-adult-mouse-ish-nrp1-74272479-template", ["brightfield"]),
        ("allen-adult-mouse-ish-mri1-1-template", ["brightfield"]),
        ("allen-adult-mouse-nissl-template", ["brightfield"]),
        ("allen-adult-mouse-spim-lca-template", ["SPIM"]),
        ("waxholm-adult-rat-mri-template", ["MRI"]),
        ("tiny-template", []),
    ],
)
def test_the_modality_is_the_one_that_the_name_of_the_template_contains(name, modality):
    asset = Asset("templates", name, "2017")
    found = parsed(template_documents(asset, {}, title="A", credit=TINY, sources={}, created=CREATED))
    assert [one["abbreviation"] for one in found["data_description.json"]["modalities"]] == modality


def test_the_ccf_is_credited_to_the_allen_institute_and_its_terms_are_restrictions():
    for key, content in parsed(made()).items():
        if not key.endswith("data_description.json"):
            continue
        assert "license" not in content
        assert CCF.citation in content["data_summary"]
        assert "Mus musculus" in content["data_summary"]
        assert CCF.terms in content["restrictions"]
        assert content["institution"] == {"name": "Allen Institute for Brain Science"}
        assert content["funding_source"] == [{"funder": {"name": "Allen Institute"}}]
        assert [person["name"] for person in content["investigators"]] == ["Quanxin Wang", "Lydia Ng"]
        assert content["project_name"] == "Allen Mouse Brain Common Coordinate Framework"


def test_nothing_is_credited_that_is_not_known():
    names = AtlasNames.of("my_tiny-rat", "2026")
    text = b"".join(made(names, Credit()).values()).decode()
    assert "Allen" not in text
    assert "Mus" not in text
    for key, content in parsed(made(names, Credit())).items():
        if key.endswith("data_description.json"):
            assert "restrictions" not in content
            assert "Cite" not in content["data_summary"]
            assert content["institution"] == {"name": UNKNOWN}
            assert content["investigators"] == [{"name": UNKNOWN}]
            assert content["funding_source"] == [{"funder": {"name": UNKNOWN}}]
            assert content["project_name"].startswith("my-tiny-rat-")


def test_processing_lists_the_sources_with_their_digests():
    found = parsed(made())["templates/allen-adult-mouse-stpt-template/2015/processing.json"]
    (process,) = found["data_processes"]
    assert process["code"]["name"] == "atlaszarr"
    assert process["start_date_time"] == "2026-11-28T13:30:05+00:00"
    assert process["output_parameters"]["sources"] == [{"name": name, **facts} for name, facts in SOURCES.items()]


def test_the_same_arguments_give_the_same_bytes_in_any_time_zone():
    there = CREATED.astimezone(timezone(timedelta(hours=-8)))
    assert made() == made(created=there)


def test_a_time_without_a_zone_is_refused():
    with raises(InputError, "invalid-value") as caught:
        made(created=datetime(2026, 11, 28))
    assert "2026-11-28T00:00:00" in str(caught.value)


@pytest.mark.parametrize("credit", [CCF, INSTITUTE, TINY, Credit()], ids=["ccf", "institute", "tiny", "unknown"])
@pytest.mark.parametrize("template_sources", [SOURCES, None], ids=["template", "none"])
@pytest.mark.parametrize("name", [None, "my_own-rat"])
def test_aind_data_schema_accepts_every_document(name, template_sources, credit):
    pytest.importorskip("aind_data_schema")  # takes over a second
    from aind_data_schema.core.data_description import DataDescription
    from aind_data_schema.core.processing import Processing

    models = {"data_description.json": DataDescription, "processing.json": Processing}
    names = AtlasNames.of(name, None if name is None else "3.0")
    read = [
        models[key.rpartition("/")[2]].model_validate_json(body)
        for key, body in made(names, credit, template_sources).items()
        if not key.endswith("manifest.json")
    ]
    assert len(read) == len(SUFFIXES) + (1 if template_sources else -1)

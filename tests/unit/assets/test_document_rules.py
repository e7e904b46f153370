"""The rules for documents accept what aind-data-schema accepts, and refuse what it refuses by the keys of each."""

import json
import warnings

import pytest

from atlaszarr.assets import document_rules, standard
from atlaszarr.assets.names import Asset
from tiny_assets import NAMES, tiny_documents

FOLDER = NAMES.template.folder
DOCUMENTS = {
    name: json.loads(tiny_documents()[f"{FOLDER}/{name}"]) for name in ("data_description.json", "processing.json")
}
VALUES = [
    ..., None, True, 0, -1, 1.5, float("nan"), 1764335405, "", " ", "a", "a_b", "a/b", "2026", "2026-11-28",
    "2026-11-28T10:00", "2026-11-28T10:00:00", "2026-11-28T10:00:00.5Z", "2026-11-28 10:00:00+01:00", "20261128",
    "20261128T133000", "2026-W48-6", "2026-13-01", "raw", "derived", "simulated", "Processing", "Analysis", "MIT",
    "CC-BY-4.0", "CC0", "2.0.0", [], ["a"], [""], {}, {"name": "Allen Institute"}, {"url": "x"}, {"url": 3},
    [{"name": "x"}], [{"funder": {"name": "Allen Institute"}}], [{"abbreviation": "STPT"}], [{"abbreviation": ""}],
]  # fmt: skip
#: Keys whose other values aind-data-schema compares with lists that grow, or with each other.
COMPARED = {"group", "data_level", "process_type", "pipeline_name", "pipelines", "dependency_graph"}
COMPARED |= {"output_parameters", "resources", "institution", "funding_source", "modalities"}


def ours(name, content):
    if name == "data_description.json":
        return list(document_rules.description_faults(content, standard.KINDS["templates"]))
    return list(document_rules.processing_faults(content))


@pytest.mark.parametrize("place", ["data_description.json", "processing.json", "a process"])
def test_the_rules_agree_with_aind_data_schema_on_any_value_of_any_key(place):
    pytest.importorskip("aind_data_schema")  # takes over a second
    from aind_data_schema.core.data_description import DataDescription
    from aind_data_schema.core.processing import DataProcess, Processing

    name = "data_description.json" if place == "data_description.json" else "processing.json"
    model = DataDescription if place == "data_description.json" else Processing
    fields = (DataProcess if place == "a process" else model).model_fields
    for key in (*fields, "more"):
        for value in VALUES:
            content = json.loads(json.dumps(DOCUMENTS[name]))
            (changed := content["data_processes"][0] if place == "a process" else content).pop(key, None)
            changed |= {} if value is ... else {key: value}
            try:
                with warnings.catch_warnings(action="ignore"):
                    model.model_validate_json(json.dumps(content))
                theirs = True
            except (ValueError, TypeError):  # of a validator that takes any value for an object
                theirs = False
            if (key, value) == ("data_processes", []):  # the schema needs no process, a computed asset has one
                continue
            if theirs or key not in COMPARED:
                assert (ours(name, content) == []) is theirs, (key, value, ours(name, content))


def test_a_coordinate_transformation_has_a_source_a_target_and_a_direction():
    asset = Asset("coordinate-transformations", "a-template-2026_to_b-template-2026", "2026")
    content = {"source": {}, "target": {}, "directionality": "one-way", "described_by": standard.KINDS[asset.kind].url}
    assert list(document_rules.manifest_faults(content, asset, asset.folder)) == []
    assert list(document_rules.manifest_faults(content | {"directionality": "forth"}, asset, asset.folder)) == [
        "has the directionality 'forth', which is not one-way or bidirectional"
    ]
    (text,) = document_rules.manifest_faults(content | {"source": "a-template"}, asset, asset.folder)
    assert text.startswith("has the source 'a-template', which is not an object")


@pytest.mark.parametrize("given", ["0.2.0", "v0.2.0", "1", "0.6.dev3", "0.2.0-rc1"])
def test_any_version_of_the_standard_is_one(given):
    content = {"schema_version": given}
    assert not [
        text for text in document_rules.manifest_faults(content, NAMES.atlas, NAMES.atlas.folder) if "has" in text
    ]


@pytest.mark.parametrize("given", ["", "new", "0.2.", "0..2", "0.2 0", 2, None])
def test_any_other_value_is_no_version(given):
    content = {"schema_version": given}
    faults = document_rules.manifest_faults(content, NAMES.atlas, NAMES.atlas.folder)
    assert f"has the schema_version {given!r}, which is not a version of the standard" in faults

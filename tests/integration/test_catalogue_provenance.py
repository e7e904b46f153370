"""A build records the catalogue that its records come from, and no other build does."""

import json
from dataclasses import replace

import pytest

from atlaszarr import build
from atlaszarr.allen.client import AllenClient
from atlaszarr.testing.records import invented

ID = 909


@pytest.fixture(scope="module")
def offline(emulator, tmp_path_factory):
    folder = tmp_path_factory.mktemp("provenance") / "c"
    with AllenClient(emulator.url, "none", rate=1e9) as client:
        client.write_catalogue(folder)
    return folder


def recorded(target):
    return json.loads((target / "atlaszarr/build.json").read_text())


def files(target):
    """All but ``build.json``, which has the time of its build, and the ledger, which has the digest of that."""
    return {
        path.relative_to(target): path.read_bytes()
        for path in target.rglob("*")
        if path.is_file() and path.name not in ("build.json", "ledger.jsonl")
    }


def test_a_build_from_a_catalogue_records_it_and_has_the_bytes_of_one_from_the_service(
    command, emulator, offline, tmp_path
):
    options = ("--api-url", emulator.url, "--cache", "none", "--resolution", 200)
    targets = [tmp_path / name for name in ("a.ome.zarr", "b.ome.zarr")]
    assert command("build", ID, targets[0], *options).code == 0
    assert command("build", ID, targets[1], *options, "--catalogue", offline).code == 0
    api, catalogue = map(recorded, targets)
    document = json.loads((offline / "catalogue.json").read_text())
    assert catalogue.pop("catalogue") == {
        "url": str(offline),
        "date": document["date"],
        "sha256": document["sha256"],
    }
    assert "catalogue" not in api
    assert api["request"] == catalogue["request"]
    assert api["dataset"] == catalogue["dataset"]
    assert files(targets[0]) == files(targets[1])


def test_a_target_of_the_service_is_finished_for_a_client_with_a_catalogue(emulator, connect, offline, tmp_path):
    target = tmp_path / "x.ome.zarr"
    build(ID, target, client=connect(emulator), resolution=200)
    report = build(ID, target, client=connect(emulator, catalogue=offline), resolution=200)
    assert report.views[0].state == "already finished"
    assert "catalogue" not in recorded(target)


def test_a_dataset_that_differs_from_the_catalogue_is_not_recorded_as_its(emulator, connect, offline, tmp_path):
    client = connect(emulator, catalogue=offline)
    dataset = client.section_dataset(ID)
    build(dataset, tmp_path / "same.ome.zarr", client=client, resolution=200)
    assert "catalogue" in recorded(tmp_path / "same.ome.zarr")
    changed = replace(dataset, sections=dataset.sections[1:])
    build(changed, tmp_path / "changed.ome.zarr", client=client, resolution=200)
    assert "catalogue" not in recorded(tmp_path / "changed.ome.zarr")
    record, images = invented(12)
    other = type(dataset).from_json(record, images)
    assert client.catalogue_of(other) is None

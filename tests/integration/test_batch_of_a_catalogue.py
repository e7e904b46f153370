"""A batch whose records come from a catalogue: no request for metadata, by threads or by workers."""

import pytest

from atlaszarr import AllenClient, build_many
from copied_datasets import copies

IDS = (11, 12, 13)
SMALL = {"resolution": 200, "chunk": 16}


@pytest.fixture
def emulator(records, serve):
    datasets, images = copies(records, IDS)
    datasets[2]["alignment3d"] = None
    return serve(datasets, images)


@pytest.fixture
def catalogue(emulator, connect, tmp_path):
    connect(emulator).write_catalogue(tmp_path / "catalogue")
    emulator.reset()
    return tmp_path / "catalogue"


def assert_built(report, emulator):
    assert report.states == {"built": 2, "failed": 2}
    assert {row.dataset for row in report.failures} == {13, 99}
    assert emulator.count("query") == 0
    assert emulator.count("section_image_download") == 12


def test_a_catalogue_answers_for_all_datasets(emulator, catalogue, tmp_path):
    with AllenClient(emulator.url, "none", rate=1e9, catalogue=catalogue) as client:
        assert_built(build_many([*IDS, 99], tmp_path / "root", client=client, **SMALL), emulator)
        assert client.catalogue is not None


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["a folder of the driver", "S3"])
def test_workers_build_what_a_catalogue_describes(kind, emulator, catalogue, cluster, connect, remote, tmp_path):
    options = {}
    if kind == "S3":
        catalogue, options = remote.url("catalogue"), remote.options
        connect(emulator).write_catalogue(catalogue, storage_options=options)
        emulator.reset()
    with AllenClient(emulator.url, "none", rate=1e9, catalogue=catalogue, catalogue_options=options) as client:
        report = build_many([*IDS, 99], tmp_path / "root", client=client, scheduler=cluster, **SMALL)
    assert_built(report, emulator)


def test_the_command_builds_all_datasets_of_a_catalogue(command, emulator, catalogue, tmp_path):
    given = ("--cache", "none", "--api-url", emulator.url, "--resolution", 200, "--chunk", 16)
    ran = command("batch", tmp_path / "root", "--catalogue", catalogue, *given)
    assert ran.code == 1
    assert ran.out.startswith("3 datasets: 2 built, 1 failed\n")
    assert emulator.count("query") == 0

"""Shared by all tests: the emulated Allen API, clients of it, a dataset of six sections, and the command line."""

from __future__ import annotations

import copy
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import dask
import pytest
from hypothesis import settings

from atlaszarr.allen.client import AllenClient
from atlaszarr.allen.records import SectionDataset
from atlaszarr.cli.commands import main
from atlaszarr.testing import Emulator
from atlaszarr.testing.records import dataset_records, image_records
from chains import Folder, bucket

#: Nrp1, coronal, reference space 9; its 28th to 33rd section lie next to each other in the middle of the brain.
DATASET = 74272479
_MIDDLE = slice(27, 33)

# A slow machine is no failure.
settings.register_profile("atlaszarr", deadline=None)
settings.load_profile("atlaszarr")


@pytest.fixture(scope="session", autouse=True)
def _nobody_settings():
    """No user's cache and no real service: what is not given explicitly leads nowhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATLASZARR_CACHE", "none")
        patch.setenv("ATLASZARR_API_URL", "http://127.0.0.1:1/api/v2")
        yield


@pytest.fixture(scope="session")
def emulator():
    """A running Emulator with its built-in records and no faults; `reset` it before counting."""
    with Emulator() as running:
        yield running


@pytest.fixture(scope="session")
def _middle():
    datasets = [record for record in dataset_records() if record["id"] == DATASET]
    images = [record for record in image_records() if record["data_set_id"] == DATASET][_MIDDLE]
    return datasets, images


@pytest.fixture
def records(_middle):
    """Fresh API records of a dataset with six sections, to be edited: ([SectionDataSet], [SectionImage, ...])."""
    return copy.deepcopy(_middle)


@pytest.fixture
def dataset(records):
    """The SectionDataset of `records`."""
    (record,), images = records
    return SectionDataset.from_json(record, images)


@pytest.fixture
def serve(records):
    """Starts Emulators, by default of `records`: ``serve(datasets, images, faults=[...], latency=...)``."""
    with ExitStack() as running:

        def start(datasets=None, images=None, **options):
            datasets = records[0] if datasets is None else datasets
            return running.enter_context(Emulator(datasets, records[1] if images is None else images, **options))

        yield start


@pytest.fixture
def connect():
    """Makes impatient AllenClients without a cache: ``connect(emulator, cache=..., retries=...)``."""
    with ExitStack() as opened:

        def start(emulator, cache="none", **options):
            hasty = {"rate": 1e9, "timeout": (5.0, 60.0), "retries": 2, "backoff": 0.01}
            return opened.enter_context(AllenClient(emulator.url, cache, **(hasty | options)))

        yield start


@pytest.fixture
def impatient():
    """A Dask scheduler is given up after half a second."""
    with dask.config.set({"distributed.comm.timeouts.connect": "500ms"}):
        yield


@dataclass(frozen=True)
class Outcome:
    """What a command left: exit code, standard output, standard error."""

    code: int
    out: str
    err: str


@pytest.fixture
def command(capsys):
    """Runs a command in this process: ``command("build", 1, target, "--api-url", url)`` -> Outcome."""

    def run(*arguments):
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return Outcome(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def contents():
    """Reads what must be equal byte by byte between two builds: ``contents(target)`` -> {key: bytes}."""

    def read(target):
        found = {str(path.relative_to(target)): path for path in Path(target).rglob("*") if path.is_file()}
        return {key: path.read_bytes() for key, path in found.items() if not key.startswith("atlaszarr/")}

    return read


@pytest.fixture(scope="module")
def remote():
    """A bucket on an S3 server of its own, that watches what is put."""
    with bucket() as found:
        yield found


@pytest.fixture(params=["local disk", "S3"])
def store(request, tmp_path, remote):
    """A folder and a bucket, that a build may be killed in."""
    return Folder(tmp_path) if request.param == "local disk" else remote

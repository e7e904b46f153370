"""Shared by all tests: settings, a dataset of six sections, and the command line. Imports nothing heavy."""

from __future__ import annotations

import copy
import os
import shutil
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

#: Nrp1, coronal, reference space 9; its 28th to 33rd section lie next to each other in the middle of the brain.
DATASET = 74272479
_MIDDLE = slice(27, 33)

#: Bytes that must be free in memory for temporary files; the largest session needs a quarter of it.
_ENOUGH = 8 * 2**30

# A slow machine is no failure.
settings.register_profile("atlaszarr", deadline=None)
settings.load_profile("atlaszarr")


def pytest_configure():
    """Keep temporary files in memory where there is enough: the engine syncs its files, which takes long on a disk."""
    memory = Path("/dev/shm")
    if memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > _ENOUGH:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(memory))


@pytest.hookimpl(tryfirst=True)  # before what is slow is deselected
def pytest_collection_modifyitems(items):
    """Of a test with the mark `first`, call all cases but the first ones slow."""
    seen = Counter()
    for item in items:
        if (mark := item.get_closest_marker("first")) is not None:
            test = item.nodeid.partition("[")[0]
            seen[test] += 1
            if seen[test] > mark.args[0]:
                item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session", autouse=True)
def _nobody_settings():
    """No user's cache and no real service: what is not given explicitly leads nowhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATLASZARR_CACHE", "none")
        patch.setenv("ATLASZARR_API_URL", "http://127.0.0.1:1/api/v2")
        yield


@pytest.fixture(autouse=True)
def _no_scheduler_left():
    """A client that lost its scheduler leaves it as that of dask."""
    yield
    if "dask" in sys.modules:
        sys.modules["dask"].config.config.pop("scheduler", None)


@pytest.fixture(scope="session")
def _middle():
    from atlaszarr.testing.records import dataset_records, image_records

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
    from atlaszarr.allen.records import SectionDataset

    (record,), images = records
    return SectionDataset.from_json(record, images)


@pytest.fixture
def impatient():
    """A Dask scheduler is given up after half a second."""
    import dask

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
    from atlaszarr.cli.commands import main

    def run(*arguments):
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return Outcome(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    """Makes something once a session for all its workers: ``made_once(name, make)`` -> Path, to be read only.

    ``make`` is called with the path to write to by the worker that asks first; the others wait for it.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "made-once"
    folder.mkdir(exist_ok=True)

    def path(name, make):
        from filelock import FileLock

        place = folder / name
        done = folder / f"{name}.done"
        with FileLock(folder / f"{name}.lock"):
            if not done.exists():
                place.parent.mkdir(parents=True, exist_ok=True)
                make(place)
                done.touch()
        return place

    return path


@pytest.fixture(scope="session")
def contents():
    """Reads what must be equal byte by byte between two builds: ``contents(target)`` -> {key: bytes}."""

    def read(target):
        found = {str(path.relative_to(target)): path for path in Path(target).rglob("*") if path.is_file()}
        return {key: path.read_bytes() for key, path in found.items() if not key.startswith("atlaszarr/")}

    return read

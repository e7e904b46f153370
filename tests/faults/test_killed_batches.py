"""Batches whose driver, workers, scheduler or store end: each target ends as undisturbed, and none is built twice."""

import os
import random
import sys
import threading
import time
from contextlib import ExitStack

import pytest

from atlaszarr import build_many, verify
from chains import Folder, bucket, started
from copied_datasets import SPAN, copies
from dask_processes import SHORT_LEASES, scheduler_process, worker

IDS = range(1, 13)
#: Seconds within which a batch must get on.
PATIENCE = 240


@pytest.fixture
def emulator(records, serve):
    """An API with twelve datasets of six sections, whose answers take a moment."""
    return serve(*copies(records, IDS), latency=0.02)


@pytest.fixture
def ids(tmp_path):
    path = tmp_path / "ids.txt"
    path.write_text("\n".join(map(str, IDS)))
    return path


class Batch:
    """A batch in a store that is disturbed, and compared with an undisturbed one.

    Parameters
    ----------
    store : Folder or Bucket
    name : str
        Of the root.
    emulator : Emulator
    ids : Path
        The file of the ids.
    """

    def __init__(self, store, name, emulator, ids):
        self._store, self._name, self._emulator = store, name, emulator
        texts = {key: value for key, value in store.options.items() if isinstance(value, str)}
        given = [argument for key, text in texts.items() for argument in ("--storage-option", f"{key}={text}")]
        self.command = [sys.executable, "-m", "atlaszarr", "batch", store.url(name), "--ids", str(ids)]
        self.command += ["--resolution", "200", "--chunk", "32", "--cache", "none", "--api-url", emulator.url, *given]
        #: Objects of the ledgers and roots of finished targets, by dataset.
        self._seen = {}

    def finished(self):
        """The datasets whose targets are finished, all of which the batch must leave as they are."""
        for id in set(IDS) - set(self._seen):
            name = f"{self._name}/{id}.ome.zarr"
            root = self._store.read(name, "zarr.json")
            if root is not None and b'"finished"' in root:
                self._seen[id] = {key: self._store.read(name, key) for key in ("zarr.json", "atlaszarr/ledger.jsonl")}
        return set(self._seen)

    def wait(self, count, child):
        """Wait until so many datasets are finished, or a process has ended."""
        end = time.monotonic() + PATIENCE
        while len(self.finished()) < count and child.process.poll() is None:
            assert time.monotonic() < end, child.said()
            time.sleep(2 * self._store.pace)  # a look costs a server more than the batch does

    def hold(self, undisturbed, contents):
        """Compare all targets with an undisturbed batch, and those that were finished before with what they were."""
        for id in IDS:
            name = f"{self._name}/{id}.ome.zarr"
            expected = contents(undisturbed / f"{id}.ome.zarr")
            keys = [key for key in self._store.keys(name) if not key.startswith("atlaszarr/")]
            assert {key: self._store.read(name, key) for key in keys} == expected
            assert verify(self._store.url(name), storage_options=self._store.options).ok
        for id, bodies in self._seen.items():
            name = f"{self._name}/{id}.ome.zarr"
            assert {key: self._store.read(name, key) for key in bodies} == bodies

    def fetched(self):
        """The datasets whose images were fetched since the last reset."""
        paths = [asked.path for asked in self._emulator.requests if asked.kind == "section_image_download"]
        return {int(path.rpartition("/")[2]) // SPAN for path in paths}


@pytest.fixture
def undisturbed(emulator, connect, tmp_path):
    """The folder of an undisturbed batch."""
    root = tmp_path / "undisturbed"
    assert build_many(IDS, root, client=connect(emulator), resolution=200, chunk=32).ok
    emulator.reset()
    return root


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_batch_whose_driver_is_killed_five_times_resumes(store, emulator, ids, undisturbed, contents):
    batch = Batch(store, "driver", emulator, ids)
    rng = random.Random(f"driver {store}")
    for kill in range(5):
        before = batch.finished()
        emulator.reset()
        with started(batch.command) as child:
            batch.wait(2 * (kill + 1), child)
            time.sleep(rng.uniform(0, 5 * store.pace))
            child.kill()
        assert not batch.fetched() & before
    before = batch.finished()
    emulator.reset()
    with started(batch.command) as child:
        child.end()
    assert not batch.fetched() & before
    batch.hold(undisturbed, contents)


def scheduled(batch, address):
    return [*batch.command, "--scheduler", address]


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("killed", ["one", "all"])
def test_a_batch_survives_workers_that_are_killed_five_times(killed, emulator, ids, undisturbed, contents, tmp_path):
    batch = Batch(Folder(tmp_path), "workers", emulator, ids)
    short = {**os.environ, **SHORT_LEASES}  # of the requests that all workers may make at once
    with ExitStack() as stack:
        _, address = stack.enter_context(scheduler_process(tmp_path, environment=short))

        def start():
            return stack.enter_context(worker(address, tmp_path / "scratch", environment=short))

        workers = [start(), start()]
        with started(scheduled(batch, address)) as child:
            for kill in range(5):
                batch.wait(2 * (kill + 1), child)
                victims = workers if killed == "all" else workers[:1]
                for victim in victims:
                    victim.kill()
                workers = [*workers[len(victims) :], *(start() for _ in victims)]
            child.end()
    batch.hold(undisturbed, contents)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_batch_whose_scheduler_is_killed_ends_with_one_sentence_and_resumes_on_another(
    emulator, ids, undisturbed, contents, tmp_path
):
    batch = Batch(Folder(tmp_path), "scheduler", emulator, ids)
    hasty = {**os.environ, "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "500ms"}
    for kill in range(3):
        (tmp_path / f"{kill}").mkdir()
        with (
            scheduler_process(tmp_path / f"{kill}") as (scheduler, address),
            worker(address, tmp_path / "scratch"),
            started(scheduled(batch, address), hasty) as child,
        ):
            batch.wait(3 * (kill + 1), child)
            scheduler.kill()
            assert child.process.wait(PATIENCE) == 1
            sentence = child.said().splitlines()[-1]
        assert sentence.startswith(f"atlaszarr: the connection to scheduler {address} was lost")
        assert sentence.endswith("run the same command to resume")
    before = batch.finished()
    assert before
    emulator.reset()
    with started(batch.command) as child:  # on threads
        child.end()
    assert not batch.fetched() & before
    batch.hold(undisturbed, contents)


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("kind", ["503", "silent"])
def test_a_batch_survives_a_store_that_is_gone_for_longer_than_its_timeout(kind, emulator, ids, undisturbed, contents):
    back = threading.Event()
    with bucket() as store:
        store.options["timeout"] = "2"
        batch = Batch(store, f"gone-{kind}", emulator, ids)  # servers of one process share their buckets

        def watch(environment):
            if "gone" not in environment["PATH_INFO"] or back.is_set():
                return None
            if kind == "silent":
                back.wait(PATIENCE)
            return "503 Service Unavailable"

        with started(batch.command) as child:
            batch.wait(3, child)
            store.gate.watch = watch
            time.sleep(8)
            back.set()
            child.end()
        batch.hold(undisturbed, contents)
        assert len(store.read(f"gone-{kind}", "batch/batch.csv").splitlines()) == 1 + len(IDS)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_batch_survives_a_store_whose_server_is_stopped_for_30_seconds(emulator, ids, undisturbed, contents):
    with bucket() as store:
        batch = Batch(store, "stopped", emulator, ids)
        with started(batch.command) as child:
            batch.wait(3, child)
            store.stop()
            time.sleep(30)
            store.start()
            child.end()
        batch.hold(undisturbed, contents)
        assert len(store.read("stopped", "batch/batch.csv").splitlines()) == 1 + len(IDS)

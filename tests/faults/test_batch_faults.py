"""What one dataset does to a batch on a cluster, and what ends it: the loop with jobs that fail in their own ways."""

import os
import time
from collections import Counter
from functools import partial
from itertools import pairwise

import dask
import pytest
from distributed import Client, LocalCluster

from atlaszarr import build_many
from atlaszarr.dataset_batch.dataset_task import DatasetTask, build_dataset
from atlaszarr.dataset_batch.journal import Journal, Row
from atlaszarr.dataset_batch.rounds import run
from atlaszarr.engine.cluster import Cluster
from atlaszarr.engine.schedulers import Threads
from atlaszarr.errors import SchedulerError, TargetError
from atlaszarr.stores.target import Target
from chains import bucket
from codes import raises
from copied_datasets import copies
from dask_processes import worker


@pytest.fixture
def journal(tmp_path):
    return Journal(Target.of(tmp_path / "batch"))


@pytest.mark.slow
def test_a_dataset_that_ends_its_workers_fails_alone(journal):
    def job(dataset):
        if dataset == 3:
            os._exit(1)
        return Row(dataset, "built")

    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as one,
        Cluster(one) as cluster,
    ):
        rows = list(run(cluster, job, range(1, 6), journal))
    assert sorted(row.dataset for row in rows if row.state == "built") == [1, 2, 4, 5]
    assert [(row.dataset, row.code) for row in rows if row.state == "failed"] == [(3, "worker-killed")]
    assert [row.dataset for row in journal.rows()].count(3) == 2  # it was tried again


def passing(dataset):
    return Row(dataset, "failed", code="store-unreachable", message="the store does not answer", passing=True)


def test_a_store_that_fails_for_all_datasets_ends_the_batch_after_a_while(journal):
    with (
        Threads(2) as threads,
        raises(TargetError, "store-unreachable") as caught,
    ):
        list(run(threads, passing, range(1000), journal, streak_seconds=0.0))
    assert "tries failed in the same way" in str(caught.value)
    assert len(list(journal.rows())) == 20


def test_a_fault_that_passes_is_not_the_end(journal):
    tries = Counter()

    def job(dataset):
        tries[dataset] += 1
        return passing(dataset) if dataset < 19 and tries[dataset] == 1 else Row(dataset, "built")

    with Threads(1) as threads:
        rows = list(run(threads, job, range(60), journal, streak_seconds=0.0))
    assert sorted(row.dataset for row in rows if row.is_finished) == list(range(60))
    assert len(list(journal.rows())) == 60 + 19


@pytest.mark.slow
def test_a_dataset_whose_store_does_not_answer_is_tried_again_after_growing_pauses(journal):
    tries = []

    def job(dataset):
        tries.append(time.monotonic())
        return passing(dataset) if len(tries) < 4 else Row(dataset, "built")

    with Threads(1) as threads:
        (row,) = run(threads, job, [1], journal)
    assert row.is_finished
    pauses = [after - before for before, after in pairwise(tries)]
    assert pauses == sorted(pauses)
    assert sum(pauses) >= 21  # seconds


def test_other_passing_faults_are_tried_once_more(journal):
    def job(dataset):
        return Row(dataset, "failed", code="service-error", passing=True)

    with Threads(1) as threads:
        assert [row.code for row in run(threads, job, [1], journal)] == ["service-error"]
    assert len(list(journal.rows())) == 2


def test_the_window_of_unfinished_tasks_is_bounded_and_every_row_is_in_the_journal(journal, tmp_path):
    started, most, ended = [], [], set()

    def job(dataset):
        started.append(dataset)
        return Row(dataset, "built")

    with Threads(2) as threads:
        for row in run(threads, job, range(1000), journal):
            ended.add(row.dataset)
            most.append(len(started) - len(ended))
    assert max(most) <= 64
    assert journal.finished() == set(range(1000))
    assert len([*(tmp_path / "batch" / "journal").iterdir()]) == 4  # parts of 256 lines


@pytest.mark.slow
def test_a_worker_without_rights_to_the_target_is_named_and_the_batch_resumes(
    records, serve, connect, tmp_path, monkeypatch
):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    home = {"HOME": str(tmp_path), "AWS_EC2_METADATA_DISABLED": "true"}
    client = connect(serve(*copies(records, (11, 12, 13))))
    with (
        LocalCluster(n_workers=0, dashboard_address=":0") as scheduler,
        bucket() as store,
        worker(scheduler.scheduler_address, tmp_path / "scratch", environment={**os.environ, **home}),
    ):
        options = {name: value for name, value in store.options.items() if name not in ("key", "secret")}
        settings = {"client": client, "storage_options": options, "resolution": 200, "chunk": 16}
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "the-access-key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the-secret-access-key")
        url = store.url("rights")
        with raises(SchedulerError, "missing-credentials") as caught:
            build_many((11, 12, 13), url, scheduler=scheduler.scheduler_address, **settings)
        assert "worker tcp://" in str(caught.value)
        assert build_many((11, 12, 13), url, **settings).states == {"built": 3}


@pytest.mark.slow
def test_a_dataset_that_a_lost_worker_still_builds_is_waited_for(records, serve, connect, tmp_path):
    emulator = serve(*copies(records, (11,)), latency=0.2)
    client = connect(emulator, concurrency=1)
    options = {"resolution": 200, "chunk": 16}
    folder = Target.of(tmp_path / "batch")
    folder.write("batch.json", b"{}")
    task = DatasetTask(Target.of(tmp_path), client, folder, {"workers": 1, **options})
    with (
        LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=":0") as one,
        Client(one, set_as_default=False) as first,
    ):
        lost = first.submit(partial(build_dataset, task), 11)
        while not (tmp_path / "11.ome.zarr" / "atlaszarr" / "owner.lock").exists():
            time.sleep(0.01)
        report = build_many((11,), tmp_path, client=client, scheduler=one, overwrite=True, **options)
        assert lost.result(timeout=60).state == "built"
    assert report.states == {"already finished": 1}
    assert emulator.count("section_image_download") == 6

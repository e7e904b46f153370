"""The same build on the workers of a distributed scheduler."""

import hashlib
from pathlib import Path

import dask
import numpy as np
import pytest
from distributed import Client, LocalCluster

from atlaszarr import AllenClient, build, open_sections, open_volume, plan
from atlaszarr.engine.schedulers import scheduler_for
from atlaszarr.errors import InputError
from atlaszarr.testing.emulator import Emulator

DATASET = 69289763


@pytest.fixture(scope="module")
def emulator():
    with Emulator() as running:
        yield running


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0") as cluster:
        yield cluster


def digests(target):
    files = sorted(
        p for p in Path(target).rglob("*") if p.is_file() and "atlaszarr" not in p.parts[len(target.parts) :]
    )
    return {p.relative_to(target).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_a_cluster_builds_the_same_bytes_and_fetches_each_image_once_without_any_cache(emulator, cluster, tmp_path):
    with AllenClient(emulator.url, cache="none", rate=1e9) as client:
        options = {"client": client, "resolution": 100, "chunk": 16}
        emulator.reset()
        address = cluster.scheduler_address
        report = build(DATASET, tmp_path / "cluster.ome.zarr", scheduler=address, **options)
        (planned,) = plan(DATASET, **options)
        assert report.ok
        assert emulator.count("section_image_download") == planned.image_requests == 18
        assert report.views[0].tasks_done == planned.tasks - 18
        build(DATASET, tmp_path / "threads.ome.zarr", **options)
    assert digests(tmp_path / "cluster.ome.zarr") == digests(tmp_path / "threads.ome.zarr")


def test_processes_build_the_same_bytes_and_fetch_each_image_once(emulator, tmp_path):
    with AllenClient(emulator.url, cache="none", rate=1e9) as client:
        options = {"client": client, "resolution": 200, "chunk": 16}
        emulator.reset()
        build(DATASET, tmp_path / "processes.ome.zarr", scheduler="processes", workers=2, **options)
        assert emulator.count("section_image_download") == 18
        build(DATASET, tmp_path / "threads.ome.zarr", **options)
    assert digests(tmp_path / "processes.ome.zarr") == digests(tmp_path / "threads.ome.zarr")


def test_a_cluster_builds_sections_to_the_same_bytes_and_fetches_each_window_once(
    serve, connect, records, cluster, tmp_path
):
    (dataset,), images = records
    few = serve([dataset], images[:2])
    options = {"client": connect(few), "mode": "sections", "resolution": 50, "chunk": 64, "downsample": 1}
    (planned,) = plan(dataset["id"], **options)
    assert planned.sections_in_windows == 1
    few.reset()
    report = build(dataset["id"], tmp_path / "cluster.ome.zarr", scheduler=cluster.scheduler_address, **options)
    assert report.ok
    assert few.count("section_image_download") == planned.image_requests > 5
    build(dataset["id"], tmp_path / "threads.ome.zarr", **options)
    assert digests(tmp_path / "cluster.ome.zarr") == digests(tmp_path / "threads.ome.zarr")


def test_registered_sections_compute_on_a_cluster_with_each_image_fetched_once(emulator, cluster):
    with AllenClient(emulator.url, cache="none", rate=1e9) as allen:
        opened = open_sections(DATASET, resolution=100, client=allen, chunk=64)
        emulator.reset()
        with Client(cluster):
            there = opened.image.isel(section=slice(6, 9)).compute()
        assert emulator.count("section_image_download") == 3
        np.testing.assert_array_equal(there, opened.image.isel(section=slice(6, 9)).compute())


def test_a_lazy_volume_computes_on_a_cluster_with_each_image_fetched_once(emulator, cluster):
    with AllenClient(emulator.url, cache="none", rate=1e9) as allen:
        volume = open_volume(DATASET, resolution=200, chunk=16, client=allen)
        emulator.reset()
        with Client(cluster):
            section = volume.section.compute()
        assert emulator.count("section_image_download") == len(np.unique(section)) - 1


def test_no_more_requests_are_under_way_over_the_cluster_than_the_client_allows(cluster, tmp_path):
    with (
        Emulator(latency=0.05) as slow,
        AllenClient(slow.url, cache="none", concurrency=1, rate=1e9) as client,
    ):
        build(DATASET, tmp_path / "x.ome.zarr", client=client, resolution=200, scheduler=cluster.scheduler_address)
        assert slow.count("section_image_download") == 18
        assert slow.peak == 1


def test_a_worker_holds_one_connection_pool_and_one_semaphore_however_many_images_it_fetches(
    emulator, cluster, tmp_path
):
    def held():  # in a worker process: connection pools and semaphores
        import gc

        gc.collect()
        kinds = [type(thing).__name__ for thing in gc.get_objects()]
        return kinds.count("PoolManager"), kinds.count("Semaphore")

    with AllenClient(emulator.url, cache="none", concurrency=3, rate=1e9) as client:
        options = {"client": client, "resolution": 200, "scheduler": cluster.scheduler_address}
        with Client(cluster) as observer:
            before = observer.run(held)
            build(DATASET, tmp_path / "x.ome.zarr", **options)
            after = observer.run(held)
    for worker, (pools, semaphores) in after.items():
        assert pools - before[worker][0] <= 1
        assert semaphores - before[worker][1] <= 1


def test_a_client_outlives_the_cluster_s_client(emulator, cluster):
    with AllenClient(emulator.url, cache="none", rate=1e9) as allen:
        for _ in range(2):
            with Client(cluster):
                assert allen.section_dataset(DATASET).id == DATASET
        assert allen.section_dataset(DATASET).id == DATASET


def test_a_missing_image_is_reported_from_the_cluster(cluster, tmp_path):
    faults = [{"match": {"path": "section_image_download/69177654"}, "do": "status", "status": 404, "times": None}]
    with Emulator(faults=faults) as emulator, AllenClient(emulator.url, cache="none", rate=1e9) as client:
        report = build(
            DATASET, tmp_path / "x.ome.zarr", client=client, resolution=200, scheduler=cluster.scheduler_address
        )
    assert not report.ok
    assert [failure.request.image_id for failure in report.views[0].failures] == [69177654]


@pytest.mark.usefixtures("impatient")
def test_a_scheduler_that_does_not_answer_is_named_and_nothing_is_written(emulator, tmp_path):
    with (
        AllenClient(emulator.url, cache="none", rate=1e9) as client,
        pytest.raises(InputError, match=r"127\.0\.0\.1:9"),
    ):
        build(DATASET, tmp_path / "x.ome.zarr", client=client, resolution=200, scheduler="tcp://127.0.0.1:9")
    assert not (tmp_path / "x.ome.zarr").exists()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("address", ["nonsense", "tcp://127.0.0.1:9"])
def test_a_scheduler_that_is_refused_leaves_dask_as_it_was(address):
    with pytest.raises(InputError, match="does not answer") as refused:
        scheduler_for(address, None)
    assert refused.traceback  # and all that it holds is alive
    assert dask.base.get_scheduler() is None


def test_while_a_build_uses_a_cluster_dask_computes_where_it_did(cluster):
    with scheduler_for(cluster.scheduler_address, None):
        assert dask.base.get_scheduler() is None

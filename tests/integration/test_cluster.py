"""The same build on the workers of a distributed scheduler."""

import hashlib
import os
from pathlib import Path

import dask
import dask.array as da
import distributed
import numpy as np
import pytest
import zarr
from distributed import Client, LocalCluster

from atlaszarr import AllenClient, build, open_sections, open_volume, plan
from atlaszarr.engine.schedulers import scheduler_for
from atlaszarr.errors import InputError, SchedulerError
from atlaszarr.testing.emulator import Emulator
from atlaszarr.writing import write_multiscales
from codes import raises

DATASET = 69289763


@pytest.fixture(scope="module")
def emulator():
    with Emulator() as running:
        yield running


def digests(target):
    files = sorted(
        p for p in Path(target).rglob("*") if p.is_file() and "atlaszarr" not in p.parts[len(target.parts) :]
    )
    return {p.relative_to(target).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_a_cluster_builds_the_same_bytes_and_fetches_each_image_once_without_any_cache(emulator, cluster, tmp_path):
    with AllenClient(emulator.url, cache="none", rate=1e9) as client:
        options = {"client": client, "resolution": 200, "chunk": 16}
        emulator.reset()
        address = cluster.scheduler_address
        report = build(DATASET, tmp_path / "cluster.ome.zarr", scheduler=address, **options)
        (planned,) = plan(DATASET, **options)
        assert report.ok
        assert emulator.count("section_image_download") == planned.image_requests == 18
        assert report.views[0].tasks_done == planned.tasks - 18
        build(DATASET, tmp_path / "threads.ome.zarr", **options)
    assert digests(tmp_path / "cluster.ome.zarr") == digests(tmp_path / "threads.ome.zarr")


def process_ids(target, **options):
    """The ids of the processes that compute the blocks of an image."""
    blocks = da.zeros((4, 4, 64), chunks=4, dtype="u4").map_blocks(lambda block: block + np.uint32(os.getpid()))
    write_multiscales(blocks, target, chunk=4, levels=1, identity="ids", **options)
    return voxels(target)


def voxels(target):
    return set(np.unique(zarr.open_array(f"{target}/0", mode="r")).tolist())


def test_a_client_computes_stays_open_and_does_not_become_the_default(cluster, tmp_path):
    with Client(cluster, set_as_default=False) as client:
        assert process_ids(tmp_path / "x.ome.zarr", scheduler=client) <= set(client.run(os.getpid).values())
        assert client.status == "running"
        assert dask.base.get_scheduler() is None


def test_a_cluster_object_computes_and_stays_open(cluster, tmp_path):
    assert os.getpid() not in process_ids(tmp_path / "x.ome.zarr", scheduler=cluster)
    assert cluster.status.name == "running"


def test_the_active_client_computes_unless_threads_are_asked_for(cluster, tmp_path):
    with Client(cluster) as client:
        assert process_ids(tmp_path / "x.ome.zarr") <= set(client.run(os.getpid).values())
        assert process_ids(tmp_path / "y.ome.zarr", scheduler="threads") == {os.getpid()}
        assert client.status == "running"
    assert process_ids(tmp_path / "z.ome.zarr") == {os.getpid()}


def test_a_task_of_a_cluster_computes_on_threads_of_its_worker(cluster, tmp_path):
    def task(target):
        distributed.get_client()  # which becomes the default client of the worker
        blocks = da.zeros((4, 4, 64), chunks=4, dtype="u4").map_blocks(lambda block: block + np.uint32(os.getpid()))
        write_multiscales(blocks, target, chunk=4, levels=1, identity="ids")
        return os.getpid()

    with Client(cluster) as client:
        worker = client.submit(task, tmp_path / "x.ome.zarr").result(timeout=60)
    assert voxels(tmp_path / "x.ome.zarr") == {worker}


def test_after_an_error_a_client_runs_no_task_of_the_build(cluster, tmp_path):
    def block(values, block_info=None):
        if block_info[0]["chunk-location"] == (0, 0, 0):
            raise ValueError("zero is no gene")
        return values

    image = da.map_blocks(block, da.zeros((32, 32, 32), chunks=4, dtype="u1"), dtype="u1")
    with Client(cluster) as client:
        with pytest.raises(ValueError, match="gene"):
            write_multiscales(image, tmp_path / "x.ome.zarr", chunk=4, identity="zero")
        assert not any(client.processing().values())
        assert client.status == "running"


@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
def test_a_scheduler_that_ends_ends_a_write_with_its_own_error(tmp_path):
    image = da.zeros((32, 32, 32), chunks=4, dtype="u1")
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, processes=True, dashboard_address=":0") as lost,
        raises(SchedulerError, "scheduler-lost") as caught,
    ):
        write_multiscales(
            image, tmp_path / "x.ome.zarr", chunk=4, scheduler=lost.scheduler_address, progress=lambda *_: lost.close()
        )
    assert lost.scheduler_address in str(caught.value)


def test_a_target_in_memory_is_supported_only_for_workers_of_this_process(cluster):
    with Client(cluster):
        with raises(InputError, "target-in-memory"):
            write_multiscales(np.zeros((4, 4, 4), "u1"), "memory://cluster.ome.zarr")
        assert write_multiscales(np.zeros((4, 4, 4), "u1"), "memory://threads.ome.zarr", scheduler="threads")
    with Client(processes=False, n_workers=1, dashboard_address=":0"):
        assert write_multiscales(np.ones((4, 4, 4), "u1"), "memory://worker.ome.zarr").state == "built"


@pytest.mark.parametrize("scheduler", ["processes", 5])
def test_a_scheduler_that_is_not_supported_is_named(scheduler, tmp_path):
    with raises(InputError, "not-supported") as caught:
        write_multiscales(np.zeros((4, 4, 4), "u1"), tmp_path / "x.ome.zarr", scheduler=scheduler)
    assert repr(scheduler) in str(caught.value)
    assert not (tmp_path / "x.ome.zarr").exists()


def test_a_closed_client_raises_an_error(cluster, tmp_path):
    with Client(cluster, set_as_default=False) as client:
        pass
    with raises(InputError, "scheduler-unreachable"):
        write_multiscales(np.zeros((4, 4, 4), "u1"), tmp_path / "x.ome.zarr", scheduler=client)


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
            computed = opened.image.isel(section=slice(6, 9)).compute()
        assert emulator.count("section_image_download") == 3
        np.testing.assert_array_equal(computed, opened.image.isel(section=slice(6, 9)).compute())


def test_a_lazy_volume_computes_on_a_cluster_with_each_image_fetched_once(emulator, cluster):
    with AllenClient(emulator.url, cache="none", rate=1e9) as allen:
        volume = open_volume(DATASET, resolution=200, chunk=16, client=allen)
        emulator.reset()
        with Client(cluster):
            section = volume.section.compute()
        assert emulator.count("section_image_download") == len(np.unique(section)) - 1


def test_a_cluster_makes_no_more_requests_at_once_than_the_client_allows(cluster, tmp_path):
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
        raises(InputError, "scheduler-unreachable") as caught,
    ):
        build(DATASET, tmp_path / "x.ome.zarr", client=client, resolution=200, scheduler="tcp://127.0.0.1:9")
    assert "127.0.0.1:9" in str(caught.value)
    assert not (tmp_path / "x.ome.zarr").exists()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("address", ["nonsense", "tcp://127.0.0.1:9"])
def test_a_scheduler_that_does_not_answer_leaves_dask_unchanged(address):
    with raises(InputError, "scheduler-unreachable") as caught:
        scheduler_for(address, None)
    assert caught.traceback  # which keeps all its local variables
    assert dask.base.get_scheduler() is None


def test_a_build_on_a_cluster_does_not_change_the_scheduler_of_dask(cluster):
    with scheduler_for(cluster.scheduler_address, None):
        assert dask.base.get_scheduler() is None

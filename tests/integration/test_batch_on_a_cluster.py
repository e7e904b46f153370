"""Many datasets on the workers of a distributed scheduler: the same bytes, few requests, and nothing that stays."""

from collections import Counter
from pathlib import Path

import pytest
from distributed import Client, LocalCluster

from atlaszarr import build_many
from atlaszarr.errors import InputError
from codes import raises
from copied_datasets import copies

SMALL = {"resolution": 200, "chunk": 16}
IDS = range(1, 13)


def images_fetched(emulator):
    return Counter(asked.path for asked in emulator.requests if asked.kind == "section_image_download")


@pytest.mark.slow
def test_a_cluster_builds_the_same_bytes_as_threads_and_fetches_each_image_once(
    records, serve, connect, cluster, contents, tmp_path
):
    emulator = serve(*copies(records, IDS))
    client = connect(emulator)
    report = build_many(IDS, tmp_path / "cluster", client=client, scheduler=cluster.scheduler_address, **SMALL)
    assert report.states == {"built": 12}
    fetched = images_fetched(emulator)
    assert len(fetched) == 72
    assert set(fetched.values()) == {1}
    with Client(cluster):
        again = build_many(IDS, tmp_path / "cluster", client=client, **SMALL)
    assert again.states == {"finished before": 12}
    assert build_many(IDS, tmp_path / "threads", client=client, **SMALL).ok
    for id in IDS:
        name = f"{id}.ome.zarr"
        assert contents(tmp_path / "cluster" / name) == contents(tmp_path / "threads" / name)


def test_all_workers_together_make_no_more_requests_at_once_than_the_client_allows(
    records, serve, connect, cluster, tmp_path
):
    slow = serve(*copies(records, IDS[:4]), latency=0.03)
    client = connect(slow, concurrency=1)
    with Client(cluster):
        assert build_many(IDS[:4], tmp_path, client=client, **SMALL).ok
    assert slow.count("section_image_download") == 24
    assert slow.peak == 1


@pytest.mark.slow
def test_a_batch_begins_on_an_adaptive_cluster_without_workers(records, serve, connect, tmp_path):
    client = connect(serve(*copies(records, IDS[:3])))
    with LocalCluster(n_workers=0, threads_per_worker=1, dashboard_address=":0") as adaptive:
        adaptive.adapt(minimum=0, maximum=2, interval="100ms")
        assert build_many(IDS[:3], tmp_path, client=client, scheduler=adaptive, **SMALL).states == {"built": 3}


def test_a_root_in_the_memory_of_this_process_is_refused(cluster):
    with raises(InputError, "target-in-memory"):
        build_many([1], "memory://root", scheduler=cluster)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts by Linux's /proc")
@pytest.mark.parametrize("kind", ["local disk", "S3"])
def test_what_a_worker_holds_after_the_twelfth_dataset_is_what_it_holds_after_the_third(
    kind, records, serve, connect, tmp_path, remote
):
    def held():  # in a worker process: threads of builds, open files, temporary files, MB in memory
        import gc
        import os
        import tempfile
        import threading
        from pathlib import Path

        gc.collect()
        names = [thread.name for thread in threading.enumerate()]
        # Those that read a store and sync files are of a fixed number, and start when they are needed.
        pools = ("atlaszarr-store", "atlaszarr-sync")
        threads = [name for name in names if name.startswith("atlaszarr") and not name.startswith(pools)]
        left = [path.name for path in Path(tempfile.gettempdir()).iterdir() if "atlaszarr" in path.name]
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
        return threads, len(list(Path("/proc/self/fd").iterdir())), left, resident

    connections = 2
    client = connect(serve(*copies(records, IDS)), concurrency=connections)
    url, options = (tmp_path / "root", {}) if kind == "local disk" else (remote.url("flat"), remote.options)
    (tmp_path / "temporary").mkdir()
    temporary = {"TMPDIR": str(tmp_path / "temporary")}
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0", env=temporary) as one,
        Client(one, set_as_default=False) as observer,
    ):
        settings = {"client": client, "scheduler": observer, "storage_options": options, "downsample": 4, **SMALL}
        build_many(IDS[:3], url, **settings)
        ((threads, files, left, resident),) = observer.run(held).values()
        assert build_many(IDS, url, **settings).states == {"finished before": 3, "built": 9}
        ((threads_then, files_then, left_then, resident_then),) = observer.run(held).values()
    assert len(threads_then) <= len(threads)
    assert files_then <= files + connections  # which are opened at need
    assert left_then == left == []
    assert resident_then < resident + 25  # the nine datasets have 57 MB of decoded images

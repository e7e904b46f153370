"""What goes wrong on a Dask cluster: each fault ends in one sentence, or is overcome, and the target can be resumed."""

import os
import signal
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import dask
import dask.array as da
import distributed
import numpy as np
import pytest
from distributed import Client, LocalCluster

import atlaszarr
from atlaszarr import verify
from atlaszarr.errors import InputError, SchedulerError
from atlaszarr.writing import write_multiscales
from chains import bucket, section_build, started
from codes import raises
from dask_processes import scheduler_process, worker

KEY = "the-access-key"


@pytest.fixture
def scheduler():
    """The address of a scheduler in this process, without workers."""
    with LocalCluster(n_workers=0, dashboard_address=":0") as cluster:
        yield cluster.scheduler_address


@pytest.fixture
def hasty():
    """A cluster without workers is given up at the first look."""
    with dask.config.set({"distributed.scheduler.no-workers-timeout": "1s"}):
        yield


@pytest.fixture(scope="module")
def without_package(tmp_path_factory):
    """The options of a process whose packages are those of this one, except atlaszarr."""
    folder = tmp_path_factory.mktemp("packages")
    for package in Path(distributed.__file__).parents[1].iterdir():
        if not package.name.lower().startswith(("atlaszarr", "_atlaszarr")) and package.suffix != ".pth":
            (folder / package.name).symlink_to(package)
    return {"python": (sys.executable, "-S"), "environment": {**os.environ, "PYTHONPATH": str(folder)}}


@pytest.fixture
def other_version(without_package, tmp_path):
    """The options of a process that has another version of atlaszarr."""
    packages = tmp_path / "packages"
    (packages / "atlaszarr-0.0.7.dist-info").mkdir(parents=True)
    (packages / "atlaszarr-0.0.7.dist-info" / "METADATA").write_text("Name: atlaszarr\nVersion: 0.0.7\n")
    (packages / "atlaszarr").symlink_to(Path(atlaszarr.__file__).parent)
    path = f"{packages}{os.pathsep}{without_package['environment']['PYTHONPATH']}"
    return {**without_package, "environment": {**os.environ, "PYTHONPATH": path}}


IMAGE = np.random.default_rng(0).integers(0, 255, (32, 32, 32)).astype("uint8")


def write(target, **options):
    """Write an image of 64 blocks, two of which finish per task on one worker."""
    return write_multiscales(IMAGE, target, chunk=8, levels=2, identity="noise", **options)


def assert_resumes(target):
    assert write(target).state == "resumed"
    assert verify(target, deep=True).ok


def after_the_first_block(action):
    """A progress callable that acts once, after the first task has finished."""
    acted = []

    def progress(done, *_):
        if done and not acted:
            acted.append(True)
            action()

    return progress


@pytest.mark.slow
def test_an_adaptive_cluster_without_workers_starts_one_for_the_first_task(tmp_path):
    target = tmp_path / "x.ome.zarr"
    with LocalCluster(n_workers=0, threads_per_worker=1, dashboard_address=":0") as cluster:
        cluster.adapt(minimum=0, maximum=1, interval="100ms")
        assert not cluster.scheduler.workers
        assert write(target, scheduler=cluster).state == "built"
    assert verify(target, deep=True).ok


@pytest.mark.usefixtures("hasty")
def test_a_cluster_whose_workers_never_come_is_named_and_nothing_is_written(scheduler, tmp_path):
    with raises(InputError, "scheduler-without-workers") as caught:
        write(tmp_path / "x.ome.zarr", scheduler=scheduler)
    assert f"{scheduler} has had no workers for 1 s" in str(caught.value)
    assert not (tmp_path / "x.ome.zarr").exists()


@pytest.mark.usefixtures("hasty")
def test_after_all_workers_are_lost_a_write_ends_with_one_sentence_and_resumes(scheduler, tmp_path):
    target = tmp_path / "x.ome.zarr"
    with worker(scheduler, tmp_path / "scratch") as only, raises(SchedulerError, "scheduler-without-workers") as caught:
        write(target, scheduler=scheduler, progress=after_the_first_block(only.kill))
    assert scheduler in str(caught.value)
    assert_resumes(target)


@pytest.mark.slow
def test_values_that_all_workers_share_are_sent_again_after_the_workers_that_had_them_are_lost(scheduler, tmp_path):
    target = tmp_path / "x.ome.zarr"
    with worker(scheduler, tmp_path / "scratch") as first:
        replacement = worker(scheduler, tmp_path / "scratch")

        def replace():
            first.kill()
            replacement.__enter__()

        try:
            assert write(target, scheduler=scheduler, progress=after_the_first_block(replace)).state == "built"
        finally:
            replacement.__exit__(None, None, None)
    assert verify(target, deep=True).ok


@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
def test_after_the_scheduler_is_killed_a_write_ends_with_one_sentence_and_resumes(tmp_path):
    target = tmp_path / "x.ome.zarr"
    with (
        scheduler_process(tmp_path) as (child, address),
        worker(address, tmp_path / "scratch"),
        raises(SchedulerError, "scheduler-lost") as caught,
    ):
        write(target, scheduler=address, progress=after_the_first_block(child.kill))
    assert address in str(caught.value)
    assert_resumes(target)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_scheduler_that_freezes_is_given_up(tmp_path):
    target = tmp_path / "x.ome.zarr"
    with scheduler_process(tmp_path) as (child, address), worker(address, tmp_path / "scratch"):

        def freeze():
            child.process.send_signal(signal.SIGSTOP)

        with raises(SchedulerError, "scheduler-unreachable") as caught:
            write(target, scheduler=address, progress=after_the_first_block(freeze))
        assert f"{address} has not answered" in str(caught.value)
        child.kill()
    assert_resumes(target)


@pytest.mark.slow
def test_the_command_prints_one_sentence_after_the_scheduler_is_killed(emulator, tmp_path):
    patience = {**os.environ, "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "500ms"}
    target = tmp_path / "x.ome.zarr"
    with scheduler_process(tmp_path) as (child, address), worker(address, tmp_path / "scratch"):
        command = section_build(emulator.url, "--scheduler", address)(str(target), {})
        with started(command, patience) as build:
            while not any(target.glob("0/**/[0-9]*")):
                assert build.process.poll() is None, build.said()
                time.sleep(0.01)
            child.kill()
            assert build.process.wait(100) == 1
            (sentence,) = build.said().splitlines()
    assert sentence.startswith(f"atlaszarr: the connection to scheduler {address} was lost")


def test_a_worker_without_the_package_is_named_and_nothing_is_written(scheduler, without_package, tmp_path):
    lacking = worker(scheduler, tmp_path / "scratch", **without_package)
    with lacking, raises(InputError, "package-missing") as caught:
        write(tmp_path / "x.ome.zarr", scheduler=scheduler)
    assert "lacks atlaszarr" in str(caught.value)
    assert not (tmp_path / "x.ome.zarr").exists()


@pytest.mark.slow
def test_one_worker_of_several_without_the_package_is_named(scheduler, without_package, tmp_path):
    lacking = worker(scheduler, tmp_path / "b", **without_package)
    with worker(scheduler, tmp_path / "a"), lacking, raises(InputError, "package-missing"):
        write(tmp_path / "x.ome.zarr", scheduler=scheduler)
    assert not (tmp_path / "x.ome.zarr").exists()


@contextmanager
def replaced_by(scheduler, folder, settings):
    """A worker, and a function that starts another one with `settings` and kills the first."""
    with ExitStack() as stack:
        first = stack.enter_context(worker(scheduler, folder / "a"))

        def replace():
            stack.enter_context(worker(scheduler, folder / "b", **settings))
            first.kill()

        yield replace


@pytest.mark.usefixtures("hasty")
@pytest.mark.slow
def test_a_worker_without_the_package_that_joins_later_ends_and_the_write_with_one_sentence(
    scheduler, without_package, tmp_path
):
    target = tmp_path / "x.ome.zarr"
    with (
        replaced_by(scheduler, tmp_path, without_package) as replace,
        raises(SchedulerError, "scheduler-without-workers") as caught,
    ):
        write(target, scheduler=scheduler, progress=after_the_first_block(replace))
    assert scheduler in str(caught.value)
    assert_resumes(target)


@pytest.mark.slow
def test_a_scheduler_process_without_the_package_is_named(without_package, tmp_path):
    with (
        scheduler_process(tmp_path, **without_package) as (_, address),
        worker(address, tmp_path / "scratch"),
        raises(InputError, "package-missing") as caught,
    ):
        write(tmp_path / "x.ome.zarr", scheduler=address)
    assert f"the process of scheduler {address} lacks atlaszarr" in str(caught.value)
    assert not (tmp_path / "x.ome.zarr").exists()


def test_a_worker_with_another_version_is_named_with_both_versions(scheduler, other_version, tmp_path):
    differing = worker(scheduler, tmp_path / "scratch", **other_version)
    with differing, raises(InputError, "version-mismatch") as caught:
        write(tmp_path / "x.ome.zarr", scheduler=scheduler)
    assert "has atlaszarr 0.0.7, and this process has" in str(caught.value)
    assert not (tmp_path / "x.ome.zarr").exists()


@pytest.mark.slow
def test_a_worker_with_another_version_that_joins_later_ends_a_write_with_both_versions(
    scheduler, other_version, tmp_path
):
    target = tmp_path / "x.ome.zarr"
    with (
        replaced_by(scheduler, tmp_path, other_version) as replace,
        raises(SchedulerError, "version-mismatch") as caught,
    ):
        write(target, scheduler=scheduler, progress=after_the_first_block(replace))
    assert "0.0.7" in str(caught.value)
    assert_resumes(target)


@pytest.mark.slow
def test_a_worker_without_credentials_is_named_without_a_key(scheduler, tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    home = {"HOME": str(tmp_path), "AWS_EC2_METADATA_DISABLED": "true"}
    with bucket() as store, worker(scheduler, tmp_path / "scratch", environment={**os.environ, **home}):
        options = {name: value for name, value in store.options.items() if name not in ("key", "secret")}
        url = store.url("x.ome.zarr")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the-secret-access-key")
        with raises(SchedulerError, "missing-credentials") as caught:
            write(url, scheduler=scheduler, storage_options=options)
        assert "worker tcp://" in str(caught.value)
        assert KEY not in str(caught.value)
        assert write(url, storage_options=options).state == "resumed"
        assert verify(url, deep=True, storage_options=options).ok


@pytest.mark.slow
def test_a_worker_that_is_killed_for_its_memory_is_named(tmp_path):
    def greedy(block):
        held = []
        while block.size:  # dask asks for the kind of an empty block first
            held.append(np.ones(2**20))
            time.sleep(0.01)
        return block

    image = da.map_blocks(greedy, da.zeros((16, 16, 16), chunks=8, dtype="uint8"), dtype="uint8")
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        LocalCluster(n_workers=0, dashboard_address=":0") as cluster,
        worker(cluster.scheduler_address, tmp_path / "scratch", "--memory-limit", "500MB", nanny=True),
        raises(SchedulerError, "worker-killed") as caught,
    ):
        write_multiscales(
            image, tmp_path / "x.ome.zarr", chunk=8, identity="greedy", scheduler=cluster.scheduler_address
        )
    assert "lack of memory" in str(caught.value)


@pytest.mark.usefixtures("hasty")
def test_workers_that_are_all_paused_are_named(scheduler, tmp_path):
    full = {"PAUSE": "0.01", "TERMINATE": "false", "SPILL": "false", "TARGET": "false"}
    environment = {**os.environ, **{f"DASK_DISTRIBUTED__WORKER__MEMORY__{key}": value for key, value in full.items()}}
    options = ["--memory-limit", "1GB"]
    with (
        worker(scheduler, tmp_path / "scratch", *options, environment=environment),
        Client(scheduler, set_as_default=False) as observer,
    ):
        while observer.sync(observer.scheduler.ncores_running):
            time.sleep(0.05)
        with raises(InputError, "workers-paused") as caught:
            write(tmp_path / "x.ome.zarr", scheduler=scheduler)
    assert scheduler in str(caught.value)
    assert not (tmp_path / "x.ome.zarr").exists()

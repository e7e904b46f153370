"""Builds killed with ``kill -9``: an unfinished target does not open as an image, and is resumed to the same bytes."""

import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter

import dask.array as da
import numpy as np
import pytest
from distributed import Client, LocalCluster

from atlaszarr import AllenClient, build
from atlaszarr.engine import ledger
from atlaszarr.stores.target import Target
from atlaszarr.writing import write_multiscales
from chains import (
    DATASET,
    HERE,
    Chain,
    Folder,
    Undisturbed,
    Watched,
    section_build,
    started,
    volume_write,
)

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="only on Linux is it known that the owner of a lease has ended"
)


@pytest.fixture(scope="module")
def sections(emulator, tmp_path_factory):
    """The command that builds a section dataset, and its undisturbed target."""
    command = section_build(emulator.url)
    return command, Undisturbed.of(command, tmp_path_factory.mktemp("sections"))


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    """The command that writes an image with labels, and its undisturbed target."""
    return volume_write, Undisturbed.of(volume_write, tmp_path_factory.mktemp("volume"))


@pytest.mark.parametrize(
    ("kind", "store", "kills"),
    [
        pytest.param("sections", "local disk", 3, marks=pytest.mark.slow),
        pytest.param("sections", "S3", 2, marks=pytest.mark.slow),
        ("volume", "local disk", 3),
        pytest.param("volume", "S3", 2, marks=pytest.mark.slow),
    ],
    indirect=["store"],
)
@pytest.mark.slow
def test_a_build_killed_at_random_moments_completes_as_an_undisturbed_one(request, emulator, kind, store, kills):
    command, expected = request.getfixturevalue(kind)
    rng = random.Random(f"{kind} {store}")
    left = kills
    # A build that finished before it was killed is not counted: the next chain writes another target.
    for number in itertools.count():
        chain = Chain(command, store, f"{kind}{number}.ome.zarr", expected, rng)
        while len(chain.kills) < left and chain.kill("blocks" if not number and not chain.kills else None):
            pass
        emulator.reset()
        chain.finish()
        fetched = Counter(asked.path for asked in emulator.requests if asked.kind == "section_image_download")
        assert set(fetched.values()) <= {1}
        if not (left := left - len(chain.kills)):
            break


class Writers:
    """Forks of a process that write a small image and are killed at a step."""

    def __init__(self, process):
        self._process = process

    def write(self, store, name, kill_at=None, done=False, **options):
        """Write, and return whether the fork survived; on S3 `done` carries out the step before the kill."""
        local = isinstance(store, Folder)
        job = {"target": store.url(name), "storage_options": store.options, "options": options}
        self._process.stdin.write(json.dumps({**job, "kill_at": kill_at if local else None}) + "\n")
        self._process.stdin.flush()
        pid = int(self._process.stdout.readline())
        if kill_at is not None and not local:
            store.gate.kill_at(kill_at, pid, done)
        status = int(self._process.stdout.readline())
        if not local:
            store.gate.relent()
        assert status in (0, -signal.SIGKILL), status
        return status == 0


@pytest.fixture(scope="module")
def writers():
    command = [sys.executable, str(HERE / "writes.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Writers(process)
        process.stdin.close()


def every_step(writers, store, prefix, version="0.5", before=lambda _: None, old=None, done=False, **options):
    """Kill the write at each of its steps in turn, after `before`; then write again and compare."""
    expected = undisturbed(writers, store, f"{prefix}-undisturbed", version)
    for step in itertools.count():
        name = f"{prefix}-{step}.ome.zarr"
        before(name)
        target = Watched(store, name, expected)
        if writers.write(store, name, step, done, ome_zarr=version, **options):
            break
        if target.state != "finished":
            target.hold_shut(old)
        assert writers.write(store, name, ome_zarr=version, **options)
        target.hold_equal()
    return step


def undisturbed(writers, store, name, version, **options):
    assert writers.write(store, name, ome_zarr=version, **options)
    return Undisturbed.found(store, name)


@pytest.mark.slow
def test_a_write_killed_before_any_change_of_the_disk_is_resumed_to_the_same_bytes(writers, tmp_path):
    assert every_step(writers, Folder(tmp_path), "x") > 25


@pytest.fixture(scope="module")
def cluster():
    """Two workers, each with a nanny that starts another when it dies."""
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0") as running:
        yield running


@pytest.mark.slow
def test_after_a_worker_is_killed_only_its_images_are_fetched_again(emulator, sections, cluster, tmp_path):
    _, expected = sections
    with Client(cluster) as observer:
        victim, other = observer.run(os.getpid).values()
    killed = []

    def kill(done, total, word):
        if word == "blocks" and done == total // 4:
            os.kill(victim, signal.SIGKILL)
            killed.append(victim)

    with AllenClient(emulator.url, cache="none", rate=1e9) as client:
        emulator.reset()
        report = build(
            DATASET,
            tmp_path / "x.ome.zarr",
            client=client,
            scheduler=cluster.scheduler_address,
            progress=kill,
            resolution=100,
            chunk=16,
        )
    assert report.ok
    assert killed
    assert other != victim
    fetched = Counter(asked.path for asked in emulator.requests if asked.kind == "section_image_download")
    assert len(fetched) == 18
    assert max(fetched.values()) <= 2
    Watched(Folder(tmp_path), "x.ome.zarr", expected).hold_equal()


@pytest.mark.slow
def test_a_build_whose_process_is_killed_is_resumed_on_the_same_cluster(emulator, sections, cluster, tmp_path):
    _, expected = sections
    command = section_build(emulator.url, "--scheduler", cluster.scheduler_address)
    chain = Chain(command, Folder(tmp_path), "x.ome.zarr", expected, random.Random(0))
    assert chain.kill("blocks")
    chain.finish()


@pytest.mark.slow
def test_after_a_worker_is_killed_no_recorded_block_is_computed_again(tmp_path):
    counted = tmp_path / "computed"

    def block(block_id):
        if not isinstance(block_id, tuple):  # dask asks for the kind of a block first
            return np.zeros((1, 1, 1), "uint8")
        with counted.open("a") as file:
            file.write(f"{block_id}\n")
        return np.random.default_rng(block_id).integers(0, 200, (16, 16, 16)).astype("uint8")

    image = da.map_blocks(block, chunks=((16,) * 4, (16,) * 4, (16,) * 4), dtype="uint8")
    options = {"chunk": 8, "identity": "noise"}
    with LocalCluster(n_workers=0, dashboard_address=":0") as cluster:
        worker = [sys.executable, "-m", "dask", "worker", cluster.scheduler_address, "--no-nanny", "--nthreads", "1"]
        worker += ["--no-dashboard", "--local-directory", str(tmp_path / "scratch")]
        with started(worker) as victim, started(worker), Client(cluster) as observer:
            observer.wait_for_workers(2)

            unreported = []

            def kill(done, _total, word):
                if (done, word) == (16, "blocks"):
                    victim.kill()
                    unreported.append(len(counted.read_text().splitlines()) - done)

            target = tmp_path / "x.ome.zarr"
            write_multiscales(image, target, scheduler=cluster.scheduler_address, progress=kill, **options)
    computed = Counter(counted.read_text().splitlines())
    assert len(computed) == 64
    # Only blocks that the worker was computing, or had computed and not yet reported.
    assert computed.total() - 64 <= unreported[0]
    write_multiscales(image, tmp_path / "undisturbed.ome.zarr", **options)
    Watched(Folder(tmp_path), "x.ome.zarr", Undisturbed.found(Folder(tmp_path), "undisturbed.ome.zarr")).hold_equal()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_chunks_and_their_folders_are_synced_before_the_ledger_records_them(tmp_path):
    target, trace = tmp_path / "synced.ome.zarr", tmp_path / "trace"
    calls = ["strace", "-f", "-y", "-s", "4096", "-e", "trace=fsync,rename,renameat,renameat2", "-o", str(trace)]
    command = [*calls, sys.executable, str(HERE / "volume.py"), str(target)]
    ran = subprocess.run(command, check=False, capture_output=True, text=True)
    if "ptrace" in ran.stderr:
        pytest.skip("strace is not permitted")
    assert ran.returncode == 0, ran.stderr
    synced, renamed, started_syncs = {}, {}, {}
    for number, line in enumerate(trace.read_text().splitlines()):
        thread, call = line.split(maxsplit=1)
        if found := re.match(r"fsync\(\d+<(.+?)>", call):
            started_syncs[thread] = found[1]
        elif found := re.match(r'rename\w*\(.*?"(.+?)".*?"(.+?)"', call):
            renamed[found[2]] = (number, found[1])
        if "fsync" in call and call.endswith("= 0"):
            synced.setdefault(started_syncs.pop(thread), []).append(number)
    done = ledger.read(Target.of(target), finished=True).done
    assert sum(len(entry.written) for entry in done.values()) > 100
    for entry in done.values():
        recorded, _ = renamed[str(target / f"{ledger.OPEN}/{ledger.opened(entry.body)['task']}.json")]
        for key in entry.written:
            appeared, temporary = renamed[str(target / key)]
            assert min(synced[temporary]) < appeared
            assert any(appeared < at < recorded for at in synced[str((target / key).parent)])

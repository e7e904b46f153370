"""A Dataset with a user's own step is written on a cluster whose processes are killed; the bytes are the same."""

import os
import signal
import subprocess
import sys

import distributed
import numpy as np
import pytest
from distributed import Client

from atlaszarr import open_volume, verify
from atlaszarr.errors import SchedulerError
from atlaszarr.writing import write_multiscales
from codes import raises
from dask_processes import SHORT_LEASES, scheduler_process, worker

DATASET = 69289763
OPTIONS = {"resolution": 200, "chunk": 16}


def smoothed(opened):
    def smooth(block):
        return block // 2 + np.roll(block, 1, axis=1) // 4

    image = opened.image.data.map_overlap(smooth, {1: 2, 2: 2, 3: 2}, boundary="nearest", dtype="uint8")
    return opened.assign(image=opened.image.copy(data=image))


@pytest.fixture(scope="module")
def undisturbed(allen, contents, tmp_path_factory):
    target = tmp_path_factory.mktemp("undisturbed") / "x"
    write_multiscales(
        smoothed(open_volume(DATASET, client=allen, **OPTIONS)), target, scheduler="threads", identity="x"
    )
    return contents(target) | {"sections.csv": (target / "atlaszarr/sections.csv").read_bytes()}


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The address of a scheduler with one worker, which no test kills."""
    folder = tmp_path_factory.mktemp("scheduler")
    short = {**os.environ, **SHORT_LEASES}
    with (
        scheduler_process(folder, environment=short) as (_, address),
        worker(address, folder / "scratch", environment=short),
    ):
        yield address


def assert_undisturbed(target, contents, undisturbed):
    assert contents(target) | {"sections.csv": (target / "atlaszarr/sections.csv").read_bytes()} == undisturbed
    assert verify(target, deep=True).ok


def once(action, word, at):
    """A progress callable that acts once, when a number of things is done."""
    acted = []

    def progress(done, _, what):
        if what == word and done >= at and not acted:
            acted.append(True)
            action()

    return progress


@pytest.mark.slow
@pytest.mark.parametrize(
    ("persisted", "at"),
    [
        (False, ("images", 1)),
        (False, ("blocks", 3)),
        (False, ("level 2", 1)),
        (True, ("blocks", 3)),
        (True, ("level 2", 1)),
    ],
)
def test_after_a_worker_is_killed_the_other_one_completes_the_same_bytes(
    allen, address, tmp_path, contents, undisturbed, at, persisted
):
    short = {**os.environ, **SHORT_LEASES}
    with worker(address, tmp_path / "scratch", environment=short) as first, Client(address):
        changed = smoothed(open_volume(DATASET, client=allen, **OPTIONS))
        if persisted:
            changed = changed.persist()
            distributed.wait(changed)
        report = write_multiscales(changed, tmp_path / "x", identity="x", progress=once(first.kill, *at))
    assert report.state == "built"
    if not persisted:
        assert_undisturbed(tmp_path / "x", contents, undisturbed)
    else:  # its ledger, whose digest the root holds, knows no digests of images
        found = contents(tmp_path / "x")
        different = {key for key, body in undisturbed.items() if found.get(key) != body}
        assert different == {"zarr.json", "sections.csv"}
        assert verify(tmp_path / "x", deep=True).ok


@pytest.mark.slow
@pytest.mark.parametrize("at", [("images", 9), ("blocks", 3)])
def test_a_client_that_is_closed_while_it_writes_is_named_and_the_call_resumes(
    allen, address, tmp_path, contents, undisturbed, at
):
    opened = smoothed(open_volume(DATASET, client=allen, **OPTIONS))
    with Client(address) as client, raises(SchedulerError, "scheduler-lost") as caught:
        write_multiscales(opened, tmp_path / "x", identity="x", progress=once(client.close, *at))
    assert address in str(caught.value)
    with Client(address):
        assert write_multiscales(opened, tmp_path / "x", identity="x").state == "resumed"
    assert_undisturbed(tmp_path / "x", contents, undisturbed)


SCRIPT = """
import os, signal, sys
import numpy as np
from distributed import Client
from atlaszarr import AllenClient, open_volume
from atlaszarr.writing import write_multiscales

def smooth(block):
    return block // 2 + np.roll(block, 1, axis=1) // 4

def kill(done, total, word):
    if word == sys.argv[4] and done >= int(sys.argv[5]):
        os.kill(os.getpid(), signal.SIGKILL)

with AllenClient(sys.argv[1], cache="none", rate=1e9) as allen, Client(sys.argv[2]):
    opened = open_volume({dataset}, client=allen, **{options})
    image = opened.image.data.map_overlap(smooth, {{1: 2, 2: 2, 3: 2}}, boundary="nearest", dtype="uint8")
    write_multiscales(opened.assign(image=opened.image.copy(data=image)), sys.argv[3], identity="x", progress=kill)
"""


@pytest.mark.slow
@pytest.mark.parametrize("at", [("images", "1"), ("blocks", "3"), ("level 2", "1")])
def test_after_the_driver_is_killed_the_same_call_resumes_on_the_same_cluster(
    emulator, allen, address, tmp_path, contents, undisturbed, at
):
    code = SCRIPT.format(dataset=DATASET, options=OPTIONS)
    with worker(address, tmp_path / "scratch"):
        command = [sys.executable, "-c", code, emulator.url, address, tmp_path / "x", *at]
        assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
        with Client(address):
            report = write_multiscales(
                smoothed(open_volume(DATASET, client=allen, **OPTIONS)), tmp_path / "x", identity="x"
            )
    assert report.state == "resumed"
    assert_undisturbed(tmp_path / "x", contents, undisturbed)

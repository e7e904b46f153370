"""A build of sections that is killed once the list of its images is written, which is before it is finished."""

import signal
import subprocess
import sys
import time

import pytest

from atlaszarr import verify
from atlaszarr.engine.ome_xml import KEY

CORONAL = 74272479
#: Seconds for a build that takes a few.
PATIENCE = 100


def started(target, url):
    command = [sys.executable, "-m", "atlaszarr", "build", CORONAL, target, "--mode", "sections", "--resolution", 200]
    options = ["--chunk", 32, "--cache", "none", "--api-url", url, "-q"]
    return subprocess.Popen(list(map(str, [*command, *options])))


@pytest.mark.slow
def test_a_collection_killed_when_its_list_is_written_is_resumed_to_the_same_bytes(emulator, contents, tmp_path):
    whole, target = tmp_path / "whole.ome.zarr", tmp_path / "x.ome.zarr"
    assert started(whole, emulator.url).wait(PATIENCE) == 0
    build, end = started(target, emulator.url), time.monotonic() + PATIENCE
    while not (target / KEY).exists() and build.poll() is None:
        assert time.monotonic() < end, "the list is not written"
        time.sleep(0.001)
    build.send_signal(signal.SIGKILL)
    build.wait(PATIENCE)
    # A build that was faster than the signal is finished.
    assert {defect.kind for defect in verify(target).defects} <= {"unfinished"}
    assert started(target, emulator.url).wait(PATIENCE) == 0
    assert contents(target) == contents(whole)
    assert verify(target, deep=True).ok

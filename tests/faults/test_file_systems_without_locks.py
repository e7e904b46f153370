"""A local target on a file system without locks is locked by a lease, as on an object store."""

import errno
import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager

import numpy as np
import pytest

from atlaszarr import verify
from atlaszarr.engine.lock import KEYS, owning
from atlaszarr.errors import InputError
from atlaszarr.stores.target import Target
from atlaszarr.writing import write_multiscales
from codes import raises
from refused_calls import SUPPORTED

OWNER = "atlaszarr/owner.json"
IMAGE = np.random.default_rng(0).integers(0, 255, (16, 16, 16)).astype("uint8")

CHILD = """
import sys
import test_file_systems_without_locks as tests
from refused_calls import refuse
from atlaszarr.engine.lock import owning
from atlaszarr.stores.target import Target
try:
    refuse("flock", int(sys.argv[2]))
except OSError:
    sys.exit(77)
if sys.argv[3] == "hold":
    with owning(Target.of(sys.argv[1])) as owner:
        owner.validate(read=True)
        print("owned", flush=True)
        sys.stdin.read()
else:
    from atlaszarr.errors import InputError
    from atlaszarr.writing import write_multiscales
    try:
        print(write_multiscales(tests.IMAGE, sys.argv[1], chunk=8, take_over=sys.argv[3] == "take over").state)
    except InputError as error:
        sys.exit(f"{error.code}: {error}")
"""

pytestmark = pytest.mark.skipif(not SUPPORTED, reason="needs seccomp, of Linux")


@contextmanager
def without_locks(target, action, code=errno.ENOSYS):
    """A process in which no file system has locks: it writes the image, or holds the target."""
    path = os.pathsep.join([os.path.dirname(__file__), *filter(None, sys.path)])  # noqa: PTH120
    command = [sys.executable, "-c", CHILD, str(target), str(code), action]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, **pipes, text=True, env={**os.environ, "PYTHONPATH": path}) as process:
        try:
            yield process
        finally:
            process.kill()


def result(target, action="write", code=errno.ENOSYS):
    """The exit code and the output of such a process."""
    with without_locks(target, action, code) as process:
        out, err = process.communicate(timeout=100)
    if process.returncode == 77:
        pytest.skip("seccomp is not allowed")
    return process.returncode, out.strip() or err.strip().splitlines()[-1]


def stranger(target, seconds):
    """Put the owner object of another machine into a target, last renewed a number of seconds ago."""
    body = {"owner": "0", "host": "elsewhere", "pid": 7, "process": "another-boot pid:[1] 7 99"}
    Target.of(target).write(OWNER, json.dumps(body).encode())
    os.utime(target / OWNER, (time.time() - seconds,) * 2)


@pytest.mark.first(1)
@pytest.mark.parametrize(
    "code", ["ENOSYS", *(pytest.param(code, marks=pytest.mark.slow) for code in ("ENOLCK", "ENOTSUP"))]
)
def test_an_image_is_written_without_a_warning_and_no_lock_stays(tmp_path, code):
    target = tmp_path / "x.ome.zarr"
    assert result(target, code=getattr(errno, code)) == (0, "built")
    assert verify(target, deep=True).ok
    assert not [path.name for path in (target / "atlaszarr").iterdir() if "owner" in path.name]


@pytest.mark.slow
def test_a_second_build_is_refused_and_one_that_was_killed_is_followed_at_once(tmp_path):
    target = tmp_path / "x.ome.zarr"
    with without_locks(target, "hold") as first:
        if first.stdout.readline() != "owned\n":
            pytest.skip("seccomp is not allowed")
        exit_code, message = result(target)
        assert exit_code == 1
        assert message.startswith("target-locked: ")
        assert f"process {first.pid}" in message
        first.kill()
    assert set(KEYS).intersection(Target.of(target).list_keys())
    assert result(target) == (0, "built")


@pytest.mark.parametrize("locks", [True, False])
@pytest.mark.slow
def test_the_lease_of_another_machine_lasts_a_minute_after_its_last_renewal(tmp_path, locks):
    target = tmp_path / "x.ome.zarr"
    stranger(target, 50)
    if locks:
        with raises(InputError, "target-locked") as caught, owning(Target.of(target)):
            pass
        assert "process 7 on elsewhere" in str(caught.value)
        stranger(target, 61)
        assert write_multiscales(IMAGE, target, chunk=8).state == "built"
    else:
        assert "process 7 on elsewhere" in result(target)[1]
        stranger(target, 61)
        assert result(target) == (0, "built")
    assert not set(KEYS).intersection(Target.of(target).list_keys())


@pytest.mark.parametrize("locks", [True, False])
@pytest.mark.slow
def test_the_lease_of_another_machine_is_taken_over_on_request(tmp_path, locks):
    target = tmp_path / "x.ome.zarr"
    stranger(target, 0)
    if locks:
        assert write_multiscales(IMAGE, target, chunk=8, take_over=True).state == "built"
    else:
        assert result(target, "take over") == (0, "built")
    assert not set(KEYS).intersection(Target.of(target).list_keys())

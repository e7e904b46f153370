"""A disk that is full, over quota, read-only or broken: one sentence that names the target, which can be resumed."""

import errno
import os
import subprocess
import sys

import numpy as np
import pytest

from atlaszarr import verify
from atlaszarr.writing import write_multiscales
from refused_calls import SUPPORTED

IMAGE = np.random.default_rng(0).integers(0, 255, (16, 16, 16)).astype("uint8")
CHILD = """
import sys
import test_failing_disks as tests
from atlaszarr.errors import AtlaszarrError
from atlaszarr.writing import write_multiscales
from refused_calls import refuse

def fail(done, *_):
    if done == 2:  # two blocks are one task
        try:
            refuse("fsync", int(sys.argv[2]))
        except OSError:
            sys.exit(77)

try:
    write_multiscales(tests.IMAGE, sys.argv[1], chunk=8, levels=1, identity="noise", workers=1, progress=fail)
except AtlaszarrError as error:
    sys.exit(f"{error.code}: {error}")
"""


@pytest.mark.skipif(not SUPPORTED, reason="needs seccomp, of Linux")
@pytest.mark.parametrize("code", ["ENOSPC", "EDQUOT", "EROFS", "EIO"])
@pytest.mark.slow
def test_a_disk_that_fails_halfway_is_named_and_the_target_can_be_resumed(tmp_path, code):
    target, number = tmp_path / "x.ome.zarr", getattr(errno, code)
    path = os.pathsep.join([os.path.dirname(__file__), *filter(None, sys.path)])  # noqa: PTH120
    # The filter holds for the main thread, which reports the progress and commits, and for those that it starts then.
    command = [sys.executable, "-c", CHILD, str(target), str(number)]
    ran = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=100, env={**os.environ, "PYTHONPATH": path}
    )
    if ran.returncode == 77:
        pytest.skip("seccomp is not allowed")
    assert ran.returncode == 1, ran.stderr
    (sentence,) = ran.stderr.splitlines()
    word = {"ENOSPC": "disk-full", "EDQUOT": "disk-full", "EROFS": "read-only"}.get(code, "store-error")
    assert sentence.startswith(f"{word}: cannot write to {target}: {os.strerror(number)}")
    assert code == "EIO" or "; " in sentence  # what to do
    assert write_multiscales(IMAGE, target, chunk=8, levels=1, identity="noise").state == "resumed"
    assert verify(target, deep=True).ok

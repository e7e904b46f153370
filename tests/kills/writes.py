"""Write a small image in forks that are killed at a given step; a fork is cheap enough for hundreds of kills.

Reads jobs from stdin, one line of JSON each, and prints two lines for each: the process id, then the exit status.
"""

import json
import os
import signal
import sys
import tempfile
import traceback
from pathlib import Path

import dask.array as da
import numpy as np

import atlaszarr.stores.s3  # noqa: F401 - forks need not import it
from atlaszarr.writing import write_multiscales

#: Audit events that Python raises before a change to a local disk.
_CHANGES = ("os.rename", "os.remove", "os.rmdir")


def write(target, storage_options=None, value=0, **options):
    """Write an image and labels in two passes; the image depends on `value`."""
    image = np.arange(12 * 4 * 4, dtype="uint16").reshape(12, 4, 4) + value
    labels = {"ten": (image // 10).astype("uint32")}
    write_multiscales(
        da.from_array(image),
        target,
        labels=labels,
        chunk=4,
        identity=f"image {value}",
        workers=1,
        storage_options=storage_options,
        **options,
    )


def main():
    with tempfile.TemporaryDirectory() as folder:  # imports what is imported late
        write(Path(folder, "x.ome.zarr"))
    for line in sys.stdin:
        job = json.loads(line)
        if (child := os.fork()) == 0:
            _run(**job)
        _tell(child)
        _, status = os.waitpid(child, 0)
        _tell(os.waitstatus_to_exitcode(status))


def _run(target, storage_options, options, kill_at):
    """Write; on a local disk, kill this process before the change number `kill_at`, counted from 0."""
    left = kill_at

    def watch(event, arguments):
        nonlocal left
        if event in _CHANGES and str(arguments[0]).startswith(target):
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

    code = 1
    try:
        if kill_at is not None:
            sys.addaudithook(watch)
        write(target, storage_options, **options)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _tell(number):
    print(number, flush=True)


if __name__ == "__main__":
    main()

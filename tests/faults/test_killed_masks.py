"""Masks whose process is killed: what is left is made again, and the result is the same."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from ngff_zarr import from_ngff_zarr

from atlaszarr.annotation_set.masks import write_masks
from atlaszarr.annotation_set.structure_order import PostOrder
from atlaszarr.assets.names import COMPRESSED, MASKS
from atlaszarr.engine.finished_image import Finished
from atlaszarr.engine.ome import Geometry
from atlaszarr.stores.target import Target
from atlaszarr.terminology.terminology import Structure, Terminology
from atlaszarr.verification import verify
from atlaszarr.writing import write_multiscales

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="only on Linux is it known that the owner of a lease has ended"
)

#: Two runs at each of two levels.
TERMINOLOGY = Terminology(tuple(Structure(id, f"S{id}", f"The {id}", "#00FF7F", (id,)) for id in range(1, 541)))


def made(folder, after=None):
    """Write masks of the annotation in a folder; this process is killed after a number of tasks."""
    done = 0

    def kill(number, *_):
        nonlocal done
        done += number > 0
        if done == after:
            os.kill(os.getpid(), signal.SIGKILL)

    target = Target.of(f"{folder}/{MASKS}")
    return write_masks(
        Finished.at(Target.of(f"{folder}/{COMPRESSED}")), target, PostOrder.of(TERMINOLOGY), workers=1, progress=kill
    )


@pytest.mark.slow
@pytest.mark.parametrize("after", [1, 3])
def test_killed_masks_are_resumed_to_the_same_bytes(tmp_path, contents, after):
    labels = np.random.default_rng(0).permutation(np.arange(16 * 16 * 16) % 540 + 1).reshape(16, 16, 16)
    target, other = tmp_path / "killed", tmp_path / "whole"
    for folder in (target, other):
        options = {"rule": "mode", "levels": 2, "chunk": 16, "geometry": Geometry((0.01,) * 3)}
        write_multiscales(labels.astype(np.uint32).repeat(2, 0), folder / COMPRESSED, **options)
    process = subprocess.run([sys.executable, __file__, target, str(after)], check=False)
    assert process.returncode == -signal.SIGKILL
    with pytest.raises(ValueError, match="NGFF version"):
        from_ngff_zarr(str(target / MASKS))
    report = made(target)
    assert (report.state, report.tasks_done) == ("resumed", 4 - after)
    assert made(other).state == "built"
    assert contents(target / MASKS) == contents(other / MASKS)
    assert verify(target / MASKS, deep=True).ok


if __name__ == "__main__":
    made(sys.argv[1], int(sys.argv[2]))

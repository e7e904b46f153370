"""The writing of a precomputed folder killed with ``kill -9``: the next run completes it to the same bytes."""

import os
import sys
import time

import numpy as np
import pytest

from atlaszarr.annotation_set.precomputed_folder import INFO, defects, write_precomputed
from atlaszarr.engine.finished_image import Finished
from atlaszarr.engine.ome import Geometry
from atlaszarr.stores.target import Target
from atlaszarr.writing import write_multiscales
from chains import PATIENCE, started
from tiny_atlas import ONTOLOGY, labels

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="only on Linux is it known that the owner of a lease has ended"),
]

SCRIPT = """
import sys
from atlaszarr.annotation_set.precomputed_folder import write_precomputed
from atlaszarr.engine.finished_image import Finished
from atlaszarr.stores.target import Target
from tiny_atlas import ONTOLOGY
write_precomputed(Finished.at(Target.of(sys.argv[1])), Target.of(sys.argv[2]), ONTOLOGY, workers=1)
"""


def count(folder):
    """The number of files in a folder, also while others are written."""
    return sum(len(names) for _, _, names in os.walk(folder))


def test_a_killed_folder_is_completed_to_the_same_bytes(tmp_path, contents):
    noise = np.random.default_rng(0).choice(np.array([0, 3, 7, 8], np.uint32), (150, 150, 150))
    noise[:40, :32, :36] = labels()
    image, target = tmp_path / "annotation.ome.zarr", tmp_path / "killed"
    write_multiscales(noise, image, rule="mode", levels=3, chunk=32, geometry=Geometry((0.025,) * 3))
    annotation = Finished.at(Target.of(image))
    write_precomputed(annotation, Target.of(tmp_path / "undisturbed"), ONTOLOGY)
    expected = contents(tmp_path / "undisturbed")
    kills = 0
    for part in (0, 0.2, 0.5, 0.75, 0.9):
        with started(
            [sys.executable, "-c", SCRIPT, str(image), str(target)], {"PYTHONPATH": ":".join(sys.path)}
        ) as child:
            end = time.monotonic() + PATIENCE
            while child.process.poll() is None and (not target.exists() or count(target) < part * len(expected)):
                assert time.monotonic() < end
                time.sleep(0.002)
            child.kill()
            kills += child.process.returncode != 0
        assert not (target / INFO).exists() or contents(target) == expected
    assert kills >= 3
    write_precomputed(annotation, Target.of(target), ONTOLOGY)
    assert contents(target) == expected
    assert defects(Target.of(target)) == []

"""Our readings of the volumes that `simpleitk_client.py` wrote next to those of SimpleITK, nibabel and pynrrd.

Run by `run.py` where atlaszarr is, after the client. VOLUMES_FOLDER holds the files and `expected.json`.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from checks import check, run

from atlaszarr.errors import InputError
from atlaszarr.reference_volumes import open_annotation

FOLDER = Path(os.environ["VOLUMES_FOLDER"])
EXPECTED = json.loads((FOLDER / "expected.json").read_text())
#: mm; headers of NIfTI are float32.
TOLERANCE = 1e-5


def ours(name):
    """Counts of the labels, voxel sizes (z, y, x) in mm, and the marked voxels in mm: posterior, inferior, right."""
    with tempfile.TemporaryDirectory() as spool:
        # A diagonal header without a unit is not believed: its sides are given, as the name of the file has them.
        sides = name.split("-")[1].partition(".")[0]
        for orientation in (None, sides):
            try:
                with open_annotation(FOLDER / name, spool, orientation=orientation) as volume:
                    values, sizes = np.asarray(volume.array), np.array(volume.voxel_size) / 1000
                break
            except InputError as error:
                if error.code != "missing-orientation" or orientation is not None:
                    raise
    labels, counts = np.unique(values, return_counts=True)
    return values, {str(label): int(count) for label, count in zip(labels, counts, strict=True) if label}, sizes


@check
def every_volume_has_the_label_counts_sizes_and_sides_that_the_others_read():
    readings = 0
    for name, readers in EXPECTED.items():
        values, counts, sizes = ours(name)
        for reader, theirs in readers.items():
            where = f"{name} by {reader}"
            assert counts == theirs["counts"], (where, counts, theirs["counts"])
            np.testing.assert_allclose(sorted(sizes), sorted(theirs["sizes"]), atol=TOLERANCE, err_msg=where)
            first, *others = theirs["points"]
            for mark in others:
                left, posterior, superior = np.subtract(theirs["points"][mark], theirs["points"][first])
                place, start = (np.argwhere(values == int(label))[0] for label in (mark, first))
                np.testing.assert_allclose(
                    (place - start) * sizes, (posterior, -superior, -left), atol=TOLERANCE, err_msg=where
                )
            readings += 1
    assert readings
    return f"{readings} readings of {len(EXPECTED)} files"


if __name__ == "__main__":
    sys.exit(run("simpleitk"))

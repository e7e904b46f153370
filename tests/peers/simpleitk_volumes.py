"""Our readings of the volumes that `simpleitk_client.py` wrote next to those of SimpleITK, nibabel and pynrrd.

And theirs of our NIfTI exports.

Run by `run.py` where atlaszarr is, after the client. VOLUMES_FOLDER holds the files and `expected.json`.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from checks import check, run

from atlaszarr.atlas.nifti_export import export_nifti
from atlaszarr.engine.finished_image import Finished
from atlaszarr.engine.ome import Geometry
from atlaszarr.engine.schedulers import Threads
from atlaszarr.errors import InputError
from atlaszarr.geometry.spaces import BRAINGLOBE_SIDES, ORIENTATION
from atlaszarr.reference_volumes import open_annotation
from atlaszarr.stores.target import Target
from atlaszarr.writing import write_multiscales

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


#: Prints what SimpleITK and nibabel make of files.
READING = """
import json, sys
from simpleitk_client import read_nibabel, read_simpleitk, reading
print(json.dumps([[reading(read, path) for read in (read_simpleitk, read_nibabel)] for path in sys.argv[1:]]))
"""


@check
def both_read_our_exports_in_their_dtype_and_where_their_images_lie():
    scale, translation = (0.1, 0.25, 0.4), (1.5, -2.25, 3.125)
    folder, expected = FOLDER / "exports", {}
    for x, sign in ((ORIENTATION["x"], 1), (BRAINGLOBE_SIDES, -1)):
        geometry = Geometry(scale, translation, orientation={**ORIENTATION, "x": x})
        for dtype in ("uint8", "uint16", "uint32", "int16", "int32", "float32", "float64"):
            values = np.zeros((20, 9, 13), dtype)
            values[3:15, 1:5, 3:10] = 3
            marks = {"7": (1, 6, 2), "9": (19, 1, 3), "11": (4, 3, 9)}
            for label, place in marks.items():
                values[place] = int(label)
            name = f"{x}-{dtype}"
            write_multiscales(values, folder / name, geometry=geometry, chunk=8, levels=1)
            with Threads(2) as scheduler:
                export_nifti(Finished.at(Target.of(folder / name)), Target.of(folder), f"{name}.nii.gz", 0, scheduler)
            points = {}
            for label, place in marks.items():
                posterior, inferior, across = (t + s * n for t, s, n in zip(translation, scale, place, strict=True))
                points[label] = [-sign * across, posterior, -inferior]
            labels, counts = np.unique(values[values > 0], return_counts=True)
            counted = {str(int(label)): int(count) for label, count in zip(labels, counts, strict=True)}
            expected[f"{folder / name}.nii.gz"] = dtype, counted, points
    command = [os.environ["PEER_PYTHON"], "-c", READING, *expected]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=200)
    for (path, (dtype, counted, points)), readers in zip(expected.items(), json.loads(ran.stdout), strict=True):
        for theirs in readers:
            assert (theirs["dtype"], theirs["counts"]) == (dtype, counted), (path, theirs)
            np.testing.assert_allclose(theirs["sizes"], scale[::-1], atol=TOLERANCE, err_msg=path)
            for label, point in points.items():
                np.testing.assert_allclose(theirs["points"][label], point, atol=TOLERANCE, err_msg=path)
    return f"{2 * len(expected)} readings of {len(expected)} exports"


if __name__ == "__main__":
    sys.exit(run("simpleitk"))

"""Files of annotations whose position in the reference space of a preview is not known."""

import nrrd
import numpy as np
import pytest
import tifffile

from atlaszarr.errors import InputError
from atlaszarr.geometry.plane import PLANES
from atlaszarr.geometry.spaces import reference_space
from atlaszarr.previews.annotation_planes import label_planes
from codes import raises
from lumps import labels

#: Columns: the direction of the axes p, i, r in left-posterior-superior, with voxels of 0.2 mm.
DIRECTIONS = 0.2 * np.array([[0, 0, -1], [1, 0, 0], [0, -1, 0]], float)


def planes(path):
    return label_planes(path, PLANES["coronal"], [5000.0], 200, reference_space(9))


@pytest.mark.parametrize("part", [np.s_[20:], np.s_[:, :, 29:], np.s_[:, :, :29], np.s_[:, 5:]])
def test_a_file_of_a_part_of_the_space_is_refused_since_it_may_lie_anywhere_in_it(part, tmp_path):
    path = tmp_path / "part.nrrd"
    header = {"space": "left-posterior-superior", "space directions": DIRECTIONS.T, "space units": ["mm"] * 3}
    nrrd.write(str(path), labels(), header)
    (plane,) = planes(path)
    np.testing.assert_array_equal(plane.labels, labels()[25])
    nrrd.write(str(path), np.ascontiguousarray(labels()[part]), header)
    with raises(InputError, "wrong-reference-space") as caught:
        planes(path)
    assert "13200 x 8000 x 11400 um" in str(caught.value)


def test_a_file_without_an_orientation_is_referred_to_a_command_that_takes_one(tmp_path):
    tifffile.imwrite(tmp_path / "v.tif", labels())
    with raises(InputError, "missing-orientation") as caught:
        planes(tmp_path / "v.tif")
    assert "only `atlaszarr atlas` takes these options" in str(caught.value)

"""Headers that record a size twice and differently, or with a sign that nothing explains."""

import numpy as np
import pytest

from atlaszarr.errors import InputError
from atlaszarr.reference_volumes import open_annotation
from codes import raises
from lumps import labels

BODY = labels().tobytes(order="F")
NRRD = (
    "NRRD0005\ntype: uint32\ndimension: 3\nsizes: 66 40 57\nendian: little\nencoding: raw\nspacings: {}\n"
    "space: left-posterior-superior\nspace directions: (0,0.2,0) (0,0,-0.2) (-0.2,0,0)\n\n"
)
METAIMAGE = (
    "NDims = 3\nBinaryData = True\nDimSize = 66 40 57\nElementSpacing = {}\nElementType = MET_UINT\n"
    "ElementDataFile = LOCAL\n"
)


@pytest.mark.parametrize("spacings", ["0.1 0.1 0.1", "200 200 200", "0.2 0.2 0.4"])
def test_spacings_that_contradict_the_directions_of_an_nrrd_are_refused(spacings, tmp_path):
    path = tmp_path / "a.nrrd"
    path.write_bytes(NRRD.format(spacings).encode() + BODY)
    with raises(InputError, "contradictory-header") as caught, open_annotation(path, tmp_path):
        pass
    assert f"{' x '.join(spacings.split())} by its spacings" in str(caught.value)
    with open_annotation(path, tmp_path, orientation="asl", voxel_size=200) as found:
        np.testing.assert_array_equal(found.array, labels())


@pytest.mark.parametrize("spacings", ["0.2 0.2 0.2", "nan nan nan"])
def test_spacings_that_agree_with_the_directions_or_are_left_out_are_none(spacings, tmp_path):
    path = tmp_path / "a.nrrd"
    path.write_bytes(NRRD.format(spacings).encode() + BODY)
    with open_annotation(path, tmp_path) as found:
        assert found.voxel_size == (200.0, 200.0, 200.0)


def test_a_negative_spacing_of_a_metaimage_without_a_matrix_is_refused(tmp_path):
    """ITK flips such an axis; without a matrix nothing tells from which side."""
    path = tmp_path / "a.mha"
    path.write_bytes(METAIMAGE.format("-200 200 200").encode() + BODY)
    with raises(InputError, "missing-orientation") as caught, open_annotation(path, tmp_path):
        pass
    assert "voxels of -200 x 200 x 200" in str(caught.value)
    path.write_bytes(METAIMAGE.format("200 200 200").encode() + BODY)
    with open_annotation(path, tmp_path) as found:
        assert found.is_ccf

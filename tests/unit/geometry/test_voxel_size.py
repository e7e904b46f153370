"""A voxel size that a caller gives."""

import math

import numpy as np
import pytest

from atlaszarr import region_volumes
from atlaszarr.errors import InputError
from atlaszarr.geometry.voxel_size import lengths_of
from codes import raises
from lumps import ROWS, labels


@pytest.mark.parametrize("size", [200, 200.0, (200, 200, 200), np.full(3, 200), [200], 0.001, 1e6])
def test_one_length_or_three_are_a_voxel_size(size):
    assert lengths_of(size) == tuple(float(length) for length in np.broadcast_to(size, 3))


@pytest.mark.parametrize(
    "size", [0, -1, 1e-4, 1e7, 1e308, 5e-324, math.inf, math.nan, True, (1, 2), (1, 2, 0), "x", None, {}]
)
def test_a_length_that_no_voxel_has_is_refused(size):
    with raises(InputError, "invalid-voxel-size") as caught:
        lengths_of(size)
    assert repr(size) in str(caught.value)


@pytest.mark.parametrize("given", [3, {}, b"x", ROWS])
def test_a_terminology_of_another_type_is_refused(given):
    with raises(InputError, "wrong-type") as caught:
        region_volumes(labels(), given, voxel_size=200)
    assert type(given).__name__ in str(caught.value)

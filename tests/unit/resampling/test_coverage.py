"""The extent of the points of an affine inside an image, against all points of the field."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from atlaszarr.displacement.fields import AffineField
from atlaszarr.resampling.coverage import extent_inside

STEP = st.one_of(st.sampled_from([0.0, 1.0, -1.0, 0.5, -2.0]), st.floats(-3, 3))
OFFSET = st.one_of(st.integers(-40, 40).map(lambda n: n / 2), st.floats(-40, 40))


@given(
    STEP, STEP, OFFSET, STEP, STEP, OFFSET, st.tuples(*[st.integers(1, 40)] * 2), st.tuples(*[st.integers(0, 20)] * 4)
)
def test_the_extent_is_that_of_all_points_inside_the_image(a, b, c, d, e, f, size, block):
    top, left, height, width = block
    rows, columns = slice(top, top + height + 1), slice(left, left + width + 1)
    field = AffineField((100, 100), ((a, b, c), (d, e, f)))
    x, y = field.coordinates(rows, columns)
    inside = (x >= -0.5) & (x < size[0] - 0.5) & (y >= -0.5) & (y < size[1] - 0.5)
    extent = extent_inside(field.matrix, size, rows, columns)
    if not inside.any():
        assert extent is None
    else:
        expected = [[axis[inside].min(), axis[inside].max()] for axis in (x, y)]
        np.testing.assert_array_equal(extent, expected)


def test_a_whole_block_is_bounded_by_its_corners():
    turned = math.radians(3)
    matrix = ((math.cos(turned), -math.sin(turned), 900.0), (math.sin(turned), math.cos(turned), 300.0))
    extent = extent_inside(matrix, (34_000, 27_000), slice(1000, 1512), slice(2048, 2560))
    corners = AffineField((9000, 9000), matrix).coordinates(slice(1000, 1512), slice(2048, 2560))[:, ::511, ::511]
    np.testing.assert_array_equal(extent, np.stack([corners.min(axis=(1, 2)), corners.max(axis=(1, 2))], axis=1))

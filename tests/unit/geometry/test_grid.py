"""Spaces and grids: extents, centres, the physical origin, and the common frame of spaces 9 and 10."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlaszarr.boxes import blocks
from atlaszarr.errors import InputError
from atlaszarr.geometry.grid import Grid
from atlaszarr.geometry.spaces import reference_space
from atlaszarr.transforms import apply
from codes import raises


@pytest.mark.parametrize(
    ("resolution", "shape"),
    [(10, (1320, 800, 1140)), (25, (528, 320, 456)), (50, (264, 160, 228)), (100, (132, 80, 114))],
)
def test_adult_grids_have_the_published_shapes(resolution, shape):
    assert Grid(reference_space(9), resolution).shape == shape


@pytest.mark.parametrize(
    ("id", "anchor", "shape"),
    [(1, 80, (70, 75, 40)), (6, 160, (77, 43, 50)), (7, 200, (68, 40, 50)), (8, 200, (73, 41, 53))],
)
def test_the_anchor_of_a_developing_age_is_the_voxel_size_of_its_grid(id, anchor, shape):
    space = reference_space(id)
    assert space.anchor == anchor
    assert Grid(space, anchor).shape == shape
    assert Grid(space, anchor).physical(0)[0] == 0


@given(st.sampled_from([10.0, 25.0, 37.5, 50.0, 100.0, 200.0]), st.integers(0, 2))
def test_p_um_is_1000_mm_plus_half_the_anchor(resolution, axis):
    grid = Grid(reference_space(9), resolution)
    np.testing.assert_allclose(grid.centres(axis), 1000 * grid.physical(axis) + 5.0, rtol=0, atol=1e-9)


def test_a_voxel_is_sampled_at_its_centre():
    grid = Grid(reference_space(9), 25)
    np.testing.assert_array_equal(apply(grid.to_reference, [0, 1, 455]), [12.5, 37.5, 11387.5])


def test_spaces_9_and_10_are_one_frame_and_a_mirror_is_its_own_inverse():
    nine, ten = reference_space(9), reference_space(10)
    assert ten.frame == nine.frame == nine
    assert reference_space(6).frame == reference_space(6)
    np.testing.assert_array_equal(apply(nine.mirror, [1000, 2000, 3000]), [1000, 2000, 8400])
    np.testing.assert_array_equal(apply(nine.mirror, apply(nine.mirror, [1000, 2000, 3000])), [1000, 2000, 3000])


@pytest.mark.parametrize(
    ("shape", "size", "covered"),
    [
        ((528, 320, 456), 25, True),
        ((67, 41, 58), 200, True),  # the expression grids of the API
        ((66, 40, 57), 200, True),
        ((67, 41, 60), 200, False),
        ((456, 320, 528), 25, False),
        ((528, 320, 456), 10, False),
    ],
)
def test_the_ccf_is_identified_by_its_extent(shape, size, covered):
    assert reference_space(9).is_covered(shape, (size,) * 3) == covered


@pytest.mark.parametrize("id", [0, 4, 11])
def test_a_space_without_a_published_grid_is_refused_by_name(id):
    with raises(InputError, "unknown-reference-space") as caught:
        reference_space(id)
    assert f"reference space {id} " in str(caught.value)


@pytest.mark.parametrize("resolution", [0, -25, float("nan"), float("inf"), 9000])
def test_an_impossible_resolution_is_refused(resolution):
    with raises(InputError, "out-of-range"):
        Grid(reference_space(9), resolution)


@given(st.tuples(*(st.integers(1, 40),) * 3), st.integers(1, 17))
def test_blocks_partition_an_array(shape, size):
    count = np.zeros(shape, int)
    for _, region in blocks(shape, size):
        count[region] += 1
    assert (count == 1).all()

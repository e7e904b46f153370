"""Splitting an index into a box and an index of the box."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlaszarr.boxes import split_index
from indexing import indices


@given(st.data())
def test_an_index_equals_the_index_of_its_box(data):
    shape = tuple(data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=4)))
    index = data.draw(st.one_of(indices(shape), indices(shape, lists=9)))
    whole = np.arange(np.prod(shape)).reshape(shape)
    try:
        wanted = whole[index]
    except IndexError:  # lists of different lengths
        return
    box, rest = split_index(index, shape)
    assert all(0 <= axis.start <= axis.stop <= n and axis.step is None for axis, n in zip(box, shape, strict=True))
    np.testing.assert_array_equal(whole[box][rest], wanted)
    assert type(whole[box][rest]) is type(wanted)


@pytest.mark.parametrize("index", [4, -5, (0, 0, 0), ([4],), np.ones((4, 2), bool)], ids=str)
def test_an_index_out_of_bounds_raises_the_same_error_as_numpy(index):
    with pytest.raises(IndexError):
        np.empty((4, 3))[index]
    with pytest.raises(IndexError):
        np.empty((4, 3))[split_index(index, (4, 3))[0]][split_index(index, (4, 3))[1]]


@pytest.mark.parametrize("index", [[True, False, True, True], np.eye(4, 3, dtype=bool), (..., True), ()], ids=str)
def test_an_index_may_be_a_mask(index):
    whole = np.arange(12).reshape(4, 3)
    box, rest = split_index(index, (4, 3))
    np.testing.assert_array_equal(whole[box][rest], whole[index])

"""Counts of labels against NumPy's, whatever the dtype, the layout and the midline."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from atlaszarr.engine.label_counts import count_labels, merged
from atlaszarr.errors import InputError
from codes import raises

DTYPES = ["?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", ">u4", ">i8"]


def oracle(block, midline=0):
    """The labels, their voxels, and those among the first columns."""
    ids, voxels = np.unique(block, return_counts=True)
    before = block[..., : max(midline, 0)]
    return ids, voxels, np.array([np.count_nonzero(before == one) for one in ids], np.int64)


def assert_equal(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@st.composite
def labelled_blocks(draw):
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=9))
    values = hnp.from_dtype(dtype) if draw(st.booleans()) else st.sampled_from(np.array([0, 1, 1, 3]).astype(dtype))
    block = draw(hnp.arrays(dtype, shape, elements=values))
    axes = draw(st.permutations(range(block.ndim)))
    steps = draw(st.tuples(*[st.sampled_from([1, 2, -1])] * block.ndim))
    return block.transpose(axes)[tuple(slice(None, None, step) for step in steps)]


@given(labelled_blocks(), st.integers(-2, 12))
def test_counts_are_those_of_numpy_on_either_side_of_any_midline(block, midline):
    found = count_labels(block, midline)
    assert_equal(found, oracle(block, midline))
    assert found.ids.dtype == block.dtype.newbyteorder("=")
    assert {found.voxels.dtype, found.low.dtype} == {np.dtype(np.int64)}


@pytest.mark.parametrize("dtype", ["u4", "i8", "u8"])
def test_many_large_labels_are_all_counted(dtype):
    most = np.iinfo(dtype).max
    labels = np.random.default_rng(0).integers(2**31, most, 5000, dtype, endpoint=True)
    block = np.repeat(labels, 3).reshape(10, 10, 150)[:, ::-1]
    assert_equal(count_labels(block, 75), oracle(block, 75))


def test_counting_does_not_change_the_block():
    block = np.arange(8, dtype=np.uint32).reshape(2, 2, 2)
    count_labels(block)
    assert block.flags.writeable


@given(st.lists(hnp.arrays("u4", (2, 3), elements=st.integers(0, 4)), min_size=1, max_size=5), st.integers(0, 3))
def test_merged_counts_equal_the_counts_of_all_blocks_together(blocks, midline):
    whole = np.concatenate(blocks)
    assert_equal(merged([count_labels(block, midline) for block in blocks]), oracle(whole, midline))


def test_no_block_has_no_labels():
    assert [len(column) for column in merged([])] == [0, 0, 0]
    assert [len(column) for column in merged([count_labels(np.empty((0, 4), np.uint8))])] == [0, 0, 0]


@pytest.mark.parametrize("block", [np.zeros((2, 2)), np.zeros((), int), np.zeros(2, complex)], ids=str)
def test_a_block_that_does_not_hold_labels_is_refused(block):
    with raises(InputError, "not-labels"):
        count_labels(block)

"""Indices of labels and boxes of indices, against NumPy."""

import numpy as np
import pytest

from atlaszarr.annotation_set.structure_index import NOTHING, extents, indices_of
from atlaszarr.annotation_set.structure_order import PostOrder

DTYPES = ["?", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", ">u4"]
#: Some of them are equal in float64.
VALUES = (7, 1, 120, 3, 2**16 - 2, 2**31 - 1, 2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1)
ORDER = PostOrder(VALUES, tuple(range(len(VALUES))))


def drawn(dtype, shape):
    """Labels with and without an index, of both signs, in runs along x."""
    some = np.array(VALUES, object)
    limits = (0, 1) if dtype == "?" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    pool = [int(value) for value in (*some, *(some - 1), 0, -1, *limits) if limits[0] <= value <= limits[1]]
    rng = np.random.default_rng(3)
    chosen = np.array(pool, object)[rng.integers(0, len(pool), (*shape[:2], -(-shape[2] // 3)))]
    return np.repeat(chosen, 3, axis=2)[:, :, : shape[2]].astype(dtype)


@pytest.mark.parametrize("shape", [(4, 5, 70), (0, 2, 3), (2, 0, 3), (2, 3, 0), (1, 1, 1)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_each_label_has_the_index_of_its_structure(dtype, shape):
    labels = drawn(dtype, shape)
    indices, present = indices_of(labels, ORDER)
    expected = [VALUES.index(value) if value in VALUES else NOTHING for value in labels.ravel().tolist()]
    assert (indices.dtype, indices.shape) == (np.uint16, shape)
    assert indices.ravel().tolist() == expected
    assert np.flatnonzero(present).tolist() == sorted({index for index in expected if index != NOTHING})


def test_more_labels_than_a_chunk_holds_are_found():
    values = np.random.default_rng(4).permutation(np.arange(1, 30_000, 3))
    labels = np.arange(30_000, dtype=np.uint32).reshape(10, 30, 100)
    indices, present = indices_of(labels, PostOrder(tuple(values.tolist()), tuple(range(len(values)))))
    known = indices != NOTHING
    np.testing.assert_array_equal(known, labels % 3 == 1)
    np.testing.assert_array_equal(values[indices[known]], labels[known])
    assert present.all()


def test_labels_need_not_be_contiguous():
    labels = drawn("u2", (6, 5, 40))
    np.testing.assert_array_equal(
        indices_of(labels[::2, :, ::-1], ORDER)[0], indices_of(labels, ORDER)[0][::2, :, ::-1]
    )


@pytest.mark.parametrize("shape", [(4, 5, 70), (0, 2, 3), (2, 3, 0)])
def test_an_extent_is_the_number_and_the_box_of_the_voxels(shape):
    indices = np.random.default_rng(5).choice(np.array([0, 2, 3, NOTHING], np.uint16), shape, p=[0.01, 0.2, 0.2, 0.59])
    found = extents(indices, 4)
    assert (found.dtype, found.shape) == (np.int64, (4, 7))
    for index, (voxels, *box) in enumerate(found.tolist()):
        where = np.argwhere(indices == index)
        assert voxels == len(where)
        assert box == ([*where.min(axis=0), *where.max(axis=0)] if voxels else [2**62] * 3 + [-1] * 3)

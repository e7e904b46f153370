"""Rows of any length: kernels take many voxels of a row at once, and its end by another way."""

from fractions import Fraction

import numpy as np
import pytest

from atlaszarr.engine.downsampling import reduce
from atlaszarr.engine.label_counts import count_labels

INTEGERS = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8"]
LENGTHS = [1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 66, 127, 131]
TWO, WIDE = (Fraction(2),) * 3, (Fraction(2), Fraction(1), Fraction(2))


def labels(shape, dtype, seed=0):
    """Regions with some voxels of others, and with the smallest and the largest label of the dtype."""
    rng = np.random.default_rng(seed)
    few = np.array([0, 0, 1, 2, np.iinfo(dtype).min, np.iinfo(dtype).max], dtype)
    regions = few[np.add.outer(rng.integers(0, 2, shape[:-1]), np.arange(shape[-1]) // 11) % len(few)]
    return np.where(rng.random(shape) < 0.3, rng.choice(few, shape), regions)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("factor", [TWO, WIDE], ids=["eight", "four"])
@pytest.mark.parametrize("rule", ["mode", "mode_of_nonzero"])
def test_the_mode_of_a_row_is_that_of_each_of_its_voxels_alone(dtype, length, factor, rule):
    values = labels((3, 4, length), dtype)
    whole = reduce(values, factor, rule)
    for x in range(whole.shape[-1]):
        alone = reduce(values[..., 2 * x : 2 * x + 2], factor, rule, origin=(0, 0, x), level_shape=whole.shape)
        assert np.array_equal(whole[..., x : x + 1], alone)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("dtype", [*INTEGERS, "f4", "f8"])
@pytest.mark.parametrize("masked", [False, True], ids=["all", "masked"])
def test_the_mean_of_a_row_is_that_of_each_of_its_voxels_alone(dtype, length, masked):
    values = labels((3, 4, length), "i4" if dtype[0] == "f" else dtype).astype(dtype)
    mask = np.random.default_rng(1).random(values.shape) < 0.3 if masked else None
    whole = reduce(values, TWO, "mean", mask=mask)
    for x in range(whole.shape[-1]):
        part = np.s_[..., 2 * x : 2 * x + 2]
        alone = reduce(values[part], TWO, "mean", mask=None if mask is None else mask[part])
        assert np.array_equal(whole[..., x : x + 1], alone)


@pytest.mark.parametrize("factor", [Fraction(1), Fraction(2)])
def test_the_largest_numbers_of_floating_point_have_a_mean(factor):
    largest = np.full((2, 1, 3), np.finfo(np.float64).max)
    largest[1] *= -1
    level = reduce(largest, (Fraction(2), factor, Fraction(2)), "mean")
    assert level.tolist() == [[[0, 0]]]
    assert not np.signbit(reduce(np.full((2, 2, 2), -0.0), TWO, "mean")).any()


@pytest.mark.parametrize("dtype", ["u1", "u4", "i8"])
def test_a_mask_of_bool_with_bytes_other_than_0_and_1_counts_each_voxel_once(dtype):
    mask = np.array([[[0, 1, 2, 255]] * 2] * 2, np.uint8)
    values = np.arange(1, 17).reshape(2, 2, 4).astype(dtype)
    expected = reduce(values, TWO, "mean", mask=mask != 0)
    assert np.array_equal(reduce(values, TWO, "mean", mask=mask.view(np.bool_)), expected)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("dtype", INTEGERS)
def test_the_labels_of_a_row_are_counted_before_and_after_any_midline(dtype, length):
    block = labels((3, 4, length), dtype)
    ids, voxels = np.unique(block, return_counts=True)
    for midline in {0, 1, 7, length // 2, length - 1, length}:
        found = count_labels(block, midline)
        assert found.ids.tolist() == ids.tolist()
        assert found.voxels.tolist() == voxels.tolist()
        assert found.low.tolist() == [np.count_nonzero(block[..., :midline] == label) for label in ids]


@pytest.mark.parametrize("number", [127, 128, 129, 256, 257, 1000])
def test_more_labels_than_the_table_holds_are_counted_once_each(number):
    row = np.tile(np.arange(number, dtype=np.uint32) * 2**20, 3)
    found = count_labels(np.stack([row, row[::-1]]), number)
    assert found.ids.tolist() == sorted(set(row.tolist()))
    assert set(found.voxels.tolist()) == {6}
    assert set(found.low.tolist()) == {2}

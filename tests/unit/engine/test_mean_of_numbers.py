"""The rule `mean_of_numbers`: NaN is no data."""

from fractions import Fraction

import numpy as np
import pytest

from atlaszarr.engine.downsampling import reduce
from atlaszarr.errors import InputError
from atlaszarr.verification import verify
from atlaszarr.writing import write_multiscales
from codes import raises

TWO, LONG = (Fraction(2),) * 3, (Fraction(5, 2),) * 3


def values(dtype=np.float32):
    rng = np.random.default_rng(5)
    found = rng.normal(10, 3, (2, 15, 10, 20)).astype(dtype)
    found[rng.random(found.shape) < 0.6] = np.nan
    found[0, :4, :4, :4] = np.nan
    return found


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_voxel_is_the_mean_of_the_numbers_of_its_channel(dtype):
    parent = values(dtype)[:, :14]
    level = reduce(parent, TWO, "mean_of_numbers")
    eight = parent.reshape(2, 7, 2, 5, 2, 10, 2).transpose(0, 1, 3, 5, 2, 4, 6).reshape(2, 7, 5, 10, 8)
    count = (~np.isnan(eight)).sum(axis=-1)
    expected = np.where(count > 0, np.nansum(eight, axis=-1, dtype=np.float64) / np.maximum(count, 1), np.nan)
    np.testing.assert_allclose(level, expected, rtol=1e-6)
    assert np.isnan(level[0, :2, :2, :2]).all()
    assert not np.isnan(level[1, :2, :2, :2]).all()
    assert level.dtype == dtype


def test_without_nan_it_is_the_mean():
    parent = np.nan_to_num(values())
    for factor in (TWO, LONG):
        assert np.array_equal(reduce(parent, factor, "mean_of_numbers"), reduce(parent, factor, "mean"))
        assert np.array_equal(reduce(parent[0], factor, "mean_of_numbers"), reduce(parent[0], factor, "mean"))


def test_integers_have_no_nan_and_are_refused(tmp_path):
    with raises(InputError, "unsupported-dtype"):
        reduce(np.zeros((4, 4, 4), np.uint8), TWO, "mean_of_numbers")
    with raises(InputError, "unsupported-dtype"):
        write_multiscales(np.zeros((4, 4, 4), np.uint8), tmp_path / "x.ome.zarr", rule="mean_of_numbers")


def test_an_image_with_nan_is_written_and_verified(tmp_path):
    write_multiscales(values(), tmp_path / "x.ome.zarr", rule="mean_of_numbers", chunk=8)
    assert verify(tmp_path / "x.ome.zarr", deep=True).ok


@pytest.mark.parametrize("factor", [TWO, LONG])
def test_a_mask_leaves_out_further_values_and_where_none_counts_the_mean_is_that_of_all(factor):
    parent = values()
    mask = np.random.default_rng(6).integers(0, 2, parent.shape[1:]).astype(np.uint32)
    mask[:, 5:] = 0
    level = reduce(parent, factor, "mean_of_numbers", mask=mask)
    hidden = np.where(mask == 0, np.nan, parent)
    numbers, plain = reduce(hidden, factor, "mean_of_numbers"), reduce(parent, factor, "mean")
    np.testing.assert_array_equal(level, np.where(np.isnan(numbers), plain, numbers))
    assert not np.isnan(numbers).all()


def test_an_image_without_channels_has_levels_without_channels():
    assert reduce(np.empty((0, 2, 2, 2), "f4"), TWO, "mean_of_numbers").shape == (0, 1, 1, 1)

"""Sums of a block by label, against NumPy."""

import numpy as np
import pytest

from atlaszarr.regions.block_sums import COVERED, EXPRESSING, EXPRESSION_COVERED, GREY, PAIRED, VOXELS, sum_block

SHAPE = (3, 7, 70)


def drawn(dtype, shape, seed, values=4):
    """Integers of a dtype, some of them its limits, in runs along x."""
    rng = np.random.default_rng(seed)
    runs = rng.integers(0, 2 if dtype == "?" else values, (*shape[:-1], -(-shape[-1] // 5)))
    found = np.repeat(runs, 5, axis=-1)[..., : shape[-1]].astype(dtype)
    if dtype != "?":
        limits = np.iinfo(dtype)
        found[rng.random(shape) < 0.1], found[rng.random(shape) < 0.1] = limits.min, limits.max
    return found


def picture(dtype, shape, seed=5):
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "u":
        return rng.integers(0, np.iinfo(dtype).max, shape, endpoint=True).astype(dtype)
    return np.where(rng.random(shape) < 0.1, np.nan, rng.normal(100, 300, shape)).astype(dtype)


def assert_equal(labels, image, section, expression, other, midline):
    """Compare the sums of every label and side with those of NumPy over its voxels."""
    found = sum_block(labels, image, section, expression, other, midline)
    assert found.ids.dtype == (np.uint8 if labels.dtype == bool else labels.dtype.newbyteorder("="))
    assert sorted(found.ids.tolist()) == sorted({int(label) for label in labels.ravel().tolist()} - {0})
    low = np.broadcast_to(np.arange(labels.shape[-1]) < midline, labels.shape)
    for row, label in enumerate(found.ids):
        for side in range(2):
            here = (labels == label) & (low if side == 0 else ~low)
            counts = [0] * 6
            counts[VOXELS], counts[COVERED] = here.sum(), (here & (section != 0)).sum()
            if expression is not None:
                expresses = here & (other != 0) & expression.any(axis=0)
                paired = expresses & (other == section) & np.isfinite(image).all(axis=0)
                level = np.trunc(np.where(paired, image, 0)).astype(np.int64).sum(axis=0)
                counts[EXPRESSION_COVERED], counts[EXPRESSING] = (here & (other != 0)).sum(), expresses.sum()
                counts[PAIRED] = paired.sum()
                counts[GREY] = np.where(paired, (level + 1) // 3 if len(image) == 3 else level, 0).sum()
            assert found.counts[row, side].tolist() == counts
            for channel, values in enumerate(image):
                summed = values[here & (section != 0) & ~np.isnan(values)]
                assert found.values[row, side, channel] == summed.size
                moments = found.moments[row, side, channel]
                if image.dtype.kind == "u":
                    exact = [int(value) for value in summed]
                    assert moments.tolist() == [sum(exact), sum(value * value for value in exact)]
                elif summed.size:
                    mean = summed.mean(dtype=np.float64)
                    np.testing.assert_allclose(moments, [mean, np.square(summed - mean).sum()], rtol=1e-9)


@pytest.mark.parametrize("dtype", ["?", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", ">u4"])
def test_labels_of_any_integers_are_summed(dtype):
    image, section = picture("u1", (1, *SHAPE)), drawn("u1", SHAPE, 2)
    assert_equal(drawn(dtype, SHAPE, 1), image, section, None, None, 31)


@pytest.mark.parametrize("other", ["?", "u2", "i8"])
@pytest.mark.parametrize("dtype", ["?", "u1", "i2", "u8", ">u2"])
def test_sections_of_any_integers_are_compared_as_numbers(dtype, other):
    image, expression = picture("u1", (3, *SHAPE)), drawn("u1", (3, *SHAPE), 4, values=2)
    assert_equal(drawn("u4", SHAPE, 1), image, drawn(dtype, SHAPE, 2), expression, drawn(other, SHAPE, 3), 31)


@pytest.mark.parametrize("channels", [0, 1, 3, 4])
@pytest.mark.parametrize("dtype", ["u1", "u2", "f4", "f8", ">u2", ">f4"])
def test_images_of_any_number_of_channels_are_summed(dtype, channels):
    image, expression = picture(dtype, (channels, *SHAPE)), drawn("u1", (2, *SHAPE), 4, values=2)
    section = drawn("u2", SHAPE, 2)
    assert_equal(drawn("u4", SHAPE, 1), image, section, expression, section, 31)


@pytest.mark.parametrize("midline", [-3, 0, 1, 70, 90])
def test_the_midline_may_lie_beyond_the_block(midline):
    assert_equal(drawn("u4", SHAPE, 1), picture("u1", (1, *SHAPE)), drawn("u1", SHAPE, 2), None, None, midline)


@pytest.mark.parametrize("shape", [(0, 2, 3), (2, 0, 3), (2, 3, 0), (1, 1, 1)])
def test_a_block_may_have_no_voxels(shape):
    image, section = picture("f4", (2, *shape)), drawn("u1", shape, 2)
    assert_equal(drawn("u4", shape, 1), image, section, None, None, 1)


def test_a_block_may_have_a_label_for_each_voxel():
    labels = np.random.default_rng(6).permutation(24_000).astype(np.uint32).reshape(10, 40, 60)
    image = picture("u2", (1, *labels.shape))
    found = sum_block(labels, image, np.ones(labels.shape, bool), None, None, 20)
    order = np.argsort(found.ids)
    np.testing.assert_array_equal(found.ids[order], np.arange(1, 24_000))
    values = np.zeros(24_000, np.uint64)
    values[labels] = image[0]
    np.testing.assert_array_equal(found.moments[order, :, 0, 0].sum(axis=1), values[1:])
    np.testing.assert_array_equal(found.moments[order, :, 0, 1].sum(axis=1), values[1:] ** np.uint64(2))
    assert found.counts[:, 0, VOXELS].sum() == 10 * 40 * 20 - (labels[..., :20] == 0).sum()


@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_sums_of_a_long_row_of_the_largest_values_are_exact(dtype):
    shape, most = (1, 1, 200_000), int(np.iinfo(dtype).max)
    found = sum_block(np.ones(shape, "u1"), np.full((1, *shape), most, dtype), np.ones(shape, "u1"), None, None, 0)
    assert found.moments[0, 1, 0].tolist() == [200_000 * most, 200_000 * most**2]


def test_arrays_need_not_be_contiguous():
    labels, section = drawn("u4", SHAPE, 1), drawn("u2", SHAPE, 2)
    image, expression = picture("f4", (3, *SHAPE)), drawn("u1", (3, *SHAPE), 4, values=2)
    part = (slice(None, None, 2), slice(None), slice(None, None, -1))
    arrays = labels[part], image[:, *part], section[part], expression[:, *part], section[part]
    for one, other in zip(sum_block(*arrays, 9), sum_block(*map(np.copy, arrays), 9), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_a_voxel_without_a_finite_level_has_no_part_in_the_intensity(value):
    image = np.full((3, 1, 1, 4), 7.9, np.float32)
    image[1, 0, 0, 2] = value
    ones = np.ones((1, 1, 4), np.uint8)
    found = sum_block(ones, image, ones, ones[np.newaxis], ones, 0)
    assert found.counts[0, 1].tolist() == [4, 4, 4, 4, 3, 3 * 7]


def test_an_expression_view_of_any_dtype_expresses_where_it_is_not_0():
    labels, section = drawn("u4", SHAPE, 1), drawn("u2", SHAPE, 2)
    image, expression = picture("u1", (3, *SHAPE)), drawn("u1", (3, *SHAPE), 4, values=2)
    wanted = sum_block(labels, image, section, expression, section, 9)
    for dtype in ("u2", "f4", "?"):
        found = sum_block(labels, image, section, (expression != 0).astype(dtype) * np.dtype(dtype).type(1), section, 9)
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("which", [0, 1])
def test_a_section_of_another_shape_is_refused(which):
    ones = np.ones((4, 10, 100), np.uint8)
    sections = [ones, ones]
    sections[which] = np.ones((1, 1, 1), np.uint8)
    with pytest.raises(ValueError, match="reshape"):
        sum_block(ones, ones[np.newaxis], sections[0], ones[np.newaxis], sections[1], 0)

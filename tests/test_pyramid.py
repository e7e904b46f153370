"""Pyramid geometry and reduction against plain NumPy, exactly."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlaszarr.errors import InputError
from atlaszarr.pyramid import Occupancy, Pyramid, children, coarsen, parents


def coarsened(image, label, background):
    """One voxel at a time, from the rule as it is documented."""
    shape = tuple(-(-n // 2) for n in label.shape)
    coarse_image = np.full((image.shape[0], *shape), background, image.dtype)
    coarse_label = np.zeros(shape, label.dtype)
    for z, y, x in np.ndindex(*shape):
        window = tuple(slice(2 * i, 2 * i + 2) for i in (z, y, x))
        labels = label[window]
        covered = labels != 0
        if covered.any():
            counts = Counter(labels[covered].tolist())
            coarse_label[z, y, x] = min(counts, key=lambda value: (-counts[value], value))
            for c in range(image.shape[0]):
                values = image[c][window][covered].astype(np.int64)
                coarse_image[c, z, y, x] = round(int(values.sum()) / len(values))  # Python rounds half to even
    return coarse_image, coarse_label


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(*(st.integers(1, 7),) * 3),
    st.integers(1, 3),
    st.sampled_from([np.uint8, np.uint16]),
    st.integers(0, 255),
    st.integers(0, 2**32 - 1),
    st.sampled_from([1, 3, 2**32 - 2]),
)
def test_coarsening_equals_the_rule_voxel_by_voxel(shape, channels, dtype, background, seed, largest):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (channels, *shape)).astype(dtype)
    label = (rng.integers(0, 4, shape) * (largest // 3 or 1)).astype(np.uint32)
    found, expected = coarsen(image, label, background), coarsened(image, label, background)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])
    assert found[0].dtype == dtype


def test_a_tissue_edge_gets_no_dark_halo():
    image = np.full((3, 4, 4, 4), 240, np.uint8)
    label = np.full((4, 4, 4), 7, np.uint32)
    image[:, :, :, 1:], label[:, :, 1:] = 0, 0
    coarse, section = coarsen(image, label, 0)
    assert set(coarse[..., 0].ravel()) == {240}
    assert set(coarse[..., 1].ravel()) == {0}
    np.testing.assert_array_equal(section != 0, coarse[0] != 0)


@given(st.tuples(*(st.integers(1, 900),) * 3), st.sampled_from([16, 32, 64]))
def test_the_last_level_of_an_automatic_pyramid_is_the_first_that_fits_a_chunk(shape, chunk):
    pyramid = Pyramid.over(shape, chunk)
    assert max(pyramid.level_shape(pyramid.levels - 1)) <= chunk
    assert pyramid.levels == 1 or max(pyramid.level_shape(pyramid.levels - 2)) > chunk


@given(st.tuples(*(st.integers(1, 300),) * 3), st.integers(0, 2**32 - 1))
def test_a_chunk_is_occupied_exactly_where_something_below_it_is(shape, seed):
    pyramid = Pyramid.over(shape, 16)
    rng = np.random.default_rng(seed)
    grid = pyramid.chunks(0)
    base = frozenset(index for index in np.ndindex(*grid) if rng.random() < 0.2)
    occupancy = Occupancy(pyramid, base)
    for level in range(1, pyramid.levels):
        below = occupancy.levels[level - 1]
        for index in np.ndindex(*pyramid.chunks(level)):
            assert (index in occupancy.levels[level]) == any(child in below for child in children(index))
    assert parents(base) == (set(occupancy.levels[1]) if pyramid.levels > 1 else parents(base))


def test_a_chunk_of_a_level_covers_two_chunks_of_its_parent_along_every_axis():
    pyramid = Pyramid.over((528, 320, 456), 64)
    assert [pyramid.level_shape(level) for level in range(pyramid.levels)] == [
        (528, 320, 456),
        (264, 160, 228),
        (132, 80, 114),
        (66, 40, 57),
        (33, 20, 29),
    ]
    block = pyramid.region(0, (1, 2, 3), chunks=2)
    assert [(axis.start // 2, -(-axis.stop // 2)) for axis in block] == [
        (axis.start, axis.stop) for axis in pyramid.region(1, (1, 2, 3))
    ]


@pytest.mark.parametrize(("chunk", "levels"), [(4, None), (4096, None), (64, 0), (64, 40)])
def test_impossible_chunks_and_levels_are_refused(chunk, levels):
    with pytest.raises(InputError, match=r"chunk|levels"):
        Pyramid.over((528, 320, 456), chunk, levels)

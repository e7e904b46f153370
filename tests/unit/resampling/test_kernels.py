"""The compiled kernels of resampling where they take another way than for one pixel in the middle of an image."""

import math
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlaszarr.resampling.kernels import border_range, extent
from atlaszarr.resampling.sampler import footprint, resample
from atlaszarr.resampling.weights import BORDERS

PADDING = {"replicate": "edge", "reflect": "symmetric", "reflect_101": "reflect", "wrap": "wrap"}
INTERPOLATIONS = ["nearest", "linear", "cubic", "lanczos"]


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("below", [2.0**-53, 2.0**-52, 2.0**-51])
def test_a_coordinate_that_is_rounded_to_the_next_pixel_samples_it(interpolation, below):
    image = np.array([[10, 20, 200, 30]] * 2, np.uint8)
    xy = np.array([[[2 - 2 * below, 1 - below, 0 - below]], [[0, 1 - below, 0]]])
    assert resample(image, xy, interpolation, "replicate").tolist() == [[200, 20, 10]]
    left, top, right, bottom = footprint(xy, (4, 2), interpolation, "replicate")
    part = image[top:bottom, left:right]
    sampled = resample(part, xy, interpolation, "replicate", origin=(left, top), size=(4, 2))
    assert sampled.tolist() == [[200, 20, 10]]


@given(
    st.sampled_from(list(PADDING)),
    st.integers(1, 9),
    st.integers(-60, 60),
    st.one_of(st.integers(0, 3), st.integers(0, 40)),
)
def test_the_pixels_that_replace_a_range_are_those_of_the_padded_image(border, n, first, more):
    pad = 110
    replaced = np.pad(np.arange(n), pad, mode=PADDING[border])[pad + first : pad + first + more + 1]
    assert border_range(first, first + more, n, BORDERS[border]) == (replaced.min(), replaced.max())


@pytest.mark.parametrize("border", list(BORDERS))
def test_a_range_far_beyond_the_image_takes_no_time_in_proportion(border):
    if border == "constant":
        assert border_range(2**59, 2**60, 7, BORDERS[border]) == (0, -1)
    else:
        assert border_range(-(2**60), 2**60, 2**30, BORDERS[border]) == (0, 2**30 - 1)


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 4, 8]), st.integers(0, 11), st.booleans())
def test_the_extent_of_many_coordinates_is_that_of_each_alone(seed, support, count, bounded):
    rng = np.random.default_rng(seed)
    xy = rng.normal(5, 20, (2, 1, count))
    xy[rng.random(xy.shape) < 0.3] = rng.integers(-4, 12)
    xy[rng.random(xy.shape) < 0.1] = np.nan
    alone = [extent(np.ascontiguousarray(xy[..., k : k + 1]), support, 9, 7, bounded) for k in range(count)]
    alone = [needed for needed in alone if needed[0] <= needed[1]]
    left, right, top, bottom = extent(xy, support, 9, 7, bounded)
    if not alone:
        assert left > right
    else:
        lefts, rights, tops, bottoms = zip(*alone, strict=True)
        assert (left, right, top, bottom) == (min(lefts), max(rights), min(tops), max(bottoms))


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("border", list(BORDERS))
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float64"])
def test_each_channel_is_sampled_as_if_it_were_alone(interpolation, border, dtype):
    rng = np.random.default_rng(5)
    image = rng.integers(0, 100, (11, 13, 5)).astype(dtype)
    xy = rng.uniform(-4, 16, (2, 9, 10))
    xy[:, :4] = np.round(xy[:, :4])
    whole = resample(image, xy, interpolation, border, (1, 2, 3, 4, 5))
    for channels in (1, 3, 4):
        part = np.ascontiguousarray(image[..., :channels])
        sampled = resample(part, xy, interpolation, border, (1, 2, 3, 4)[:channels])
        np.testing.assert_array_equal(sampled, whole[..., :channels])


@pytest.mark.skipif(sys.platform == "win32", reason="Python and the kernels have different C libraries")
def test_sine_and_cosine_are_those_of_the_c_library():
    """A library of the compiler with other ones may be linked instead; one weight in fifteen then differs."""
    cosines, sines = ([f(k * math.pi / 4) for k in range(8)] for f in (math.cos, math.sin))
    for x in 3 + np.random.default_rng(1).random(300):
        u = x - 3
        angle = (u + 3) * math.pi / 4
        sine, cosine = math.sin(angle), math.cos(angle)
        weights, total = [], 0.0
        for k in range(8):
            t = u + 3 - k
            weight = (sine * cosines[k] - cosine * sines[k]) / (t * t)
            weights.append(-weight if k % 2 else weight)
            total += weights[k]
        sampled = resample(np.eye(8).reshape(1, 8, 8), np.array([[[x]], [[0.0]]]), "lanczos", "replicate")
        np.testing.assert_array_equal(sampled[0, 0], [weight / total for weight in weights])

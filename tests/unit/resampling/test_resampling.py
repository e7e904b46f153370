"""Resampling against a NumPy oracle and OpenCV, and the footprints that it needs."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlaszarr.errors import InputError
from atlaszarr.resampling.sampler import corner_footprint, footprint, resample
from codes import raises

INTERPOLATIONS = {
    "nearest": cv2.INTER_NEAREST,
    "linear": cv2.INTER_LINEAR,
    "cubic": cv2.INTER_CUBIC,
    "lanczos": cv2.INTER_LANCZOS4,
}
BORDERS = {
    "constant": cv2.BORDER_CONSTANT,
    "replicate": cv2.BORDER_REPLICATE,
    "reflect": cv2.BORDER_REFLECT,
    "reflect_101": cv2.BORDER_REFLECT_101,
    "wrap": cv2.BORDER_WRAP,
}
PADDING = {"replicate": "edge", "reflect": "symmetric", "reflect_101": "reflect", "wrap": "wrap"}
WEIGHABLE = ["uint8", "int8", "uint16", "int16", "float32", "float64"]

seeds = st.integers(0, 2**32 - 1)
interpolations = st.sampled_from(list(INTERPOLATIONS))
borders = st.sampled_from(list(BORDERS))


def noise(seed, shape, dtype):
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.uniform(-100, 100, shape).astype(dtype)
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, shape, dtype, endpoint=True)


def kernel(interpolation, t):
    """The weight of a pixel at a distance t, before weights are divided by their sum."""
    t = abs(t)
    if interpolation == "linear":
        return max(0.0, 1 - t)
    if interpolation == "cubic":
        a = -0.75
        if t <= 1:
            return (a + 2) * t**3 - (a + 3) * t**2 + 1
        return a * (t**3 - 5 * t**2 + 8 * t - 4) if t < 2 else 0.0
    return np.sinc(t) * np.sinc(t / 4) if t < 4 else 0.0


def sampled(image, x, y, interpolation, border, constant):
    """One point, from the image padded by NumPy."""
    pad = 40
    if border == "constant":
        padded = np.pad(image.astype(float), pad, constant_values=constant)
    else:
        padded = np.pad(image.astype(float), pad, mode=PADDING[border])
    if interpolation == "nearest":
        return padded[round(y) + pad, round(x) + pad]
    columns, rows = np.arange(np.floor(x) - 3, np.floor(x) + 5), np.arange(np.floor(y) - 3, np.floor(y) + 5)
    across = np.array([kernel(interpolation, x - c) for c in columns])
    down = np.array([kernel(interpolation, y - r) for r in rows])
    part = padded[np.ix_(rows.astype(int) + pad, columns.astype(int) + pad)]
    return (down / down.sum()) @ part @ (across / across.sum())


@settings(max_examples=60)
@given(seeds, interpolations, borders, st.sampled_from(WEIGHABLE), st.tuples(st.integers(1, 9), st.integers(1, 9)))
def test_a_sample_follows_the_definition(seed, interpolation, border, dtype, shape):
    image = noise(seed, shape, dtype)
    xy = np.random.default_rng(seed).uniform(-12, 20, (2, 3, 4))
    xy[:, 1] = np.round(xy[:, 1])
    xy[:, 2] = np.round(xy[:, 2]) + 0.5
    result = resample(image, xy, interpolation, border, 7)
    assert result.dtype == image.dtype
    for at in np.ndindex(3, 4):
        value = sampled(image, *xy[(slice(None), *at)], interpolation, border, 7)
        if result.dtype.kind == "f":
            np.testing.assert_allclose(result[at], value, rtol=1e-6, atol=1e-4)
        else:
            info = np.iinfo(dtype)
            assert abs(float(result[at]) - np.clip(value, info.min, info.max)) <= 0.5 + 1e-6


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "float64"])
@pytest.mark.parametrize("channels", [(), (3,)], ids=["grey", "rgb"])
def test_opencv_agrees_within_one_grey_level(interpolation, border, dtype, channels):
    constant = (10, 200, 30)[: len(channels) * 3] or 10
    rng = np.random.default_rng(1)
    pad = 90

    def remap(image, xy):
        # OpenCV 5.0's cubic remap reads other pixels than it should beyond the borders; its copyMakeBorder does not.
        around = 0 if interpolation != "cubic" else pad
        padded = cv2.copyMakeBorder(image, *(around,) * 4, BORDERS[border], value=constant)
        maps = (xy + around).astype("f4")
        return cv2.remap(padded, *maps, INTERPOLATIONS[interpolation], borderMode=BORDERS[border], borderValue=constant)

    # OpenCV rounds coordinates to 1/32 pixel.
    image = noise(2, (37, 53, *channels), dtype) // 2
    xy = rng.integers(-30 * 32, 80 * 32, (2, 70, 80)) / 32
    result = resample(image, xy, interpolation, border, constant)
    np.testing.assert_allclose(result.astype(float), remap(image, xy), rtol=0, atol=1)

    if interpolation == "nearest":
        return
    rows, columns = np.mgrid[:120, :150]
    smooth = 120 + 40 * np.sin(columns / 24) * np.cos(rows / 19)
    smooth = np.repeat(smooth[..., np.newaxis], 3, 2) if channels else smooth
    margin = 4 if border in ("constant", "wrap") else 0  # where the image is not smooth
    xy = np.stack([rng.uniform(margin, 149 - margin, (90, 90)), rng.uniform(margin, 119 - margin, (90, 90))])
    result = resample(smooth.astype(dtype), xy, interpolation, border, constant)
    np.testing.assert_allclose(result.astype(float), remap(smooth.astype(dtype), xy), rtol=0, atol=1)


@settings(max_examples=60)
@given(seeds, interpolations, borders, st.floats(0.1, 40), st.floats(-30, 60))
def test_the_footprint_contains_all_needed_pixels(seed, interpolation, border, spread, centre):
    image = noise(seed, (31, 47, 3), "uint8")
    xy = centre + np.random.default_rng(seed).normal(0, spread, (2, 5, 6))
    xy[0, 0, 0] = np.nan
    whole = resample(image, xy, interpolation, border, (1, 2, 3))
    window = footprint(xy, (47, 31), interpolation, border)
    left, top, right, bottom = window or (0, 0, 0, 0)
    assert window is None or (0 <= left < right <= 47 and 0 <= top < bottom <= 31)
    part = image[top:bottom, left:right]
    result = resample(part, xy, interpolation, border, (1, 2, 3), origin=(left, top), size=(47, 31))
    np.testing.assert_array_equal(result, whole)
    if window is None:
        assert (whole == (1, 2, 3)).all()


def test_the_footprint_is_the_smallest_box_that_suffices():
    xy = np.array([[[3.5, 9.25, np.inf]], [[4.0, 7.5, 0.0]]])
    assert footprint(xy, (47, 31), "linear", "constant") == (3, 4, 11, 9)
    assert footprint(xy, (47, 31), "cubic", "constant") == (2, 4, 12, 10)
    assert footprint(xy, (47, 31), "nearest", "constant") == (4, 4, 10, 9)
    assert footprint(xy - 100, (47, 31), "linear", "constant") is None
    assert footprint(xy - 100, (47, 31), "linear", "replicate") == (0, 0, 1, 1)
    image = noise(1, (31, 47), "uint8")
    for part, origin in ((image[4:9, 4:11], (4, 4)), (image[4:9, 3:10], (3, 4)), (image[4:8, 3:11], (3, 4))):
        with raises(InputError, "missing-pixels"):
            resample(part, xy, origin=origin, size=(47, 31))


def test_coordinates_of_one_axis_have_no_footprint():
    with raises(InputError, "invalid-shape"):
        footprint(np.zeros((1, 5, 6)), (47, 31), "linear", "constant")


@given(seeds, interpolations, borders)
def test_the_corners_of_an_affine_bound_its_footprint(seed, interpolation, border):
    matrix = np.random.default_rng(seed).uniform(-2, 2, (2, 3)) * [1, 1, 40]
    rows, columns = np.mgrid[3:17, 5:25]
    xy = np.einsum("ij,jrc->irc", matrix, np.stack([columns, rows, np.ones_like(rows)]))
    whole = footprint(xy, (47, 31), interpolation, border)
    bound = corner_footprint(xy[:, ::13, ::19], (47, 31), interpolation, border)
    if whole is not None:
        assert bound[0] <= whole[0] < whole[2] <= bound[2]
        assert bound[1] <= whole[1] < whole[3] <= bound[3]


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("border", BORDERS)
def test_a_coordinate_that_is_not_finite_gives_the_constant_and_a_very_large_one_is_valid(interpolation, border):
    image = np.full((4, 5), 200, np.uint8)
    xy = np.array([[np.nan, np.inf, -np.inf, 1, 1e300, -1e300], [1, 1, 1, np.nan, 2, 1e19]])[:, np.newaxis]
    result = resample(image, xy, interpolation, border, 9)[0]
    assert result[:4].tolist() == [9] * 4
    assert result[4:].tolist() == [9 if border == "constant" else 200] * 2


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_a_point_at_the_centre_of_a_pixel_samples_only_that_pixel(interpolation):
    image = noise(3, (6, 7), "float64")
    image[2, 3] = np.nan
    xy = np.stack(np.meshgrid(np.arange(7.0), np.arange(6.0)))
    np.testing.assert_array_equal(resample(image, xy, interpolation, constant=np.nan), image)
    np.testing.assert_array_equal(resample(image, xy - 1e-17, interpolation, constant=np.nan), image)


@pytest.mark.parametrize("dtype", ["bool", "uint32", "int64", "uint64", "float16", ">u2", "<f4"])
def test_nearest_copies_pixels_of_any_real_dtype(dtype):
    image = (noise(4, (6, 7, 2), "uint64") % 200).astype(dtype)
    xy = np.stack(np.meshgrid(np.arange(-1.0, 7), np.arange(6.0)))
    result = resample(image, xy, "nearest", constant=1)
    assert result.dtype == image.dtype.newbyteorder("=")
    np.testing.assert_array_equal(result[:, 1:], image)
    assert (result[:, 0] == 1).all()


def test_half_levels_are_rounded_up_and_half_pixels_to_even():
    image = np.array([[0, 1, 2, 5]], np.int8)
    xy = np.array([[[0.5, 1.5, 2.5]], [[0, 0, 0]]])
    assert resample(image, xy).tolist() == [[1, 2, 4]]
    assert resample(-image, xy).tolist() == [[0, -1, -3]]
    assert resample(image, xy, "nearest").tolist() == [[0, 2, 2]]


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_images_beyond_opencv_s_longest_side_are_sampled(interpolation):
    image = np.zeros((1, 70_001), np.uint16)
    image[0, 66_000:] = 1000
    xy = np.array([[[65_000.0, 65_990.3, 66_010.7, 70_000.0]], [[0, 0, 0, 0]]])
    assert resample(image, xy, interpolation, "replicate").tolist() == [[0, 0, 1000, 1000]]


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"interpolation": "area"}, "not-supported"),
        ({"border": "transparent"}, "not-supported"),
        ({"interpolation": "spline"}, "unknown-value"),
        ({"border": "mirror"}, "unknown-value"),
        ({"pixels": np.zeros((3, 4), np.uint32)}, "unsupported-dtype"),
        ({"pixels": np.zeros((3, 4), complex), "interpolation": "nearest"}, "unsupported-dtype"),
        ({"pixels": np.zeros((3, 4, 1, 1), np.uint8)}, "invalid-shape"),
        ({"pixels": np.zeros((0, 4), np.uint8)}, "outside-image"),
        ({"xy": np.zeros((2, 5))}, "invalid-shape"),
        ({"constant": 256}, "invalid-value"),
        ({"constant": 0.5}, "invalid-value"),
        ({"constant": np.nan}, "invalid-value"),
        ({"constant": (1, 2)}, "invalid-value"),
        ({"constant": "white"}, "invalid-value"),
        ({"origin": (-1, 0)}, "outside-image"),
        ({"size": (3, 3)}, "outside-image"),
    ],
    ids=str,
)
def test_wrong_images_and_options_are_refused(wrong, code):
    given = {"pixels": np.zeros((3, 4), np.uint8), "xy": np.zeros((2, 1, 1)), **wrong}
    with raises(InputError, code):
        resample(given.pop("pixels"), given.pop("xy"), **given)

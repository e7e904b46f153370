"""A section image fetched in windows equals the whole image, and only the windows that are needed are fetched."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlaszarr.allen.images import LARGEST_WHOLE, WINDOW, ImageRequest, TierImage, tier_image, whole_image


@st.composite
def images_and_boxes(draw):
    width, height = draw(st.integers(1, 60)), draw(st.integers(1, 60))
    windows = (draw(st.integers(1, width)), draw(st.integers(1, height)))
    left, top = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    box = (left, top, draw(st.integers(left + 1, width)), draw(st.integers(top + 1, height)))
    origin = (draw(st.integers(0, 100)), draw(st.integers(0, 100)))
    return TierImage(ImageRequest(7, width, height, draw(st.integers(0, 4))), origin, windows), box


def served(tier, pixels):
    """The service's answers: left and top of a request are full-resolution pixels of the slide."""

    def answer(request):
        if request.left is None:
            return pixels
        scale = 2**tier.whole.downsample
        left, top = (request.left - tier.origin[0]) / scale, (request.top - tier.origin[1]) / scale
        assert (left, top) == (int(left), int(top))
        answered = pixels[int(top) : int(top) + request.height, int(left) : int(left) + request.width]
        assert answered.shape[:2] == (request.height, request.width)
        return answered

    return answer


@given(images_and_boxes())
def test_a_crop_of_windows_equals_the_crop_of_the_whole_image(drawn):
    tier, box = drawn
    width, height = tier.size
    pixels = np.arange(width * height * 3, dtype=np.uint32).astype(np.uint8).reshape(height, width, 3)
    left, top, right, bottom = box
    np.testing.assert_array_equal(tier.crop(box, served(tier, pixels)), pixels[top:bottom, left:right])


@given(images_and_boxes())
def test_every_requested_window_intersects_the_box_and_is_requested_once(drawn):
    tier, (left, top, right, bottom) = drawn
    found = list(tier.requests((left, top, right, bottom)))
    assert len(set(found)) == len(found)
    covered = np.zeros(tier.size[::-1], int)
    for request in found:
        scale = 2**tier.whole.downsample
        x, y = (
            (0, 0)
            if request.left is None
            else ((request.left - tier.origin[0]) // scale, (request.top - tier.origin[1]) // scale)
        )
        window = covered[y : y + request.height, x : x + request.width]
        window += 1
        assert max(x, left) < min(x + request.width, right)
        assert max(y, top) < min(y + request.height, bottom)
    assert (covered[top:bottom, left:right] == 1).all()


def test_a_crop_is_missing_if_one_of_its_windows_is_missing():
    tier = TierImage(ImageRequest(7, 20, 10), (0, 0), (2, 1))
    assert tier.crop((5, 0, 15, 10), lambda request: None if request.left else np.zeros((10, 10, 3), np.uint8)) is None


@pytest.fixture
def section(dataset):
    return dataset.sections[0]


def test_a_small_image_that_is_needed_whole_is_one_request(section):
    whole = whole_image(section, 2)
    assert max(whole.width, whole.height) > WINDOW
    tier = tier_image(section, whole, [(0, 0, whole.width, whole.height)])
    assert tier.windows == (1, 1)
    assert list(tier.requests((0, 0, 5, 5))) == [whole]


def test_a_corner_of_an_image_is_fetched_alone(section):
    whole = whole_image(section, 1)
    assert whole.width > WINDOW
    tier = tier_image(section, whole, [(0, 0, 100, 100)])
    (request,) = tier.requests((0, 0, 100, 100))
    assert request.width * request.height < whole.width * whole.height / 2
    assert (request.left, request.top) == (section.x, section.y)


def test_an_image_too_large_for_memory_is_never_fetched_whole(section):
    whole = ImageRequest(section.image_id, 34_000, 27_000)
    assert whole.width * whole.height > LARGEST_WHOLE
    requests = list(tier_image(section, whole, [(0, 0, 34_000, 27_000)]).requests((0, 0, 34_000, 27_000)))
    assert max(max(request.width, request.height) for request in requests) <= WINDOW
    assert sum(request.width * request.height for request in requests) == 34_000 * 27_000

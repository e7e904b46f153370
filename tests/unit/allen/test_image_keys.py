"""Cache keys of section images: different images have different keys."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from atlaszarr.allen.images import ImageRequest

OTHER = {
    "image_id": 2,
    "width": 300,
    "height": 300,
    "downsample": 1,
    "view": "expression",
    "left": 8,
    "top": 8,
    "quality": 50,
    "range": (0, 1, 0, 1, 0, 1),
}


def test_every_field_of_a_request_has_another_value_to_compare():
    assert set(OTHER) == {field.name for field in fields(ImageRequest)}


@pytest.mark.parametrize("name", OTHER)
def test_requests_that_differ_in_one_field_have_different_keys(name):
    request = ImageRequest(1, 200, 100, left=0, top=0)
    other = replace(request, **{name: OTHER[name]})
    assert request.key("http://a/api/v2") != other.key("http://a/api/v2")


def test_images_of_two_services_have_different_keys():
    request = ImageRequest(1, 200, 100)
    assert request.key("http://a/api/v2") != request.key("http://b/api/v2")
    assert request.key("http://a/api/v2") == replace(request).key("http://a/api/v2")

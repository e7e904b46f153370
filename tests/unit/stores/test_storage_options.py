"""Whose storage options are given where a target and its sources lie in two stores."""

import pytest

from atlaszarr.stores.locations import options_for, options_of_target

GIVEN = {"endpoint_url": "https://objects.example.org"}


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ("s3://bucket/x", "s3://other/y", GIVEN),
        ("s3a://bucket/x", "s3://other/y", GIVEN),
        ("s3://bucket/x", "y", GIVEN),
        ("s3://bucket/x", None, GIVEN),
        ("https://host/x", "s3://other/y", None),
        ("x", "s3://other/y", None),
        ("file:///x", None, None),
    ],
)
def test_a_source_has_the_options_of_its_protocol(source, target, expected):
    assert options_for(source, target, GIVEN) == expected


@pytest.mark.parametrize(
    ("target", "sources", "expected"),
    [
        ("s3://bucket/y", ("x", None), GIVEN),
        ("s3://bucket/y", ("https://host/x",), GIVEN),
        ("y", ("x", None, "s3://bucket/x"), None),
        ("y", ("x", {}, None), GIVEN),  # refused, since nothing takes them
    ],
)
def test_a_target_that_is_a_path_leaves_the_options_to_a_source(target, sources, expected):
    assert options_of_target(target, GIVEN, *sources) == expected

"""Locations that are the same, or one of which is inside the other."""

import pytest

from atlaszarr.stores.locations import overlap, overlapping

PAIRS = {
    "the same": ("/a/b", "/a/b", True),
    "inside": ("/a/b/c", "/a/b", True),
    "around": ("/a", "/a/b/c", True),
    "next to": ("/a/b", "/a/c", False),
    "a longer name": ("/a/b", "/a/bc", False),
    "the protocol of the disk": ("file:///a/b", "/a/b/c", True),
    "two protocols of a bucket": ("s3://bucket/a", "https://bucket/a/b", True),
    "two buckets": ("s3://one/a", "s3://other/a", False),
    "a query": ("https://host/a?x=1", "https://host/a/b", True),
    "a disk and a bucket": ("/bucket/a", "s3://bucket/a", False),
}


@pytest.mark.parametrize(("one", "other", "expected"), PAIRS.values(), ids=PAIRS)
def test_locations_overlap_if_one_is_the_other_or_in_it(one, other, expected):
    assert overlap(one, other) is overlap(other, one) is expected


def test_links_are_followed(tmp_path):
    (tmp_path / "folder/inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to("folder")
    (tmp_path / "other").mkdir()
    assert overlap(f"{tmp_path}/link/inner/x", f"{tmp_path}/folder")
    assert overlap(f"{tmp_path}/link", f"{tmp_path}/folder/inner")
    assert not overlap(f"{tmp_path}/link", f"{tmp_path}/other")


def test_the_first_pair_of_many_is_found(tmp_path):
    others = [f"{tmp_path}/{number}/x" for number in range(50)]
    assert overlapping([f"{tmp_path}/none", f"{tmp_path}/7", f"{tmp_path}/3"], others) == (
        f"{tmp_path}/7",
        f"{tmp_path}/7/x",
    )
    assert overlapping([f"{tmp_path}/none"], others) is None
    assert overlapping([], others) is None

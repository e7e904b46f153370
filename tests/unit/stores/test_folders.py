"""The folders right below a prefix of a store."""

import pytest

from atlaszarr.stores.target import Target

KEYS = ["a/2017/x", "a/2020/y/z", "a/file", "b/1", "c"]


@pytest.mark.parametrize("kind", ["local", "memory"])
def test_the_folders_below_a_prefix_are_listed_and_neither_files_nor_what_is_deeper(kind, tmp_path):
    target = Target.of(tmp_path / "root" if kind == "local" else "memory://folders-of-a-store/root")
    for key in KEYS:
        target.write(key, b"")
    assert target.folders() == ["a", "b"]
    assert target.folders("a") == ["2017", "2020"]
    assert target.folders("a/2017") == []
    assert target.folders("missing") == []
    assert target.folders("c") == []


def test_a_link_to_a_folder_is_a_folder(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    (tmp_path / "broken").symlink_to(tmp_path / "missing")
    assert Target.of(tmp_path).folders() == ["a", "link"]


def test_a_web_server_lists_nothing():
    assert Target.of("http://127.0.0.1:1/x").folders() is None

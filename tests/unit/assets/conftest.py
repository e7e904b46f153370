"""A small tree of the standard, as it is and as a copy to change."""

from __future__ import annotations

import shutil

import pytest

from tiny_assets import write_tree


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """A tree, to be read only."""
    return write_tree(tmp_path_factory.mktemp("whole") / "tree")


@pytest.fixture
def tree(whole, tmp_path):
    """A copy of `whole`."""
    return shutil.copytree(whole, tmp_path / "tree")

"""A tree of the standard's layout in folders that have the names of its own: its atlas is found."""

import pytest

from atlaszarr import build_atlas, region_volumes
from atlaszarr.atlas.registration import AtlasAsset
from atlaszarr.errors import InputError
from atlaszarr.stores.target import Target
from codes import raises
from tiny_atlas import write_sources

ATLAS = "atlases/tiny-atlas/2026"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tree")
    sources = write_sources(folder / "sources") | {"version": "2026"}
    build_atlas(folder / "tree", layout="assets", **sources)
    return folder / "tree"


@pytest.mark.parametrize("place", ["atlases/mouse/2026", "annotation-sets/mouse/2026", "atlases/mouse", "atlases"])
def test_the_atlas_of_a_tree_is_found_whatever_its_folders_are_called(built, tmp_path, place):
    tree = tmp_path / place
    tree.parent.mkdir(parents=True, exist_ok=True)
    tree.symlink_to(built)
    for given in (tree, tree / ATLAS, tree / ATLAS / "manifest.json"):
        atlas = AtlasAsset.at(Target.of(given))
        assert (atlas.root.url, atlas.folder) == (str(tree), ATLAS)
        assert len(region_volumes(given)) == 5


def test_a_folder_that_is_neither_a_tree_nor_an_atlas_is_refused(tmp_path):
    with raises(InputError, "not-an-atlas") as caught:
        AtlasAsset.at(Target.of(tmp_path / "atlases/mouse/2025"))
    assert "atlases/mouse/2025" in str(caught.value)

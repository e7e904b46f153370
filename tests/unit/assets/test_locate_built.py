"""The trees of atlaszarr, in every layout, are read from their roots, their annotation sets and their atlases."""

import numpy as np
import pytest

from atlaszarr import build_atlas, region_volumes
from tiny_atlas import labels, write_sources

LAYOUTS = {
    "plain": {},
    "assets": {"layout": "assets"},
    "strict": {"layout": "assets", "strict": True},
    "brainglobe": {"layout": "brainglobe"},
    "both": {"layout": ["assets", "brainglobe"]},
}


@pytest.mark.first(3)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_folder_of_a_tree_that_leads_to_labels_has_their_volumes(tmp_path, layout):
    root = tmp_path / "tree"
    build_atlas(root, **write_sources(tmp_path / "sources") | {"version": "2020"}, **LAYOUTS[layout])
    found = [root, root / "annotation-sets/tiny-annotation", root / "annotation-sets/tiny-annotation/2020"]
    found += [path for path in root.glob("atlases/*") if path.is_dir()]
    found += [path for kind in ("annotation-sets", "atlases") for path in root.glob(f"{kind}/*/*/manifest.json")]
    assert len(found) > (4 if layout in ("brainglobe", "both") else 2)
    for given in found:
        table = region_volumes(given)
        assert table.loc[3, "voxels"] == np.count_nonzero(labels() == 3)
        assert table.loc[3, "acronym"] == "A1"

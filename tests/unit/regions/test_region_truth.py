"""Region volumes of the real 25 um annotation against the published volumes and a NumPy count."""

import json
from pathlib import Path

import numpy as np
import pytest

from atlaszarr import Terminology, region_mask, region_volumes
from atlaszarr.engine.label_index import add_index, defects
from atlaszarr.engine.ledger import read
from atlaszarr.engine.ome import Geometry
from atlaszarr.geometry.spaces import ORIENTATION
from atlaszarr.stores.target import Target
from atlaszarr.writing import write_multiscales

DATA = Path(__file__).parents[4] / "shared" / "data"
ANNOTATION = DATA / "ccf" / "annotation_25_ccf2017.nrrd"
GRAPH = DATA / "ontology" / "structure_graph_1.json"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (ANNOTATION.exists() and GRAPH.exists()), reason="the shared data (../shared/data) is not here"
    ),
]


@pytest.fixture(scope="module")
def values():
    import nrrd

    return np.ascontiguousarray(nrrd.read(str(ANNOTATION))[0])


@pytest.fixture(scope="module")
def terminology():
    return Terminology.from_structure_graph(json.loads(GRAPH.read_text())["msg"])


@pytest.fixture(scope="module", params=["counted", "indexed"])
def annotation(request, values, tmp_path_factory):
    path = tmp_path_factory.mktemp("real") / "annotation.ome.zarr"
    geometry = Geometry((0.025,) * 3, (0.0075,) * 3, "millimeter", ORIENTATION)
    write_multiscales(values, path, rule="mode", geometry=geometry, levels=2)
    if request.param == "indexed":
        add_index(Target(str(path)))
    return str(path)


def test_region_volumes_are_the_published_ones(annotation, terminology):
    table = region_volumes(annotation, terminology).set_index("acronym")
    assert table.loc["RSP", "voxels"] == 672063
    published = {"RSP": 10.5010, "root": 506.0529, "Isocortex": 123.2977, "CP": 26.0193, "VISp": 7.0729}
    assert {name: round(table.loc[name, "volume_mm3"], 4) for name in published} == published


def test_all_labels_equal_a_numpy_count_and_every_parent_is_the_sum_of_its_children(annotation, terminology, values):
    table = region_volumes(annotation, terminology, by_hemisphere=True)
    ids, voxels = np.unique(values[values > 0], return_counts=True)
    assert len(ids) == 671
    direct = table.voxels_direct[table.voxels_direct > 0].sort_index()
    np.testing.assert_array_equal(direct.index, ids)
    np.testing.assert_array_equal(direct, voxels)
    _, left = np.unique(values[..., :228][values[..., :228] > 0], return_counts=True)
    np.testing.assert_array_equal(table.voxels_direct_left[table.voxels_direct_left > 0].sort_index(), left)
    assert len(table) == len(terminology) == 1327
    parents = {s.id: s.parent_id for s in terminology if s.parent_id}
    for side in ("", "_left", "_right"):
        below = table[f"voxels{side}"].drop(997).groupby(parents).sum().reindex(table.index, fill_value=0)
        assert (below + table[f"voxels_direct{side}"] == table[f"voxels{side}"]).all()
    assert (table.voxels_left + table.voxels_right == table.voxels).all()


def test_the_mask_of_a_region_includes_its_descendants(annotation, terminology, values):
    ids = [s.id for s in terminology.descendants("RSP")]
    mask = region_mask(annotation, terminology, "RSP").compute()
    assert np.count_nonzero(mask) == 672063
    assert np.array_equal(mask, np.isin(values, ids))


def test_a_second_count_agrees_with_the_index(annotation):
    target = Target(annotation)
    assert list(defects(target, read(target, finished=True), deep=True)) == []

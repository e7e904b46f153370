"""The CCFv3 of 50 um: masks and meshes have its known volumes."""

import json
from pathlib import Path

import dask.array as da
import nrrd
import numpy as np
import pytest
import zarr

from atlaszarr.annotation_set.masks import write_masks
from atlaszarr.annotation_set.structure_index import NOTHING, indices_of
from atlaszarr.annotation_set.structure_order import PostOrder
from atlaszarr.annotation_set.surfaces import surface
from atlaszarr.assets.names import ANNOTATION, MASKS
from atlaszarr.engine.finished_image import Finished
from atlaszarr.engine.ome import Geometry
from atlaszarr.stores.target import Target
from atlaszarr.terminology.terminology import Terminology
from atlaszarr.verification import verify
from atlaszarr.writing import write_multiscales

DATA = Path(__file__).parents[4] / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the real data (../shared/data) is missing")

#: Volume of RSP in the annotation of 50 um of the Allen Institute, in mm3.
RSP = 10.4808


@pytest.fixture(scope="module")
def terminology():
    graph = json.loads((DATA / "ontology" / "structure_graph_1.json").read_text())
    return Terminology.from_structure_graph(graph["msg"])


@pytest.fixture(scope="module")
def labels():
    return np.ascontiguousarray(nrrd.read(DATA / "ccf" / "annotation_50_ccf2017.nrrd")[0])


@pytest.mark.slow
def test_masks_hold_the_known_volume_and_are_the_annotation_at_every_level(tmp_path, terminology, labels):
    annotation = Target.of(tmp_path / ANNOTATION)
    geometry = Geometry((0.05,) * 3, (0.02,) * 3)
    write_multiscales(da.from_array(labels, chunks=128), annotation.url, rule="mode", levels=2, geometry=geometry)
    order = PostOrder.of(terminology)
    write_masks(Finished.at(annotation), Target.of(tmp_path / MASKS), order)
    # 838 of 1327 structures occur; in chunks, the finest level alone would be 2,486 objects.
    sizes = Target.of(tmp_path / MASKS).sizes("0/c")
    assert len(sizes) == len(Target.of(tmp_path / MASKS).sizes("1/c")) == 838
    assert sum(sizes.values()) == pytest.approx(4.7e6, rel=0.03)
    root = zarr.open_group(tmp_path / MASKS, mode="r")
    channel = root["annotation_values"][:].tolist().index(terminology["RSP"].id)
    assert root["0"][channel].sum() * 0.05**3 == pytest.approx(RSP, abs=5e-5)
    for acronym in ("root", "Isocortex", "VISp", "fiber tracts"):
        below = [one.id for one in terminology.descendants(acronym)]
        channel = order.values.index(terminology[acronym].id)
        for level in ("0", "1"):
            expected = np.isin(zarr.open_array(f"{annotation.url}/{level}", mode="r")[:], below)
            np.testing.assert_array_equal(root[level][channel], expected)
    assert verify(tmp_path / MASKS).ok


@pytest.mark.slow
def test_every_label_has_a_structure_and_a_mesh_has_the_volume_of_its_mask(terminology, labels):
    order = PostOrder.of(terminology)
    indices, present = indices_of(labels, order)
    assert np.count_nonzero(indices != NOTHING) == np.count_nonzero(labels)
    assert present.sum() == len(np.unique(labels)) - 1
    below = [one.id for one in terminology.descendants("CP")]
    mask = np.isin(labels, below)
    vertices, faces = surface(mask)
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    enclosed = np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6
    assert enclosed == pytest.approx(mask.sum(), rel=0.05)

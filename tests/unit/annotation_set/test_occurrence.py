"""The part of a terminology that an annotation holds."""

import json
from pathlib import Path

import nrrd
import numpy as np
import pytest

from atlaszarr.annotation_set.occurrence import occurring
from atlaszarr.annotation_set.structure_boxes import Extent, extents
from atlaszarr.annotation_set.structure_order import PostOrder
from atlaszarr.engine.finished_image import Finished
from atlaszarr.engine.label_index import add_index
from atlaszarr.engine.ome import Geometry
from atlaszarr.engine.schedulers import scheduler_for
from atlaszarr.stores.target import Target
from atlaszarr.terminology.terminology import Structure, Terminology
from atlaszarr.writing import write_multiscales

DATA = Path(__file__).parents[4] / "shared" / "data"
ROWS = (
    Structure("X:1", "root", "root", "#FFFFFF", ("X:1",), 100),
    Structure("X:2", "A", "a parent without a label", "#00FF7F", ("X:1", "X:2"), None),
    Structure("X:3", "A", "in the finest level alone", "#00FF7F", ("X:1", "X:2", "X:3"), 3),
    Structure("X:4", "B", "nowhere", "#00FF7F", ("X:1", "X:4"), 4),
    Structure("X:5", "C", "nowhere, below nothing", "#00FF7F", ("X:1", "X:4", "X:5"), 5),
    Structure("X:6", "D", "another root", "#00FF7F", ("X:6",), 6),
    Structure("X:7", "E", "a root that does not occur", "#00FF7F", ("X:7",), 7),
)


def finished(folder, labels, indexed, **options):
    target = Target.of(folder / "annotation.ome.zarr")
    write_multiscales(labels, target.url, rule="mode", geometry=Geometry((0.05,) * 3), **options)
    if indexed:
        add_index(target)
    return Finished.at(target)


@pytest.mark.parametrize("indexed", [False, True])
def test_structures_that_occur_at_no_level_are_left_out_and_ancestors_are_kept(tmp_path, indexed):
    labels = np.full((40, 40, 40), 6, np.uint32)
    labels[5, 5, 5] = 3
    terminology = Terminology(ROWS, ("a note",))
    found = occurring(finished(tmp_path, labels, indexed, levels=2, chunk=16), terminology)
    assert [structure.id for structure in found] == ["X:1", "X:2", "X:3", "X:6"]
    assert found.notes == ("a note",)


def test_boxes_are_those_of_known_labels(tmp_path):
    labels = np.zeros((40, 40, 40), np.uint32)
    labels[5:9, 20:, 30] = 3
    labels[30:, :, :10] = 12345  # a label that no structure has
    annotation, order = finished(tmp_path, labels, False, levels=1, chunk=16), PostOrder.of(Terminology(ROWS))
    with scheduler_for("threads", 2) as threads:
        found = extents(annotation, 0, order, threads)
    box = Extent(4 * 20, (slice(5, 9), slice(20, 40), slice(30, 31)))
    assert found == {order.values.index(3): box, order.values.index(100): box}


@pytest.mark.skipif(not DATA.is_dir(), reason="the real data (../shared/data) is missing")
def test_838_structures_of_the_ccf_occur_at_50_um(tmp_path):
    graph = json.loads((DATA / "ontology" / "structure_graph_1.json").read_text())
    terminology = Terminology.from_structure_graph(graph["msg"])
    labels = nrrd.read(DATA / "ccf" / "annotation_50_ccf2017.nrrd")[0].astype(np.uint32)
    found = occurring(finished(tmp_path, labels, False, levels=1), terminology)
    assert (len(terminology), len(found)) == (1327, 838)
    kept = {structure.id for structure in found}
    assert tuple(found) == tuple(structure for structure in terminology if structure.id in kept)

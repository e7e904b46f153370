"""The box of each structure of an annotation."""

import numpy as np

from atlaszarr.annotation_set.structure_boxes import Extent, extents
from atlaszarr.annotation_set.structure_order import PostOrder
from atlaszarr.engine.finished_image import Finished
from atlaszarr.engine.ome import Geometry
from atlaszarr.engine.schedulers import scheduler_for
from atlaszarr.stores.target import Target
from atlaszarr.terminology.terminology import Structure, Terminology
from atlaszarr.writing import write_multiscales

ROWS = (
    Structure("X:1", "root", "root", "#FFFFFF", ("X:1",), 100),
    Structure("X:2", "A", "a parent without a label", "#00FF7F", ("X:1", "X:2"), None),
    Structure("X:3", "A", "in the finest level alone", "#00FF7F", ("X:1", "X:2", "X:3"), 3),
    Structure("X:4", "B", "nowhere", "#00FF7F", ("X:1", "X:4"), 4),
    Structure("X:5", "C", "nowhere, below nothing", "#00FF7F", ("X:1", "X:4", "X:5"), 5),
    Structure("X:6", "D", "another root", "#00FF7F", ("X:6",), 6),
    Structure("X:7", "E", "a root that does not occur", "#00FF7F", ("X:7",), 7),
)


def finished(folder, labels, **options):
    target = Target.of(folder / "annotation.ome.zarr")
    write_multiscales(labels, target.url, rule="mode", geometry=Geometry((0.05,) * 3), **options)
    return Finished.at(target)


def test_boxes_are_those_of_known_labels(tmp_path):
    labels = np.zeros((40, 40, 40), np.uint32)
    labels[5:9, 20:, 30] = 3
    labels[30:, :, :10] = 12345  # a label that no structure has
    annotation, order = finished(tmp_path, labels, levels=1, chunk=16), PostOrder.of(Terminology(ROWS))
    with scheduler_for("threads", 2) as threads:
        found = extents(annotation, 0, order, threads)
    box = Extent(4 * 20, (slice(5, 9), slice(20, 40), slice(30, 31)))
    assert found == {order.values.index(3): box, order.values.index(100): box}

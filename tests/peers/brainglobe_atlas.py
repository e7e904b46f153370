"""Makes the atlases that `brainglobe_client.py` opens: an invented one, and the CCF's where its data lies beside.

Each lies in a folder of its own, with what the reader is to find in it: labels in `expected.npz`, the rest in
`expected.json`.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask.array as da
import nrrd
import numpy as np

from atlaszarr.brainglobe.layout import ANNOTATION, TEMPLATE, Layout
from atlaszarr.brainglobe.writing import write
from atlaszarr.finished import Finished
from atlaszarr.ome import Geometry
from atlaszarr.spaces import ORIENTATION
from atlaszarr.store import Target
from atlaszarr.terminology import Structure, Terminology
from atlaszarr.writing import write_multiscales

REAL = Path(__file__).parents[3] / "shared" / "data"
#: um of the finest level, and of the first published one, whose first voxel is the origin.
FINEST, ANCHOR = 25, 10
FACTORS = [2, 2]

#: Identifier, acronym and path; 7 is drawn nowhere, and 70000 is more than 16 bits hold.
TREE = [
    (1, "root", (1,)),
    (2, "grey", (1, 2)),
    (30, "left", (1, 2, 30)),
    (4, "right", (1, 2, 4)),
    (7, "nowhere", (1, 2, 7)),
    (70000, "speck", (1, 2, 4, 70000)),
    (5, "shell", (1, 5)),
]


def atlases(folder: Path) -> Iterator[Path]:
    """The folders of the atlases, each finished when it is given."""
    labels, terminology = invented()
    template = (labels % 251 + 1).astype(np.uint16)
    yield _make(folder / "invented", labels, template, terminology, [one.id for one in terminology if one.id != 7])
    if REAL.exists():
        labels, _ = nrrd.read(REAL / "ccf" / "annotation_25_ccf2017.nrrd")
        coarse, _ = nrrd.read(REAL / "ccf" / "average_template_100.nrrd")
        graph = json.loads((REAL / "ontology" / "structure_graph_1.json").read_text())["msg"]
        terminology = Terminology.from_structure_graph(graph)
        asked = [terminology[acronym].id for acronym in ("root", "Isocortex", "CP", "VISp", "RSP", "DG")]
        template = coarse.repeat(4, 0).repeat(4, 1).repeat(4, 2)[tuple(map(slice, labels.shape))]
        yield _make(folder / "real", np.ascontiguousarray(labels), template, terminology, asked)


def invented() -> tuple[np.ndarray, Terminology]:
    """Two halves of an ellipsoid in a shell, with a speck of few voxels; and their tree."""
    shape = np.array([150, 130, 136])
    z, y, x = np.ogrid[tuple(map(slice, shape))]
    middle = (shape - 1) / 2
    distance = sum(((axis - c) / (0.45 * n)) ** 2 for axis, c, n in zip((z, y, x), middle, shape, strict=True))
    half = np.where(x < middle[2], 4, 30).astype(np.uint32)
    labels = np.where(distance < 0.6, half, np.where(distance < 1, np.uint32(5), np.uint32(0)))
    labels[70:78, 60:68, 40:48] = 70000
    structures = (Structure(id, acronym, f"The {acronym}", f"#{id % 256:02X}8040", path) for id, acronym, path in TREE)
    return labels, Terminology(tuple(structures))


def _make(
    folder: Path,
    labels: np.ndarray,
    template: np.ndarray,
    terminology: Terminology,
    asked: list[int],
) -> Path:
    layout = Layout("allen-adult-mouse", "2017")
    root = folder / "brainglobe-atlasapi"
    place = (FINEST - ANCHOR) / 2000
    common: dict[str, Any] = {
        "geometry": Geometry((FINEST / 1000,) * 3, (place,) * 3, "millimeter", ORIENTATION),
        "factors": FACTORS,
        "levels": len(FACTORS) + 1,
    }
    annotation = root / layout.annotation_set / ANNOTATION
    write_multiscales(da.from_array(labels, chunks=128), annotation, rule="mode", **common)
    write_multiscales(da.from_array(template, chunks=128), root / layout.template / TEMPLATE, **common)
    write(Target.of(root), layout, terminology)
    finished = Finished.at(Target.of(annotation))
    levels = {}
    for level, resolution in enumerate(finished.resolutions):
        shape = finished.multiscale.pyramid.levels[level].shape
        levels[f"{resolution[0]:g}"] = finished.read(level, tuple(map(slice, (0, 0, 0), shape)))
    np.testing.assert_array_equal(levels[str(FINEST)], labels)
    np.savez_compressed(folder / "expected.npz", **levels)
    expected = {
        "name": layout.name,
        "paths": {one.id: one.path for one in terminology},
        "names": {one.id: one.name for one in terminology},
        "asked": asked,
        "mesh_resolution": 50,
    }
    (folder / "expected.json").write_text(json.dumps(expected))
    return folder

"""Makes the atlases that `brainglobe_client.py` opens: an invented one, and the CCF if its data is there.

The CCF also has the documents of the published standard, and a registered section dataset of the emulator. Each atlas
lies in a folder of its own, with what the reader is to find in it: labels in `expected.npz`, registered datasets in
`references.npz`, the rest in `expected.json`.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nrrd
import numpy as np
from published import CORONAL_DATASET, GENE_OF_CORONAL_DATASET

from atlaszarr import AllenClient, Terminology, build, build_atlas, verify
from atlaszarr.assets.names import ANNOTATION, AtlasNames
from atlaszarr.engine.finished_image import Finished
from atlaszarr.stores.target import Target
from atlaszarr.terminology.terminology import Structure
from atlaszarr.testing.emulator import Emulator

REAL = Path(__file__).parents[3] / "shared" / "data"

#: Identifier, acronym and path; 7 is drawn nowhere, 6 in one voxel, and 70000 is more than 16 bits hold.
TREE = [
    (1, "root", (1,)),
    (2, "grey", (1, 2)),
    (30, "left", (1, 2, 30)),
    (4, "right", (1, 2, 4)),
    (7, "nowhere", (1, 2, 7)),
    (70000, "speck", (1, 2, 4, 70000)),
    (5, "shell", (1, 5)),
    (6, "dot", (1, 5, 6)),
    (8, "middle", (1, 2, 8)),
]

#: What brainglobe-atlasapi's own tests expect of the CCF of 100 um (tests/atlasapi/test_core_atlas.py: `test_stacks`,
#: `test_data_from_coords` and one more on ``example_mouse_100um``): voxels of a region, structure and side of a place.
RECORDED = {
    "resolution": 100,
    "region": [(65, 67), (39, 41), (56, 58)],
    "stacks": {
        "template": [[[155, 146], [157, 153]], [[151, 148], [154, 153]]],
        "annotation": [[[59, 59], [59, 59]], [[59, 59], [59, 59]]],
        "hemispheres": [[[2, 1], [2, 1]], [[2, 1], [2, 1]]],
    },
    "places": [((39, 36, 57), 997, "left"), ((1, 1, 1), 0, "right")],
}


def atlases(folder: Path) -> Iterator[Path]:
    """The folders of the atlases, each finished when it is given."""
    labels, terminology = invented()
    annotation = _saved(folder / "invented" / "annotation.nrrd", labels)
    template = _saved(folder / "invented" / "template.nrrd", (labels % 251 + 1).astype(np.uint16))
    asked = [one.id for one in terminology if one.id not in (6, 7)]
    yield _make(folder / "invented", [annotation], template, terminology, asked, None)
    if REAL.exists():
        # The Institute's own volume of 100 um is every fourth voxel of that of 25 um.
        annotation = [REAL / "ccf" / f"annotation_{name}.nrrd" for name in ("25_ccf2017", "100_every4th_of_25")]
        coarse, _ = nrrd.read(REAL / "ccf" / "average_template_100.nrrd")
        terminology = Terminology.read(REAL / "ontology" / "structure_graph_1.json")
        asked = [terminology[acronym].id for acronym in ("root", "Isocortex", "CP", "VISp", "RSP", "DG")]
        fine = coarse.repeat(4, 0).repeat(4, 1).repeat(4, 2)
        template = _saved(folder / "real" / "template.nrrd", fine)
        yield _make(folder / "real", annotation, template, terminology, asked, RECORDED, registered=True)


def invented() -> tuple[np.ndarray, Terminology]:
    """Two halves of an ellipsoid in a shell, a middle, a speck of few voxels and a dot of one; and their tree."""
    shape = np.array([150, 130, 136])
    z, y, x = np.ogrid[tuple(map(slice, shape))]
    middle = (shape - 1) / 2
    distance = sum(((axis - c) / (0.45 * n)) ** 2 for axis, c, n in zip((z, y, x), middle, shape, strict=True))
    half = np.where(x < middle[2], 4, 30).astype(np.uint32)
    labels = np.where(distance < 0.6, half, np.where(distance < 1, np.uint32(5), np.uint32(0)))
    labels[60:92, 50:82, 44:92] = 8  # BrainGlobe compares two voxels on either side of the centre
    labels[70:78, 60:68, 40:48] = 70000
    labels[75, 65, 10] = 6
    structures = (Structure(id, acronym, f"The {acronym}", f"#{id % 256:02X}8040", path) for id, acronym, path in TREE)
    return labels, Terminology(tuple(structures))


def _make(
    folder: Path,
    annotation: list[Path],
    template: Path,
    terminology: Terminology,
    asked: list[int],
    recorded: dict[str, Any] | None,
    registered: bool = False,
) -> Path:
    layout, root = AtlasNames.of("allen-adult-mouse", "2017"), folder / "brainglobe-atlasapi"
    given = {"annotation": annotation, "template": template, "ontology": terminology}
    given["layout"] = ["assets", "brainglobe"] if registered else "brainglobe"
    credit = {"citation": "An invented brain" if "invented" in str(folder) else None, "species": "Mus musculus"}
    build_atlas(root, **given, name=layout.name, version=layout.version, **credit)
    references = _register(root) if registered else {}
    np.savez_compressed(folder / "references.npz", **references)
    assert verify(root).ok
    finished = Finished.at(Target.of(root / layout.annotation_set.folder / ANNOTATION))
    levels = {}
    for level, resolution in enumerate(finished.resolutions):
        shape = finished.multiscale.pyramid.levels[level].shape
        levels[f"{resolution[0]:g}"] = finished.read(level, tuple(map(slice, (0, 0, 0), shape)))
    np.testing.assert_array_equal(levels["25"], nrrd.read(annotation[0])[0])
    np.savez_compressed(folder / "expected.npz", **levels)
    expected = {
        "name": layout.name,
        "version": layout.version,
        "paths": {one.id: one.path for one in terminology},
        "names": {one.id: one.name for one in terminology},
        "asked": asked,
        "mesh_resolution": 50,
        "recorded": recorded,
    }
    (folder / "expected.json").write_text(json.dumps(expected))
    return folder


def _register(root: Path) -> dict[str, np.ndarray]:
    """Register a section dataset in an atlas, in grey; its level of 100 um, by the name it has there."""
    with Emulator() as emulator, AllenClient(emulator.url, cache="none", rate=1e9) as client:
        report = build(CORONAL_DATASET, root, atlas=root, grey=True, resolution=25, client=client)
    name = f"allen-adult-mouse-ish-{GENE_OF_CORONAL_DATASET.lower()}-{CORONAL_DATASET}-template"
    finished = Finished.at(Target.of(report.views[0].target))
    assert report.views[0].asset.split("/")[2] == name
    level = finished.resolutions.index((100.0,) * 3)
    shape = finished.multiscale.pyramid.levels[level].shape
    return {name: finished.read(level, tuple(map(slice, (0, 0, 0), shape)))}


def _saved(path: Path, values: np.ndarray) -> Path:
    """A volume of 25 um as NRRD; its axes run to posterior, inferior and left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = {
        "space": "left-posterior-superior",
        "space directions": np.array([[0, 25, 0], [0, 0, -25], [25, 0, 0]], float),
        "space units": ["um"] * 3,
    }
    nrrd.write(str(path), np.ascontiguousarray(values), header, compression_level=1)
    return path

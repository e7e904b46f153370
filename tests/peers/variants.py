"""Makes one of each kind of OME-Zarr that atlaszarr writes, in every version, and what others are to find in it.

Each is a folder of VARIANTS_FOLDER. ``expected.json`` has, by the name of the folder, its kind and version, the size of
a voxel in mm, the centre of the first voxel in mm of each image by its path, and of each array its shape, dtype and the
SHA-256 of its values in C order, little-endian.
"""

import csv
import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from published import CORONAL_DATASET

from atlaszarr import AllenClient, Terminology, build, build_atlas
from atlaszarr.engine.ome import Geometry
from atlaszarr.engine.ome_xml import Described, ome_xml
from atlaszarr.testing.emulator import Emulator
from atlaszarr.testing.ontology import structure_graph
from atlaszarr.testing.phantom_volumes import annotation_nrrd

VERSIONS = ("0.4", "0.5", "0.6")
RESOLUTION, COARSE = 100.0, 200.0
#: Centre of the first voxel of the finest published grid, in um from the corner of the space: the origin of all images.
ORIGIN = 5.0
#: Names that are no plain text in XML.
NAMES = ["<Image ID=\"Image:9\"/> & 'more' ]]>", "a\x00b\x1b[31mc\nd\te", "half \ud800 of a character", "µ αβ 脳"]


@cache
def variants(folder: Path) -> Path:
    """Make all variants once; returns the folder."""
    folder.mkdir()
    expected: dict[str, Any] = {}
    with Emulator() as emulator, AllenClient(emulator.url, cache="none", rate=1e9) as client:
        given: dict[str, Any] = {"resolution": COARSE, "chunk": 32, "client": client}
        for version in VERSIONS:
            target = folder / f"volume-{version}.ome.zarr"
            build(CORONAL_DATASET, target, ome_zarr=version, **given)
            expected[target.name] = _described(target, "volume", version, COARSE)
            if version != "0.4":
                target = folder / f"sharded-{version}.ome.zarr"
                build(CORONAL_DATASET, target, ome_zarr=version, shard=64, **given)
                expected[target.name] = _described(target, "volume", version, COARSE)
            target = folder / f"sections-{version}.ome.zarr"
            build(CORONAL_DATASET, target, ome_zarr=version, mode="sections", **given)
            expected[target.name] = _described(target, "sections", version, COARSE)
        (folder / "annotation.nrrd").write_bytes(annotation_nrrd(emulator.phantom, int(RESOLUTION)))
    ontology = Terminology.from_structure_graph(structure_graph()["msg"])
    for version in VERSIONS:
        atlas = folder / f"atlas-{version}"
        build_atlas(atlas, annotation=folder / "annotation.nrrd", ontology=ontology, ome_zarr=version)
        (annotation,) = atlas.glob("annotation-sets/*/*/annotation.ome.zarr")
        target = folder / f"annotation-{version}.ome.zarr"
        annotation.rename(target)
        expected[target.name] = _described(target, "annotation", version, RESOLUTION)
    images = [Described(name, (1, 2, 3), Geometry((0.1, 0.2, 0.3))) for name in NAMES]
    (folder / "names.ome.xml").write_bytes(ome_xml(images, "float32", [(name, "102030") for name in NAMES]) or b"")
    (folder / "expected.json").write_text(json.dumps(expected))
    return folder


def _described(target: Path, kind: str, version: str, resolution: float) -> dict[str, Any]:
    """What other programs are to find in a variant."""
    first = (resolution / 2 - ORIGIN) / 1000
    if kind == "sections":
        with (target / "atlaszarr/sections.csv").open() as file:
            rows = [row for row in csv.DictReader(file) if row["state"] != "skipped"]
        places = {row["path"]: [(float(row["coordinate_um"]) - ORIGIN) / 1000, first, first] for row in rows}
        names = {row["path"]: int(row["section_number"]) for row in rows}
        scale = [0.025, resolution / 1000, resolution / 1000]
    else:
        places, names, scale = {"": [first] * 3}, {}, [resolution / 1000] * 3
    images = list(places)[:: 12 if kind == "sections" else 1]
    labels = [f"{image}/labels/section".lstrip("/") for image in images if kind != "annotation"]
    finest = 1 if kind == "annotation" else 2
    levels = [f"{image}/{level}".lstrip("/") for image in (*images, *labels) for level in range(finest)]
    arrays = {}
    for path in levels:
        values = np.ascontiguousarray(zarr.open_array(target / path, mode="r")[:])
        little = values.astype(values.dtype.newbyteorder("<"))
        digest = hashlib.sha256(little.tobytes()).hexdigest()
        arrays[path] = {"shape": values.shape, "dtype": values.dtype.name, "sha256": digest}
    found = {"kind": kind, "version": version, "scale": scale, "places": places, "sections": names, "arrays": arrays}
    return json.loads(json.dumps(found))

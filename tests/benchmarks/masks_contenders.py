"""What `masks.py` starts: an annotation, invented or read, atlaszarr's masks of it, and the comparison of both."""

import json
import sys
import time
from pathlib import Path

import numpy as np

SIDE, REGIONS = 256, 64


def prepare(source: Path) -> None:
    """Labels in an ellipsoid of 64 patches, and a tree: the root, eight parents, eight regions of each."""
    source.mkdir()
    axis = np.arange(SIDE)
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij", sparse=True)
    distance = sum(((a - SIDE / 2) / (0.48 * SIDE)) ** 2 for a in (z, y, x))
    wave = (8 * np.sin(z / 17)).astype(int) + (8 * np.cos(x / 13)).astype(int)
    patch = (z + wave) // 64 % 4 * 16 + (y + wave) // 64 % 4 * 4 + x // 64
    np.save(source / "labels.npy", np.where(distance < 1, 100 + patch, 0).astype(np.uint32))
    paths = {1: [1], **{10 + i: [1, 10 + i] for i in range(8)}}
    paths |= {100 + i: [1, 10 + i // 8, 100 + i] for i in range(REGIONS)}
    structures = [
        {"id": id, "acronym": "root" if id == 1 else f"S{id}", "name": f"The {id}", "structure_id_path": path}
        for id, path in paths.items()
    ]
    (source / "structures.json").write_text(json.dumps(structures))


def read(source: Path, annotation: Path, ontology: Path) -> None:
    """The labels of an NRRD, and the tree of an ontology."""
    import nrrd

    from atlaszarr import Terminology

    source.mkdir()
    np.save(source / "labels.npy", nrrd.read(str(annotation))[0])
    structures = [
        {"id": one.id, "acronym": one.acronym, "name": one.name, "structure_id_path": list(one.path)}
        for one in Terminology.read(ontology)
    ]
    (source / "structures.json").write_text(json.dumps(structures))


def ours(source: Path, output: Path) -> None:
    """The annotation, which masks are made of, and the masks."""
    import dask.array as da

    from atlaszarr.annotation_set.masks import write_masks
    from atlaszarr.annotation_set.structure_order import PostOrder
    from atlaszarr.engine.finished_image import Finished
    from atlaszarr.engine.ome import Geometry
    from atlaszarr.stores.target import Target
    from atlaszarr.terminology.terminology import Structure, Terminology
    from atlaszarr.writing import write_multiscales

    tree = json.loads((source / "structures.json").read_text())
    terminology = Terminology(
        tuple(Structure(s["id"], s["acronym"], s["name"], "#FFFFFF", tuple(s["structure_id_path"])) for s in tree)
    )
    start = time.perf_counter()
    labels = da.from_array(np.load(source / "labels.npy"), chunks=128)
    annotation = Target.of(output / "annotation.ome.zarr")
    write_multiscales(labels, annotation.url, rule="mode", levels=1, geometry=Geometry((0.025,) * 3), identity="labels")
    write_masks(Finished.at(annotation), Target.of(output / "annotations.ome.zarr"), PostOrder.of(terminology))
    (output / "seconds.txt").write_text(str(time.perf_counter() - start))


def compare(ours: Path, theirs: Path) -> None:
    """Hold the masks of both to be the same."""
    import zarr

    one, other = (zarr.open_group(folder / "annotations.ome.zarr", mode="r") for folder in (ours, theirs))
    (level,) = (name for name, array in other.arrays() if array.ndim == 4)
    for channel in range(one["0"].shape[0]):
        np.testing.assert_array_equal(one["0"][channel], other[level][channel])


if __name__ == "__main__":
    {"prepare": prepare, "read": read, "ours": ours, "compare": compare}[sys.argv[1]](*map(Path, sys.argv[2:]))

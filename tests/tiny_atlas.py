"""A tiny atlas: its terminology, its labels, and the files of its sources and of its target."""

from pathlib import Path

import nrrd
import numpy as np

from atlaszarr import Terminology

GRAPH = [
    {
        "id": 997,
        "acronym": "root",
        "name": "root",
        "color_hex_triplet": "FFFFFF",
        "children": [
            {
                "id": 8,
                "acronym": "A",
                "name": "Area A",
                "color_hex_triplet": "FF7080",
                "children": [
                    {"id": 3, "acronym": "A1", "name": "Area A, one", "color_hex_triplet": "00FF00", "children": []},
                    {
                        "id": 3_000_000_003,
                        "acronym": "a1",
                        "name": "Area a, one",
                        "color_hex_triplet": "0000FF",
                        "children": [],
                    },
                ],
            },
            {"id": 7, "acronym": "B", "name": "Area B", "color_hex_triplet": "123456", "children": []},
        ],
    }
]

ONTOLOGY = Terminology.from_structure_graph(GRAPH)

SET = "annotation-sets/tiny-annotation/1"


def labels(shape=(40, 32, 36)):
    """Labels of nested boxes, off the midline, as uint32."""
    found = np.zeros(shape, np.uint32)
    for inset, label in ((2, 997), (5, 3), (9, 3_000_000_003), (12, 7)):
        found[inset:-inset, inset:-inset, inset : -inset - 1] = label
    return found


def save(path, values, um, encoding="gzip", sides="asl"):
    """Write an NRRD whose axes run to posterior, inferior and right (``asl``) or left (``asr``)."""
    across = um if sides == "asr" else -um
    header = {
        "space": "left-posterior-superior",
        "space directions": np.array([[0, um, 0], [0, 0, -um], [across, 0, 0]], float),
        "space units": ["um"] * 3,
        "encoding": encoding,
    }
    nrrd.write(str(path), values, header)
    return path


def files(folder: Path) -> dict[str, bytes]:
    """The content of all files in a folder, by path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def write_sources(folder):
    """Write an annotation and a template of 25 um, and return the options of `build_atlas` for them."""
    folder.mkdir()
    template = np.random.default_rng(0).integers(0, 4000, (40, 32, 36)).astype("uint16")
    return {
        "annotation": save(folder / "annotation.nrrd", labels(), 25),
        "template": save(folder / "template.nrrd", template, 25),
        "ontology": ONTOLOGY,
        "name": "tiny",
        "version": "1",
        "citation": "Tiny, T. (2026) An invented atlas",
        "species": "Mus inventus",
    }

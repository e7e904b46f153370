"""The structure graph of the phantom brain: real structures of the adult mouse, with all their ancestors.

A small part of structure graph 1 in the shape in which the API answers it. It knows names, ids and
parents; where a structure lies in the phantom is `phantom.py`'s business.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

#: Id of the structure that the brain outside every region is labelled with: root.
ROOT_ID = 997


@dataclass(frozen=True)
class Structure:
    """One structure of the graph, with the figures of the Allen Institute.

    Attributes
    ----------
    id : int
        Structure id, also its label in an annotation volume.
    parent_structure_id : int or None
        The structure it is part of; None for root.
    atlas_id : int or None
        Its id in the atlas it was first drawn in.
    acronym, name : str
        As published.
    color_hex_triplet : str
        Six hexadecimal digits, red first, without ``#``.
    graph_order : int
        Depth-first position in the full graph of 1327 structures.
    st_level : int
        Level in the hierarchy.
    """

    id: int
    parent_structure_id: int | None
    atlas_id: int | None
    acronym: str
    name: str
    color_hex_triplet: str
    graph_order: int
    st_level: int


def figures(name: str) -> Iterator[dict[str, str]]:
    """Rows of one of the package's tables; lines that begin with ``#`` are its heading."""
    text = (files(__package__) / "figures" / f"{name}.csv").read_text(encoding="utf-8")
    yield from csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))


@cache
def structures() -> dict[int, Structure]:
    """Structures by id, in graph order: every parent comes before its parts."""
    table = (
        Structure(
            id=int(row["id"]),
            parent_structure_id=int(row["parent_structure_id"]) if row["parent_structure_id"] else None,
            atlas_id=int(row["atlas_id"]) if row["atlas_id"] else None,
            acronym=row["acronym"],
            name=row["name"],
            color_hex_triplet=row["color_hex_triplet"],
            graph_order=int(row["graph_order"]),
            st_level=int(row["st_level"]),
        )
        for row in figures("structures")
    )
    return {structure.id: structure for structure in table}


def structure_graph() -> dict[str, Any]:
    """The answer to ``/structure_graph_download/1.json``: the envelope with the nested graph in `msg`."""
    nodes: dict[int, dict[str, Any]] = {}
    roots: list[dict[str, Any]] = []
    for structure in structures().values():
        node: dict[str, Any] = {
            "id": structure.id,
            "atlas_id": structure.atlas_id,
            "ontology_id": 1,
            "acronym": structure.acronym,
            "name": structure.name,
            "color_hex_triplet": structure.color_hex_triplet,
            "graph_order": structure.graph_order,
            "st_level": structure.st_level,
            "hemisphere_id": 3,
            "parent_structure_id": structure.parent_structure_id,
            "children": [],
        }
        nodes[structure.id] = node
        parent = structure.parent_structure_id
        (roots if parent is None else nodes[parent]["children"]).append(node)
    return {"success": True, "id": 0, "start_row": 0, "num_rows": len(roots), "total_rows": len(roots), "msg": roots}

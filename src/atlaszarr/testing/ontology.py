"""The structure graph of the phantom brain: structures of the adult mouse with all their ancestors.

A small part of structure graph 1, in the API's format. It has names, ids and parents; the positions of structures are
in `phantom.py`.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import Any

#: Id of the root structure: the label of the brain outside all regions.
ROOT_ID = 997


def figures(name: str) -> Iterator[dict[str, str]]:
    """The rows of a table of this package, without comment lines (``#``)."""
    text = (files(__package__) / "figures" / f"{name}.csv").read_text(encoding="utf-8")
    yield from csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))


@cache
def structures() -> dict[int, dict[str, Any]]:
    """The nodes of the graph by id, without ``children``, in graph order: parents before their children.

    ``graph_order`` is the depth-first position in the full graph of 1327 structures, ``st_level`` the level in the
    hierarchy; the parent of the root is None.
    """
    whole = ("id", "parent_structure_id", "atlas_id", "graph_order", "st_level")
    nodes: dict[int, dict[str, Any]] = {}
    for row in figures("structures"):
        numbers = {key: int(row[key]) if row[key] else None for key in whole}
        nodes[int(row["id"])] = {**row, **numbers, "ontology_id": 1, "hemisphere_id": 3}
    return nodes


def structure_graph() -> dict[str, Any]:
    """The answer to ``/structure_graph_download/1.json``: an envelope with the nested graph in `msg`."""
    nodes = {id: {**node, "children": []} for id, node in structures().items()}
    roots: list[dict[str, Any]] = []
    for node in nodes.values():
        parent = node["parent_structure_id"]
        (roots if parent is None else nodes[parent]["children"]).append(node)
    return {"success": True, "id": 0, "start_row": 0, "num_rows": len(roots), "total_rows": len(roots), "msg": roots}

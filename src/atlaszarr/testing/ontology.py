"""The structure graph of the phantom brain: real structures of the adult mouse, with all their ancestors.

A small part of structure graph 1 in the shape in which the API answers it. It knows names, ids and
parents; `phantom.py` knows where a structure lies.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import Any

#: Id of root, the label of the brain outside all regions.
ROOT_ID = 997


def figures(name: str) -> Iterator[dict[str, str]]:
    """Rows of one of the package's tables, without the lines that begin with ``#``."""
    text = (files(__package__) / "figures" / f"{name}.csv").read_text(encoding="utf-8")
    yield from csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))


@cache
def structures() -> dict[int, dict[str, Any]]:
    """Nodes of the graph by id, in graph order: every parent comes before its parts. They have no ``children``.

    ``graph_order`` is the depth-first position in the full graph of 1327 structures, ``st_level`` the level in the
    hierarchy, and the parent of root None.
    """
    whole = ("id", "parent_structure_id", "atlas_id", "graph_order", "st_level")
    nodes: dict[int, dict[str, Any]] = {}
    for row in figures("structures"):
        numbers = {key: int(row[key]) if row[key] else None for key in whole}
        nodes[int(row["id"])] = {**row, **numbers, "ontology_id": 1, "hemisphere_id": 3}
    return nodes


def structure_graph() -> dict[str, Any]:
    """The answer to ``/structure_graph_download/1.json``: the envelope with the nested graph in `msg`."""
    nodes = {id: {**node, "children": []} for id, node in structures().items()}
    roots: list[dict[str, Any]] = []
    for node in nodes.values():
        parent = node["parent_structure_id"]
        (roots if parent is None else nodes[parent]["children"]).append(node)
    return {"success": True, "id": 0, "start_row": 0, "num_rows": len(roots), "total_rows": len(roots), "msg": roots}

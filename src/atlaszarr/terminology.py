"""The structures of an atlas: ids, acronyms, names, colours and the tree they form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from .errors import NotFoundError, RecordError


@dataclass(frozen=True)
class Structure:
    """One structure of an ontology.

    Attributes
    ----------
    id : int
    acronym, name : str
    colour : str
        ``#RRGGBB``.
    path : tuple of int
        Ids from the root to this structure.
    """

    id: int
    acronym: str
    name: str
    colour: str
    path: tuple[int, ...]


@dataclass(frozen=True)
class Terminology:
    """The structures of an ontology, parents before children, in the order of the graph."""

    structures: tuple[Structure, ...]

    @classmethod
    def from_structure_graph(cls, roots: Sequence[Mapping[str, Any]]) -> Terminology:
        """From the nodes of a structure graph as the Allen API answers them.

        Raises
        ------
        RecordError
            If an id or an acronym occurs twice.
        """

        def walk(nodes: Sequence[Mapping[str, Any]], path: tuple[int, ...]) -> Iterator[Structure]:
            for node in nodes:
                here = (*path, int(node["id"]))
                colour = f"#{node['color_hex_triplet']}"
                yield Structure(here[-1], str(node["acronym"]), str(node["name"]), colour, here)
                yield from walk(node["children"], here)

        terminology = cls(tuple(walk(roots, ())))
        for what in ("id", "acronym"):
            values = [getattr(structure, what) for structure in terminology.structures]
            if twice := sorted({value for value in values if values.count(value) > 1}):
                raise RecordError(f"the structure graph has the {what} {twice[0]} more than once")
        return terminology

    def __getitem__(self, acronym: str) -> Structure:
        try:
            return self._by_acronym[acronym]
        except KeyError:
            raise NotFoundError(f"no structure has the acronym {acronym!r} (acronyms match by case)") from None

    def __len__(self) -> int:
        return len(self.structures)

    def __iter__(self) -> Iterator[Structure]:
        return iter(self.structures)

    def descendants(self, acronym: str) -> tuple[Structure, ...]:
        """A structure and all below it."""
        id = self[acronym].id
        return tuple(structure for structure in self.structures if id in structure.path)

    @cached_property
    def _by_acronym(self) -> dict[str, Structure]:
        return {structure.acronym: structure for structure in self.structures}

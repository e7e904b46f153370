"""The order of structures in masks: children before their parent, so that descendants are a run.

Pure data; knows nothing of images.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import RecordError
from ..terminology.rows import Identifier
from ..terminology.terminology import Structure, Terminology

#: The most structures with a label: indices are uint16, and the largest one stands for no structure.
MOST_STRUCTURES = 2**16 - 1


@dataclass(frozen=True)
class PostOrder:
    """The index of each structure that voxels may hold.

    A structure without an annotation value has no index; its descendants belong to its nearest ancestor that has one.

    Attributes
    ----------
    values : tuple of int
        The annotation value of the structure at each index.
    firsts : tuple of int
        The first index of each structure's descendants; they and the structure are all indices from it to its own.
    """

    values: tuple[int, ...]
    firsts: tuple[int, ...]

    @classmethod
    def of(cls, terminology: Terminology) -> PostOrder:
        """The post-order of a terminology, with siblings and roots in its order.

        Raises
        ------
        RecordError
            If a parent is missing, no structure has an annotation value, or more than 65,535 have one.
        """
        children: dict[Identifier | None, list[Structure]] = {}
        for structure in terminology:
            children.setdefault(structure.parent_id, []).append(structure)
        values: list[int] = []
        firsts: list[int] = []
        visited: set[Identifier] = set()
        pending: list[tuple[Structure, int | None]] = [(root, None) for root in reversed(children.get(None, []))]
        while pending:
            structure, first = pending.pop()
            if first is None:
                visited.add(structure.id)
                pending.append((structure, len(values)))
                pending += [(child, None) for child in reversed(children.get(structure.id, []))]
            elif structure.value is not None:
                values.append(structure.value)
                firsts.append(first)
        if lost := [structure.id for structure in terminology if structure.id not in visited]:
            raise RecordError(
                f"structure {lost[0]} has a parent that the terminology does not list", code="missing-parent"
            )
        if not values:
            raise RecordError(
                "no structure of the terminology has an annotation value, so that no voxel can hold one; give a "
                "terminology with the labels of the annotation",
                code="missing-annotation-value",
            )
        if len(values) > MOST_STRUCTURES:
            raise RecordError(
                f"the terminology has {len(values)} structures with an annotation value; the most is {MOST_STRUCTURES}",
                code="too-many-structures",
            )
        return cls(tuple(values), tuple(firsts))

    def __len__(self) -> int:
        return len(self.values)

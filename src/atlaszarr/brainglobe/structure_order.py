"""The order of structures in BrainGlobe's masks: children before their parent, so that descendants are a run.

Pure data; knows nothing of images.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import RecordError
from ..terminology.terminology import Structure, Terminology


@dataclass(frozen=True)
class PostOrder:
    """The index of each structure.

    Attributes
    ----------
    identifiers : tuple of int
        The structure at each index; the last is the root.
    firsts : tuple of int
        The first index of each structure's descendants; they and the structure are all indices from it to its own.
    """

    identifiers: tuple[int, ...]
    firsts: tuple[int, ...]

    @classmethod
    def of(cls, terminology: Terminology) -> PostOrder:
        """The post-order of a terminology, with siblings in its order.

        Raises
        ------
        RecordError
            If it is not one tree with the root ``root``, which BrainGlobe's reader needs, or an identifier is not
            from 1 to 2**32 - 1.
        """
        children: dict[int | None, list[Structure]] = {}
        for structure in terminology:
            if structure.path[-1] != structure.id or not 0 < structure.id < 2**32:
                raise RecordError(
                    f"structure {structure.id} ({structure.acronym}) must have an identifier from 1 to {2**32 - 1}",
                    code="invalid-id",
                )
            children.setdefault(structure.path[-2] if len(structure.path) > 1 else None, []).append(structure)
        roots = children.get(None, [])
        if [root.acronym for root in roots] != ["root"]:
            named = ", ".join(root.acronym for root in roots) or "none"
            raise RecordError(
                f"BrainGlobe needs one tree with the root 'root'; the terminology has the roots {named}",
                code="wrong-root",
            )
        identifiers: list[int] = []
        firsts: list[int] = []
        pending: list[tuple[Structure, int | None]] = [(roots[0], None)]
        while pending:
            structure, first = pending.pop()
            if first is None:
                pending.append((structure, len(identifiers)))
                pending += [(child, None) for child in reversed(children.get(structure.id, []))]
            else:
                identifiers.append(structure.id)
                firsts.append(first)
        if len(identifiers) != len(terminology):
            lost = {structure.id for structure in terminology} - set(identifiers)
            raise RecordError(
                f"structure {min(lost)} has a parent that the terminology does not list", code="missing-parent"
            )
        return cls(tuple(identifiers), tuple(firsts))

    def __len__(self) -> int:
        return len(self.identifiers)

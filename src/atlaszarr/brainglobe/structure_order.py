"""The order of structures that BrainGlobe's masks lie in: children before their parent, so that descendants are a run.

Pure data; knows nothing of images.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import RecordError
from ..terminology.terminology import Structure, Terminology


@dataclass(frozen=True)
class PostOrder:
    """Structures by their index.

    Attributes
    ----------
    identifiers : tuple of int
        The structure at each index; the last is the root.
    firsts : tuple of int
        The first index of each structure's descendants: it and they are all from there to its own.
    """

    identifiers: tuple[int, ...]
    firsts: tuple[int, ...]

    @classmethod
    def of(cls, terminology: Terminology) -> PostOrder:
        """The post-order of a terminology, siblings as it lists them.

        Raises
        ------
        RecordError
            If it is not one tree whose root is called ``root``, as BrainGlobe's reader needs it, or an identifier is
            not from 1 to 2**32 - 1.
        """
        children: dict[int | None, list[Structure]] = {}
        for structure in terminology:
            if structure.path[-1] != structure.id or not 0 < structure.id < 2**32:
                raise RecordError(f"structure {structure.id} ({structure.acronym}) has no identifier to be drawn with")
            children.setdefault(structure.path[-2] if len(structure.path) > 1 else None, []).append(structure)
        roots = children.get(None, [])
        if [root.acronym for root in roots] != ["root"]:
            named = ", ".join(root.acronym for root in roots) or "none"
            raise RecordError(f"BrainGlobe needs one tree with the root 'root'; the terminology has the roots {named}")
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
            raise RecordError(f"structure {min(lost)} has a parent that the terminology does not list")
        return cls(tuple(identifiers), tuple(firsts))

    def __len__(self) -> int:
        return len(self.identifiers)

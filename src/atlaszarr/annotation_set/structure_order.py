"""The order of structures in BrainGlobe's masks: children before their parent, so that descendants are a run.

Pure data; knows nothing of images.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import RecordError
from ..terminology.rows import LARGEST_LABEL, Identifier
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
            If it is not one tree with the root ``root``, an identifier is not the label of its voxels, or two
            structures have the same acronym: BrainGlobe's reader takes identifiers for labels and looks structures up
            by acronym.
        """
        children: dict[Identifier | None, list[Structure]] = {}
        for structure in terminology:
            id, name = structure.id, f"{structure.id} ({structure.acronym})"
            if not isinstance(id, int) or structure.path[-1] != id or not 0 < id <= LARGEST_LABEL:
                raise RecordError(
                    f"structure {name} must have an identifier from 1 to {LARGEST_LABEL} for BrainGlobe, which takes "
                    "identifiers for labels; give such a terminology",
                    code="invalid-id",
                )
            if structure.value not in (None, id):
                raise RecordError(
                    f"voxels of structure {name} hold {structure.value}, but BrainGlobe takes identifiers for labels; "
                    "give a terminology whose identifiers are the labels",
                    code="identifier-is-not-label",
                )
            children.setdefault(structure.path[-2] if len(structure.path) > 1 else None, []).append(structure)
        roots = children.get(None, [])
        if [root.acronym for root in roots] != ["root"]:
            named = ", ".join(root.acronym for root in roots) or "none"
            raise RecordError(
                f"BrainGlobe needs one tree with the root 'root'; the terminology has the roots {named}",
                code="wrong-root",
            )
        acronyms: dict[str, Identifier] = {}
        for structure in terminology:
            if (other := acronyms.setdefault(structure.acronym, structure.id)) != structure.id:
                raise RecordError(
                    f"structures {other} and {structure.id} have the acronym {structure.acronym!r}, by which "
                    "BrainGlobe looks structures up; give each its own",
                    code="duplicate-acronym",
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
                identifiers.append(int(structure.id))
                firsts.append(first)
        if len(identifiers) != len(terminology):
            lost = {structure.id for structure in terminology} - set(identifiers)
            raise RecordError(
                f"structure {min(lost)} has a parent that the terminology does not list", code="missing-parent"
            )
        return cls(tuple(identifiers), tuple(firsts))

    def __len__(self) -> int:
        return len(self.identifiers)

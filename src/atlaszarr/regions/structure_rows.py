"""The rows of a table of structures: those of a terminology, and labels that it lacks."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from ..errors import AtlaszarrWarning, InputError
from ..terminology.terminology import Terminology, refuse_other_ontology

if TYPE_CHECKING:
    import pandas as pd

#: The number of unknown labels that a warning lists.
_NAMED = 5


@dataclass(frozen=True)
class StructureRows:
    """The rows of the structures of a terminology, in its order, and of labels that it lacks, after them.

    Attributes
    ----------
    structures : Terminology
    unknown : tuple of int
        The labels without a structure.
    """

    structures: Terminology
    unknown: tuple[int, ...]

    @classmethod
    def of(cls, structures: Terminology, ids: Iterable[int], allow_unknown: bool) -> StructureRows:
        """The rows for the labels of an annotation, without 0.

        Raises
        ------
        InputError
            If the terminology names under half of the labels, unless `allow_unknown`; if a negative label is that of
            a structure with its sign reversed.
        """
        labels = list(map(int, ids))
        known = {structure.value for structure in structures}
        unknown = tuple(label for label in labels if label not in known)
        if (negative := next((label for label in unknown if label < 0 and -label in known), None)) is not None:
            raise InputError(
                f"the annotation has the label {negative}, and {-negative} is a structure; if negative labels mark one "
                "side, save absolute values: by_hemisphere (--by-hemisphere) counts the sides",
                code="invalid-label",
            )
        if not allow_unknown:
            refuse_other_ontology(len(unknown), len(labels), "the annotation", "--terminology")
        return cls(structures, unknown)

    def __len__(self) -> int:
        return len(self.structures) + len(self.unknown)

    @cached_property
    def _row_of(self) -> dict[int, int]:
        known = {structure.value: row for row, structure in enumerate(self.structures) if structure.value is not None}
        return known | {label: len(self.structures) + position for position, label in enumerate(self.unknown)}

    def rows(self, ids: Iterable[int]) -> list[int]:
        """The row of each label."""
        return [self._row_of[int(label)] for label in ids]

    def frame(self) -> pd.DataFrame:
        """A table with the columns ``acronym`` and ``name``, indexed by ``identifier``."""
        import pandas as pd

        structures, unknown = self.structures, self.unknown
        return pd.DataFrame(
            {
                "acronym": [*(s.acronym for s in structures), *("" for _ in unknown)],
                "name": [*(s.name for s in structures), *(f"label {id}, not in the terminology" for id in unknown)],
            },
            index=pd.Index([*(s.id for s in structures), *_as_identifiers(unknown, structures)], name="identifier"),
        )

    def add_descendants(self, add: Callable[[int, int], None]) -> None:
        """Call ``add(parent, child)`` with the rows of each structure and its parent, the deepest first.

        Children follow their parents, so the calls run backwards, and each row is complete when it is added.
        """
        rows = {structure.id: row for row, structure in enumerate(self.structures)}
        for row, structure in reversed(list(enumerate(self.structures))):
            if (parent := structure.parent_id) is not None:
                add(rows[parent], row)

    def warn(self, stacklevel: int) -> None:
        """Warn of labels that are not in the terminology."""
        if unknown := self.unknown:
            more = f" and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""
            warnings.warn(
                f"the annotation has labels that are not in the terminology: {', '.join(map(str, unknown[:_NAMED]))}"
                f"{more}; they are the last rows of the table",
                AtlaszarrWarning,
                stacklevel=stacklevel + 1,
            )


def _as_identifiers(unknown: Sequence[int], structures: Terminology) -> Sequence[int | str]:
    """The index of rows of labels without a structure, which must not be the identifier of a structure."""
    ids = {structure.id for structure in structures}
    if all(isinstance(id, int) for id in ids):
        reversed_sign = [-label for label in unknown]
        for labels in (unknown, reversed_sign) if structures.has_labels_as_ids else (reversed_sign,):
            if ids.isdisjoint(labels):
                return labels
    return [f"label {label}" for label in unknown]

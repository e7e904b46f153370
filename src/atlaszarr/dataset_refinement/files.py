"""The objects of a refinement in its target, as its ledger describes them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from ..allen.records import MOST_SECTIONS
from ..boxes import Index, Shape
from ..engine.ledger import Defect, Ledger, Task
from ..engine.multiscale import ArraySpec, Multiscale
from ..engine.pyramid import NonEmptyChunks, Pass, Pyramid
from ..stores.target import Target

#: The steps of each section: scores of depths, fit at its corrected depth, field that agrees with those of neighbours.
SCORES, FITS, FIELDS = STEPS = range(3)
#: Folder of the fitted fields until the refinement is finished.
FITTED = "atlaszarr/fitted"


def task_of(position: int, step: int) -> Task:
    """The task of a step of a section, given by its position in the dataset."""
    return 0, (position, step, 0)


@dataclass(frozen=True, kw_only=True)
class RefinementFiles(Multiscale, kind="refinement"):
    """A folder with a field for each section that is refined, without levels. Tasks refer to sections and steps.

    Attributes
    ----------
    ids : tuple of int
        SectionImage ids of all sections, in order of depth.
    """

    ids: tuple[int, ...]

    @classmethod
    def of(cls, target: Target, ids: Sequence[int]) -> Self:
        """The fields of sections in a target."""
        sections = NonEmptyChunks(Pyramid.over((len(ids), 1, 1), 1, 1))
        return cls(target, (ArraySpec("", "float32"),), sections, ids=tuple(ids))

    @classmethod
    def recorded(cls, target: Target, described: Mapping[str, Any], written: Collection[str], **own: Any) -> Self:
        """Same as `Multiscale.recorded`."""
        ids = described["refinement"]["sections"]
        known = super().recorded(target, described, written, ids=tuple(ids), **own)
        if not (all(type(id) is int for id in ids) and len(ids) == known.pyramid.shape[0] <= MOST_SECTIONS):
            raise ValueError(f"{len(ids)} sections")
        return known

    def to_json(self) -> dict[str, Any]:
        """Same as in `Multiscale`, with the ids of the sections."""
        return {**super().to_json(), "refinement": {"sections": list(self.ids)}}

    def documents(self) -> dict[str, bytes]:
        """None: those of a field are written with it."""
        return {}

    def paths(self) -> Iterator[tuple[ArraySpec, int, str]]:
        """None, since the ledger records the metadata of each field as its objects."""
        return iter(())

    @property
    def prefixes(self) -> tuple[str, ...]:
        """Prefixes of the keys of all fields."""
        return (f"{FITTED}/", *(f"{id}.ome.zarr/" for id in self.ids))

    def blocks(self, step: Pass) -> Shape:
        """The index of a task is that of the section and of the step."""
        return len(self.ids), len(STEPS), 1

    def block_name(self, level: int, index: Index) -> str:
        """The name of a task in messages."""
        return f"the {('scores', 'fit', 'field')[index[1]]} of section image {self.ids[index[0]]}"

    def contents(
        self, request: Mapping[str, Any], found: Ledger, tasks: Sequence[Task], most: int | None
    ) -> Iterator[Defect]:
        """No defects: there are no levels to compare, and the digests of all objects are compared already."""
        return iter(())

    def counts(self, found: Ledger, tasks: Sequence[Task]) -> Mapping[str, int]:
        """The sections, and those of them that have a field."""
        fields = sum(bool(found.done[task].written) for task in found.done if task[1][1] == FIELDS)
        return {"sections": len(self.ids), "fields": fields}

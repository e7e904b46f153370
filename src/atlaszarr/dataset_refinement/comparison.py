"""Compare the sections of a dataset with an annotation, one at a time: what the tasks of a refinement compute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..allen.images import Pixels, SectionImage
from ..allen.records import SectionDataset
from ..geometry.grid import Grid
from ..previews.annotation_planes import VolumePlanes
from ..refinement.arrays import pixels_joined
from ..refinement.depth import (
    OFFSETS,
    Expectation,
    SectionDepth,
    depth_scores,
    find_section,
)
from ..refinement.section import FITTED, NEARBY, Figures, RefinedSection, figures_of, refine_section
from ..sections.options import SectionsOptions
from ..sections.planes import SectionPlanes

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Comparison:
    """The sections of a dataset, and planes of an annotation to compare them with. Small and picklable.

    Attributes
    ----------
    dataset : SectionDataset
    options : SectionsOptions
    labels : VolumePlanes
        Of the annotation.
    template : VolumePlanes or None
    hold_out : tuple of int
        Labels that take no part in the depth and the fit.
    """

    dataset: SectionDataset
    options: SectionsOptions
    labels: VolumePlanes
    template: VolumePlanes | None = None
    hold_out: tuple[int, ...] = ()

    @property
    def grid(self) -> Grid:
        """The grid whose planes the sections are registered to."""
        return Grid(self.labels.space, self.options.resolution)

    @property
    def depths(self) -> list[float]:
        """The recorded depths of all sections, in um."""
        return [section.depth for section in self.dataset.sections]

    @property
    def factor(self) -> int:
        """How many pixels of the grid, along each axis, are one of those at which sections are fitted."""
        return pixels_joined(FITTED, self.options.resolution)

    def planes(self, position: int, correction: float = 0.0) -> SectionPlanes:
        """One section as a plane, at its recorded depth plus a correction in um."""
        section = self.dataset.sections[position]
        moved = replace(section, depth=section.depth + correction)
        return self.options.planes(replace(self.dataset, sections=(moved,)), stored=False)

    def scores(self, position: int, image: SectionImage) -> dict[str, Any]:
        """How well a section fits at each of `OFFSETS` of its depth, in JSON's types.

        ``explained`` and ``levels`` are those of `atlaszarr.refinement.depth.DepthScores`, and mean nothing without
        contrast; ``correlation`` is that at the best offset.
        """
        at = self._at_offsets(position)
        pixels, inside = self.planes(position).register_whole(0, image)
        labels = self._read(self.labels, at)
        template = self._greys(at)
        compared = self._compared(labels)
        scores = depth_scores(pixels, inside, labels, self.options.resolution, template, compared)
        best = int(scores.explained.argmax())
        still, greys = np.zeros((2, *inside.shape)), None if template is None else template[best]
        shown = inside & compared
        figures = figures_of(pixels, shown, labels[best], still, self.options.resolution, template=greys)
        return {
            "explained": scores.explained.tolist(),
            "levels": scores.levels.to_json(),
            "correlation": max(figures.correlation, figures.unseen),
        }

    def fit(self, position: int, expected: Expectation, image: SectionImage) -> Fit:
        """Find the depth of a section, and fit it there; see `atlaszarr.refinement.section.refine_section`."""
        pixels, inside = self.planes(position).register_whole(0, image)
        planes = self._read(self.labels, self._at_offsets(position))
        resolution = self.options.resolution
        depth = find_section(pixels, inside, planes, expected, resolution, self._compared(planes))
        given, template = self._given(position, depth.correction, image)
        at = [float(self.planes(position, depth.correction + um).coordinates[0]) for um in NEARBY]
        nearby = self._read(self.labels, at)
        section = refine_section(*given, resolution, template=template, hold_out=self.hold_out, nearby=nearby)
        if depth.turned:
            section = section.refused("orientation")
        recorded = section.before
        if depth.correction:
            recorded = self.figures(position, 0.0, image, np.zeros_like(section.field))
        return Fit(section, recorded, depth)

    def figures(self, position: int, correction: float, image: SectionImage, field: Array) -> Figures:
        """How well a field, in um and x first, fits a section at a corrected depth."""
        given, template = self._given(position, correction, image)
        return figures_of(*given, field, self.options.resolution, template=template)

    def _given(
        self, position: int, correction: float, image: SectionImage
    ) -> tuple[tuple[Pixels, Mask, NDArray[Any]], NDArray[Any] | None]:
        """A section in its plane at a corrected depth, where it lies inside its image, and labels; and the template."""
        planes = self.planes(position, correction)
        at = planes.coordinates.tolist()
        greys = self._greys(at)
        template = greys[0] if greys else None
        return (*planes.register_whole(0, image), self._read(self.labels, at)[0]), template

    def _at_offsets(self, position: int) -> list[float]:
        """The slice coordinates of a section at `OFFSETS` of its depth, in um."""
        return [float(self.planes(position, offset).coordinates[0]) for offset in OFFSETS]

    def _compared(self, planes: Sequence[NDArray[Any]]) -> Mask:
        """The pixels that are not held out in any of the planes of the annotation."""
        return np.asarray(~np.logical_or.reduce([np.isin(labels, self.hold_out) for labels in planes]))

    def _greys(self, coordinates: Sequence[float]) -> list[NDArray[Any]] | None:
        """Planes of the template, 0 where it has no value."""
        if self.template is None:
            return None
        return [np.nan_to_num(plane, posinf=0.0, neginf=0.0) for plane in self._read(self.template, coordinates)]

    def _read(self, volume: VolumePlanes, coordinates: Sequence[float]) -> list[NDArray[Any]]:
        volume.require_reachable()
        return volume.on_grid(coordinates, self.grid)


@dataclass(frozen=True)
class Fit:
    """A fitted section.

    Attributes
    ----------
    section : RefinedSection
        At the depth at which it was fitted.
    recorded : Figures
        Of the recorded registration at the recorded depth.
    depth : SectionDepth
    """

    section: RefinedSection
    recorded: Figures
    depth: SectionDepth

    def to_json(self) -> dict[str, Any]:
        """All but the field, in JSON's types."""
        content = {each.name: getattr(self.section, each.name) for each in fields(RefinedSection)}
        del content["field"]
        content |= {name: asdict(content[name]) for name in ("before", "after")}
        content |= {"deformation": list(self.section.deformation), "recorded": asdict(self.recorded)}
        return {**content, **self.depth._asdict()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Fit:
        """The inverse of `to_json`, with an empty field."""
        known = {**content, "field": np.zeros((2, 0, 0)), "deformation": tuple(content["deformation"])}
        known |= {name: Figures(**content[name]) for name in ("before", "after")}
        recorded = Figures(**known.pop("recorded"))
        depth = SectionDepth(**{name: known.pop(name) for name in SectionDepth._fields})
        return cls(RefinedSection(**known), recorded, depth)

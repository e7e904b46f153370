"""The sections of a dataset as planes of a reference space: one plane a section, at its slice coordinate. No I/O.

The classic way to register: the whole of a section is taken to lie where one point of it does, parallel to two axes of
the space. A pixel of the plane is pulled back through the 3-D and the 2-D alignment; the resulting depth is
unused, since the section is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..allen.images import ImagedSections, Pixels
from ..allen.records import Section
from ..boxes import Box
from ..displacement.displacement import Displacement
from ..displacement.fields import AffineField
from ..geometry.grid import Grid
from ..geometry.plane import Plane
from ..resampling.coverage import extent_inside, inside_image
from ..resampling.sampler import corner_footprint, footprint, known, resample
from ..transforms import Affine, apply, compose, image_to_reference
from .alignment import AlignedSections, check_fields, plane_of

#: Where on a section its slice coordinate is taken: a pixel of the full-resolution image, or the centre of each.
DetectionPoint = tuple[float, float] | Literal["centre", "center"]

#: The outermost pixels of an image extend beyond their centres.
_BORDER = "replicate"


@dataclass(frozen=True, eq=False)
class SectionPlanes:
    """The sections of one dataset as planes over the same pixels.

    Attributes
    ----------
    grid : Grid
    plane : Plane
    imaged : ImagedSections
        The sections in order of depth, and the whole image of each at its tier.
    coordinates : ndarray, float64, shape (sections,)
        Slice coordinate of each, in um along the fixed axis: there its detection point lies.
    displacements : tuple of Displacement
        For each, pixel (x, y) = (column, row) of the plane to pixel (X, Y) of the tier image.
    interpolation : str
        Within the image; see `atlaszarr.resampling.sampler.resample`.
    """

    grid: Grid
    plane: Plane
    imaged: ImagedSections
    coordinates: NDArray[np.float64]
    displacements: tuple[Displacement, ...]
    interpolation: str

    @cached_property
    def positions(self) -> dict[int, int]:
        """The index of each section by its SectionImage id."""
        return {section.image_id: k for k, section in enumerate(self.imaged.sections)}

    @property
    def shape(self) -> tuple[int, int]:
        """Pixels of a plane: rows and columns."""
        return self.plane.shape(self.grid)

    def size(self, section: int) -> tuple[int, int]:
        """Width and height of the tier image of a section."""
        request = self.imaged.requests[section]
        return request.width, request.height

    def box(self, section: int, rows: slice, columns: slice) -> Box | None:
        """The pixels of the tier image that a block of a plane samples; None if the block lies outside the image.

        A pixel of the plane lies inside the image where -1/2 <= X < width - 1/2, and likewise in Y.
        """
        field, size = self.displacements[section].field, self.size(section)
        if isinstance(field, AffineField):
            extent = extent_inside(field.matrix, size, rows, columns)
            return None if extent is None else corner_footprint(extent, size, self.interpolation, _BORDER)
        xy = field.coordinates(rows, columns)
        xy[:, ~inside_image(xy, size)] = np.nan
        return footprint(xy, size, self.interpolation, _BORDER)

    def register(
        self, section: int, rows: slice, columns: slice, box: Box | None, pixels: Pixels | None, background: int = 0
    ) -> tuple[Pixels, NDArray[np.bool_]]:
        """A block of a plane.

        Parameters
        ----------
        section : int
            Its index in `imaged`.
        rows, columns : slice
        box : tuple of int, or None
            The `box` of the block.
        pixels : ndarray, uint8, shape (height, width, 3), or None
            The pixels of the tier image in that box; None if they are missing.
        background : int
            Grey level outside the image.

        Returns
        -------
        image : ndarray, uint8, shape (rows, columns, 3)
        shown : ndarray, bool, shape (rows, columns)
            Which pixels lie inside the image. Its outermost pixels extend beyond their centres.
        """
        shape = (rows.stop - rows.start, columns.stop - columns.start)
        if box is None or pixels is None:
            return np.full((*shape, 3), background, np.uint8), np.zeros(shape, bool)
        xy = self.displacements[section].coordinates(rows, columns)
        shown = inside_image(xy, self.size(section))
        xy[:, ~shown] = np.nan
        image = resample(pixels, xy, self.interpolation, _BORDER, background, origin=box[:2], size=self.size(section))
        image[~shown] = background
        return image, shown


def section_planes(
    aligned: AlignedSections,
    *,
    plane: str = "auto",
    stored: bool = False,
    interpolation: str = "linear",
    detection_xy: DetectionPoint = (0.0, 0.0),
    displacement: Mapping[int, Displacement] | None = None,
) -> SectionPlanes:
    """Lay sections into planes of the space that they are aligned with.

    Parameters
    ----------
    aligned : AlignedSections
    plane : str
        ``coronal``, ``sagittal``, ``transverse`` (or ``horizontal``, ``axial``); ``auto`` for the one that the dataset
        was cut in.
    stored : bool
        Whether the axes of the plane come in the order of an array (z, y, x), so that a sagittal plane has p down its
        rows; else in the field's orientation.
    interpolation : str
        ``nearest``, ``linear``, ``cubic`` or ``lanczos``.
    detection_xy : tuple of float or "centre" (or "center")
        The pixel (X, Y) of the full-resolution images at which their slice coordinates are taken; ``centre``: that of
        each image.
    displacement : mapping of int to Displacement, optional
        By SectionImage id, fields that replace the affine ones: pixels of the plane to those of the tier image.

    Raises
    ------
    InputError
        If an option is not known or does not fit the dataset.
    """
    known(interpolation, _BORDER)
    grid, sections = aligned.grid, aligned.imaged.sections
    across = plane_of(aligned.dataset, plane)
    across = across.as_stored if stored else across
    coordinates = _coordinates(aligned, across, detection_xy)
    given = {} if displacement is None else displacement
    check_fields(given, aligned.dataset, across, grid)

    def field(section: Section, coordinate: float, to_tier: Affine) -> Displacement:
        if section.image_id in given:
            return given[section.image_id]
        to_section = compose(aligned.to_section[:2], across.to_reference(grid, coordinate))
        return Displacement.from_affine(across.shape(grid), compose(to_tier, to_section))

    fields = tuple(map(field, sections, coordinates, aligned.to_tiers))
    return SectionPlanes(grid, across, aligned.imaged, coordinates, fields, interpolation)


def _coordinates(aligned: AlignedSections, plane: Plane, detection_xy: DetectionPoint) -> NDArray[np.float64]:
    tvr, _ = aligned.dataset.alignment
    points = []
    for section in aligned.imaged.sections:
        xy = (
            ((section.width - 1) / 2, (section.height - 1) / 2)
            if detection_xy in ("centre", "center")
            else detection_xy
        )
        points.append(image_to_reference(xy, section.depth, section.tsv, tvr))
    return np.asarray(apply(aligned.from_native, points)[:, plane.fixed])

"""The sections of a dataset as planes of a reference space: one plane per section, at its slice coordinate. No I/O.

As in atldld, a section is treated as a plane parallel to two axes of the space, at the slice coordinate of one of its
points. A pixel of the plane is mapped through the 3-D and the 2-D alignment to a pixel of the image; the depth is not
used.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..allen.images import ImagedSections, Pixels, SectionImage
from ..allen.records import Section
from ..boxes import Box
from ..displacement.displacement import Displacement
from ..displacement.fields import AffineField
from ..geometry.grid import Grid
from ..geometry.plane import Plane
from ..resampling.coverage import extent_inside, inside_image
from ..resampling.sampler import corner_footprint, footprint, resample, validate_names
from ..transforms import Affine, apply, compose, image_to_reference
from .alignment import AlignedSections, plane_of

#: The point of an image that defines its slice coordinate: a pixel (X, Y) at full resolution, or the centre.
DetectionPoint = tuple[float, float] | Literal["centre", "center"]

#: The outermost pixels of an image extend half a pixel beyond their centres.
_BORDER = "replicate"


@dataclass(frozen=True, eq=False)
class SectionPlanes:
    """The sections of one dataset as planes over the same pixels.

    Attributes
    ----------
    grid : Grid
    plane : Plane
    imaged : ImagedSections
        The sections in order of depth, with the whole image of each at its tier.
    coordinates : ndarray, float64, shape (sections,)
        Slice coordinate of each section: of its detection point, in um along the fixed axis.
    displacements : tuple of Displacement
        For each section, pixel (x, y) = (column, row) of the plane to pixel (X, Y) of the tier image.
    interpolation : str
        Interpolation within the image; see `atlaszarr.resampling.sampler.resample`.
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
        """The box of the tier image that a block of a plane samples; None if the block lies outside the image.

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
        """Register a block of a plane.

        Parameters
        ----------
        section : int
            Index of the section in `imaged`.
        rows, columns : slice
        box : tuple of int, or None
            The result of `box` for the block.
        pixels : ndarray, uint8, shape (height, width, 3), or None
            The pixels of the tier image in `box`; None if the image is missing.
        background : int
            Grey level outside the image.

        Returns
        -------
        image : ndarray, uint8, shape (rows, columns, 3)
        inside : ndarray, bool, shape (rows, columns)
            Whether each pixel lies inside the image.
        """
        shape = (rows.stop - rows.start, columns.stop - columns.start)
        if box is None or pixels is None:
            return np.full((*shape, 3), background, np.uint8), np.zeros(shape, bool)
        xy = self.displacements[section].coordinates(rows, columns)
        inside = inside_image(xy, self.size(section))
        xy[:, ~inside] = np.nan
        image = resample(pixels, xy, self.interpolation, _BORDER, background, origin=box[:2], size=self.size(section))
        image[~inside] = background
        return image, inside

    def register_whole(
        self, section: int, image: SectionImage, background: int = 255
    ) -> tuple[Pixels, NDArray[np.bool_]]:
        """Register a section to its whole plane, given its image; see `register`."""
        rows, columns = (slice(0, length) for length in self.shape)
        box, pixels = self.box(section, rows, columns), None
        if box is not None:
            left, top, right, bottom = box
            pixels = image.request.decode(image.body)[top:bottom, left:right]
        return self.register(section, rows, columns, box, pixels, background)


def section_planes(
    aligned: AlignedSections,
    *,
    plane: str = "auto",
    stored: bool = False,
    interpolation: str = "linear",
    detection_xy: DetectionPoint = (0.0, 0.0),
) -> SectionPlanes:
    """Register sections to planes of the space that they are aligned with.

    Parameters
    ----------
    aligned : AlignedSections
    plane : str
        ``coronal``, ``sagittal``, ``transverse`` (or ``horizontal``, ``axial``), or ``auto`` for the plane that the
        dataset was cut in.
    stored : bool
        Whether rows and columns are in the order of an array (z, y, x), so that the rows of a sagittal plane run
        along p. Otherwise superior is up and anterior left, as usual in the field.
    interpolation : str
        ``nearest``, ``linear``, ``cubic`` or ``lanczos``.
    detection_xy : tuple of float or "centre" (or "center")
        The full-resolution pixel (X, Y) that defines the slice coordinate of each section; ``centre`` for the centre
        of each image.

    Raises
    ------
    InputError
        If an option is unknown or does not fit the dataset.
    """
    validate_names(interpolation, _BORDER)
    grid, sections = aligned.grid, aligned.imaged.sections
    across = plane_of(aligned.dataset, plane)
    across = across.as_stored if stored else across
    coordinates = _coordinates(aligned, across, detection_xy)
    pixels = aligned.pixels(across)

    def field(section: Section, coordinate: float, to_tier: Affine) -> Displacement:
        recorded = compose(to_tier, compose(aligned.to_section[:2], across.to_reference(grid, coordinate)))
        found = None
        if aligned.fields is not None:
            found = aligned.fields.displacement(section.image_id, pixels, recorded)
        return Displacement.from_affine(across.shape(grid), recorded) if found is None else found

    fields = tuple(map(field, sections, coordinates, aligned.to_tiers))
    return SectionPlanes(grid, across, aligned.imaged, coordinates, fields, interpolation)


def _coordinates(aligned: AlignedSections, plane: Plane, detection_xy: DetectionPoint) -> NDArray[np.float64]:
    tvr, _ = aligned.dataset.alignment
    points = []
    for section in aligned.imaged.sections:
        centre = ((section.width - 1) / 2, (section.height - 1) / 2)
        xy = centre if isinstance(detection_xy, str) else detection_xy
        points.append(image_to_reference(xy, section.depth, section.tsv, tvr))
    return np.asarray(apply(aligned.from_native, points)[:, plane.fixed])

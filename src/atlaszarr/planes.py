"""The sections of a dataset as planes of a reference space: one plane a section, at its slice coordinate. No I/O.

The classic way to register: the whole of a section is taken to lie where one point of it does, parallel to two axes of
the space. A pixel of the plane is pulled back through the 3-D and the 2-D alignment; the depth that this gives is
left out, since the section is known already.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .allen.images import ImagedSections, Pixels, imaged_sections
from .allen.records import SectionDataset
from .allen.values import Matrix
from .boxes import Box
from .coverage import covered, covered_extent
from .displacement import Displacement
from .fields import AffineField
from .grid import Grid
from .plane_fields import check_fields
from .plane_of_section import Plane, plane_of
from .resampling import corner_footprint, footprint, known, resample
from .spaces import output_space, reference_space
from .transforms import apply, compose, image_to_reference, tier_affine

#: Where on a section its slice coordinate is taken: a pixel of the full-resolution image, or the centre of each.
DetectionPoint = tuple[float, float] | Literal["centre"]

#: Beyond the outermost pixel centres of an image, these pixels go on.
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
        Within the image; see `atlaszarr.resampling.resample`.
    """

    grid: Grid
    plane: Plane
    imaged: ImagedSections
    coordinates: NDArray[np.float64]
    displacements: tuple[Displacement, ...]
    interpolation: str

    @property
    def shape(self) -> tuple[int, int]:
        """Pixels of a plane: rows and columns."""
        return self.plane.shape(self.grid)

    def size(self, section: int) -> tuple[int, int]:
        """Width and height of the tier image of a section."""
        request = self.imaged.requests[section]
        return request.width, request.height

    def box(self, section: int, rows: slice, columns: slice) -> Box | None:
        """The pixels of the tier image that a block of a plane takes; None if it shows nothing of it.

        A pixel of the plane is shown where it falls on the area of a pixel: -1/2 <= X < width - 1/2, likewise in Y.
        """
        field, size = self.displacements[section].field, self.size(section)
        if isinstance(field, AffineField):
            extent = covered_extent(field.matrix, size, rows, columns)
            return None if extent is None else corner_footprint(extent, size, self.interpolation, _BORDER)
        xy = field.coordinates(rows, columns)
        xy[:, ~covered(xy, size)] = np.nan
        return footprint(xy, size, self.interpolation, _BORDER)

    def register(
        self, section: int, rows: slice, columns: slice, box: Box | None, pixels: Pixels | None, background: int = 0
    ) -> tuple[Pixels, NDArray[np.bool_]]:
        """A block of a plane.

        Parameters
        ----------
        section : int
            Its position in `imaged`.
        rows, columns : slice
        box : tuple of int, or None
            What `box` says of the block.
        pixels : ndarray, uint8, shape (height, width, 3), or None
            The pixels of the tier image in that box; None if they could not be had.
        background : int
            Grey level where the image is not.

        Returns
        -------
        image : ndarray, uint8, shape (rows, columns, 3)
        shown : ndarray, bool, shape (rows, columns)
            Where the image is. Beyond its outermost pixel centres, these pixels go on.
        """
        shape = (rows.stop - rows.start, columns.stop - columns.start)
        if box is None or pixels is None:
            return np.full((*shape, 3), background, np.uint8), np.zeros(shape, bool)
        xy = self.displacements[section].coordinates(rows, columns)
        shown = covered(xy, self.size(section))
        xy[:, ~shown] = np.nan
        image = resample(pixels, xy, self.interpolation, _BORDER, background, origin=box[:2], size=self.size(section))
        image[~shown] = background
        return image, shown


def section_planes(
    dataset: SectionDataset,
    resolution: float = 25.0,
    *,
    plane: str = "auto",
    stored: bool = False,
    interpolation: str = "linear",
    detection_xy: DetectionPoint = (0.0, 0.0),
    space: str | int = "auto",
    r_extent: float | None = None,
    downsample: int | None = None,
    view: str = "primary",
    quality: int | None = None,
    range: tuple[int, ...] | None = None,
    displacement: Mapping[int, Displacement] | None = None,
) -> SectionPlanes:
    """Lay the sections of a dataset into planes of a reference space.

    Parameters
    ----------
    dataset : SectionDataset
    resolution : float
        Pixel size in um.
    plane : str
        ``coronal``, ``sagittal``, ``transverse``; ``auto`` for the one that the dataset was cut in.
    stored : bool
        Whether the axes of the plane come in the order of an array (z, y, x), so that a sagittal plane has p down its
        rows; else in the field's orientation.
    interpolation : str
        ``nearest``, ``linear``, ``cubic`` or ``lanczos``.
    detection_xy : tuple of float or "centre"
        The pixel (X, Y) of the full-resolution images at which their slice coordinates are taken; ``centre``: that of
        each image.
    space, r_extent
        See `atlaszarr.stack.stack_sections`.
    downsample, view, quality, range
        See `atlaszarr.allen.images.imaged_sections`.
    displacement : mapping of int to Displacement, optional
        By SectionImage id, fields that take the place of the affine ones: pixels of the plane to those of the tier
        image.

    Raises
    ------
    InputError
        If an option is not known or does not fit the dataset.
    RecordError
        If the dataset cannot be registered.
    """
    known(interpolation, _BORDER)
    tvr, trv = dataset.alignment
    imaged = imaged_sections(dataset, resolution, downsample=downsample, view=view, quality=quality, range=range)
    native = reference_space(dataset.reference_space_id)
    grid = Grid(output_space(space, native), resolution)
    across = plane_of(dataset, plane)
    across = across.as_stored if stored else across
    coordinates = _coordinates(imaged, tvr, native.to(grid.space, r_extent), across, detection_xy)
    to_section = compose(trv, grid.space.to(native, r_extent))[:2]
    affines = []
    for section, request, coordinate in zip(imaged.sections, imaged.requests, coordinates, strict=True):
        to_tier = compose(tier_affine(request.downsample), section.tvs)
        affines.append(compose(to_tier, compose(to_section, across.to_reference(grid, coordinate))))
    given = {} if displacement is None else displacement
    check_fields(given, dataset, across, grid)
    fields = tuple(
        given[section.image_id] if section.image_id in given else Displacement.from_affine(across.shape(grid), affine)
        for section, affine in zip(imaged.sections, affines, strict=True)
    )
    return SectionPlanes(grid, across, imaged, coordinates, fields, interpolation)


def _coordinates(
    imaged: ImagedSections,
    tvr: Matrix,
    to_space: NDArray[np.float64],
    plane: Plane,
    detection_xy: DetectionPoint,
) -> NDArray[np.float64]:
    points = []
    for section in imaged.sections:
        xy = ((section.width - 1) / 2, (section.height - 1) / 2) if detection_xy == "centre" else detection_xy
        points.append(image_to_reference(xy, section.depth, section.tsv, tvr))
    return np.asarray(apply(to_space, points)[:, plane.fixed])

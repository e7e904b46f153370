"""The sections of a dataset in a reference space: what volumes and planes of them have in common. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import credit
from ..allen.images import ImagedSections, imaged_sections
from ..allen.records import SectionDataset, plane_name
from ..displacement.displacement import Displacement
from ..errors import InputError
from ..geometry.grid import Grid
from ..geometry.plane import PLANES, Plane
from ..geometry.spaces import reference_space
from ..transforms import Affine, compose, tier_affine

#: Least cosine between the normal of the sections and the axis across their plane: 45 degrees.
_LEAST_COSINE = 0.5**0.5


@dataclass(frozen=True, eq=False)
class AlignedSections:
    """The sections of one dataset, aligned with a grid of a reference space.

    Attributes
    ----------
    dataset : SectionDataset
        With a 3-D alignment.
    imaged : ImagedSections
        Its sections in order of depth, and the whole image of each at its tier.
    grid : Grid
    from_native : ndarray, float64, shape (3, 4)
        (p, i, r) where the dataset's alignment puts it to (p, i, r) in the grid's space, both in um: the identity, or
        the mirror.
    to_section : ndarray, float64, shape (3, 4)
        (p, i, r) in um in the grid's space to (x, y, depth) in um of the stack of sections.
    """

    dataset: SectionDataset
    imaged: ImagedSections
    grid: Grid
    from_native: Affine
    to_section: Affine

    @property
    def to_tiers(self) -> list[Affine]:
        """For each section, float64 (2, 3): (x, y) in um to the pixel (X, Y) of its tier image."""
        return [
            compose(tier_affine(request.downsample), section.tvs)
            for section, request in zip(self.imaged.sections, self.imaged.requests, strict=True)
        ]


def align_sections(
    dataset: SectionDataset,
    resolution: float = 25.0,
    *,
    mirror: bool = False,
    downsample: int | None = None,
    view: str = "primary",
    quality: int | None = None,
    range: tuple[int, ...] | None = None,
) -> AlignedSections:
    """Align the sections of a dataset with a grid of a reference space.

    Parameters
    ----------
    dataset : SectionDataset
    resolution : float
        Voxel size in um.
    mirror : bool
        Whether to lay left on right: r becomes extent - r, 11400 - r for P56 data.
    downsample : int, optional
        Tier of the images; by default, for every section, the coarsest whose pixel is not larger than a voxel.
    view, quality, range
        To the image service; see `AllenClient.image`.

    Raises
    ------
    InputError
        If an option is not known or does not fit the dataset.
    RecordError
        If the dataset has no 3-D alignment, or no section has the view.
    """
    _, trv = dataset.alignment
    imaged = imaged_sections(dataset, resolution, downsample=downsample, view=view, quality=quality, range=range)
    grid = Grid(reference_space(dataset.reference_space_id).frame, resolution)
    from_native = grid.space.mirror if mirror else np.eye(3, 4)
    return AlignedSections(dataset, imaged, grid, from_native, compose(trv, from_native))


def plane_of(dataset: SectionDataset, plane: str = "auto") -> Plane:
    """The plane of section of a dataset.

    Parameters
    ----------
    dataset : SectionDataset
    plane : str
        ``coronal``, ``sagittal``, ``transverse`` (or ``horizontal``, ``axial``); ``auto`` for that of its record or,
        if this names none, the one nearest to its alignment.

    Raises
    ------
    InputError
        If the sections are more than 45 degrees off the plane.
    RecordError
        If the dataset has no 3-D alignment.
    """
    _, trv = dataset.alignment
    plane = plane_name(plane)
    if plane != "auto" and plane not in PLANES:
        raise InputError(f"plane {plane!r} is not known; choose from auto, {', '.join(PLANES)}")
    normal = np.abs(np.asarray(trv)[2, :3])
    normal /= np.linalg.norm(normal)
    nearest = next(one for one in PLANES.values() if one.fixed == int(normal.argmax()))
    found = PLANES.get(dataset.plane if plane == "auto" else plane, nearest)
    if normal[found.fixed] < _LEAST_COSINE:
        angle = np.degrees(np.arccos(normal[found.fixed]))
        raise InputError(
            f"the sections of dataset {dataset.id} lie {angle:.0f} degrees off the {found.name} plane; "
            f"ask for the plane {nearest.name}"
        )
    return found


def check_fields(fields: Mapping[int, Displacement], dataset: SectionDataset, plane: Plane, grid: Grid) -> None:
    """Refuse displacement fields that do not fit the sections of a dataset as planes of a grid.

    Parameters
    ----------
    fields : mapping of int to Displacement
        By SectionImage id.
    dataset : SectionDataset
    plane : Plane
    grid : Grid

    Raises
    ------
    InputError
        If they are not a mapping, a section is not in the dataset, or a field is not over the grid of the plane.
    """
    if not isinstance(fields, Mapping):
        raise InputError(f"displacement is of type {type(fields).__name__}; give fields by SectionImage id")
    known = {section.image_id for section in dataset.sections}
    if unknown := sorted(set(fields) - known, key=str):
        raise InputError(
            f"displacement is given for section image {unknown[0]}, which is not among those that dataset "
            f"{dataset.id} can register"
        )
    shape = plane.shape(grid)
    for image_id, field in fields.items():
        if not isinstance(field, Displacement):
            raise InputError(
                f"displacement of section image {image_id} is of type {type(field).__name__}; give a Displacement"
            )
        if field.shape != shape:
            raise InputError(
                f"displacement of section image {image_id} is over {' x '.join(map(str, field.shape))} pixels, but the "
                f"{plane.name} plane at {grid.resolution:g} um has {shape[0]} x {shape[1]}"
            )


def attributes(dataset: SectionDataset, grid: Grid, mirror: bool) -> dict[str, Any]:
    """The attributes of a lazy Dataset: what the sections are registered to, and whom to credit."""
    return {
        "section_dataset": dataset.id,
        "reference_space": grid.space.id,
        "mirrored": int(mirror),
        "resolution_um": grid.resolution,
        "anchor_um": grid.space.anchor,
        **credit.SECTIONS,
    }

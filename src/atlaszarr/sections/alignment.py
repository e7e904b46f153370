"""The sections of a dataset aligned with a reference space, for volumes and for planes. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import credit
from ..allen.images import ImagedSections, imaged_sections
from ..allen.records import SectionDataset, plane_name
from ..errors import InputError
from ..geometry.grid import Grid
from ..geometry.plane import PLANES, Plane
from ..geometry.spaces import reference_space
from ..transforms import Affine, compose, tier_affine
from .fields import PlaneGrid, SectionFields

#: Smallest cosine between the normal of the sections and the axis across their plane: 45 degrees.
_MIN_COSINE = 0.5**0.5
#: Most chunks of a volume or of all planes of a dataset: P56 data at 2 um have 574,080, which are counted in seconds.
_MAX_CHUNKS = 1_000_000


@dataclass(frozen=True, eq=False)
class AlignedSections:
    """The sections of one dataset, aligned with a grid of a reference space.

    Attributes
    ----------
    dataset : SectionDataset
        A dataset with a 3-D alignment, and the depths that `fields` corrects.
    imaged : ImagedSections
        The sections in order of depth, with the whole image of each at its tier.
    grid : Grid
    mirror : bool
        Whether left and right are mirrored.
    from_native : ndarray, float64, shape (3, 4)
        (p, i, r) of the dataset's alignment to (p, i, r) of the grid, both in um: the identity, or the mirror image.
    to_section : ndarray, float64, shape (3, 4)
        (p, i, r) of the grid to (x, y, depth) of the stack of sections, both in um.
    fields : SectionFields or None
        What registers sections within their planes, besides the alignment.
    """

    dataset: SectionDataset
    imaged: ImagedSections
    grid: Grid
    mirror: bool
    from_native: Affine
    to_section: Affine
    fields: SectionFields | None = None

    @property
    def to_tiers(self) -> list[Affine]:
        """For each section, (x, y) in um to pixel (X, Y) of its tier image: float64, shape (2, 3)."""
        return [
            compose(tier_affine(request.downsample, request.offset), section.tvs)
            for section, request in zip(self.imaged.sections, self.imaged.requests, strict=True)
        ]

    def pixels(self, plane: Plane) -> PlaneGrid:
        """The pixels of a plane of section; InputError if the fields do not fit them."""
        pixels = PlaneGrid(plane, self.grid, self.mirror)
        if self.fields is not None:
            self.fields.validate(self.dataset, pixels)
        return pixels


def align_sections(
    dataset: SectionDataset,
    resolution: float = 25.0,
    *,
    mirror: bool = False,
    downsample: int | None = None,
    view: str = "primary",
    quality: int | None = None,
    range: tuple[int, ...] | None = None,
    fields: SectionFields | None = None,
) -> AlignedSections:
    """Align the sections of a dataset with a grid of a reference space.

    Parameters
    ----------
    dataset : SectionDataset
    resolution : float
        Voxel size in um.
    mirror : bool
        Whether to mirror left to right: r becomes extent - r, which is 11400 - r for P56 data.
    downsample : int, optional
        Tier of all images. Default: for each section, the coarsest whose pixel is not larger than a voxel.
    view, quality, range
        Options of the image service; see `AllenClient.image`.
    fields : SectionFields, optional
        Corrects the depths of the sections, and registers them within their planes.

    Raises
    ------
    InputError
        If an option is unknown or does not fit the dataset.
    RecordError
        If the dataset cannot be registered, or no section has the view.
    """
    dataset.validate_registration()
    dataset = dataset if fields is None else fields.corrected(dataset)
    _, trv = dataset.alignment
    imaged = imaged_sections(dataset, resolution, downsample=downsample, view=view, quality=quality, range=range)
    grid = Grid(reference_space(dataset.space).frame, resolution)
    from_native = grid.space.mirror if mirror else np.eye(3, 4)
    return AlignedSections(dataset, imaged, grid, mirror, from_native, compose(trv, from_native), fields)


def plane_of(dataset: SectionDataset, plane: str = "auto") -> Plane:
    """The plane of section of a dataset.

    Parameters
    ----------
    dataset : SectionDataset
    plane : str
        ``coronal``, ``sagittal``, ``transverse`` (or ``horizontal``, ``axial``), or ``auto``: the plane in the
        dataset's record or, without one, the plane nearest to the alignment.

    Raises
    ------
    InputError
        If the sections are more than 45 degrees off the plane.
    RecordError
        If the dataset cannot be registered.
    """
    dataset.validate_registration()
    _, trv = dataset.alignment
    plane = plane_name(plane)
    if plane != "auto" and plane not in PLANES:
        raise InputError(f"plane {plane!r} is not known; choose from auto, {', '.join(PLANES)}", code="unknown-value")
    normal = np.abs(np.asarray(trv)[2, :3])
    normal /= np.linalg.norm(normal)
    nearest = next(each for each in PLANES.values() if each.fixed == int(normal.argmax()))
    chosen = PLANES.get(dataset.plane if plane == "auto" else plane, nearest)
    if normal[chosen.fixed] < _MIN_COSINE:
        angle = np.degrees(np.arccos(normal[chosen.fixed]))
        raise InputError(
            f"the sections of dataset {dataset.id} are {angle:.0f} degrees off the {chosen.name} plane; "
            f"use the {nearest.name} plane",
            code="wrong-plane",
        )
    return chosen


def validate_chunk_count(count: int, resolution: float) -> None:
    """Raise InputError for more than a million chunks, before any of them is listed."""
    if count > _MAX_CHUNKS:
        raise InputError(
            f"resolution {resolution:g} um makes {count:,} chunks, more than {_MAX_CHUNKS:,}; use a coarser resolution "
            "or larger chunks",
            code="too-many-chunks",
        )


def attributes(dataset: SectionDataset, grid: Grid, mirror: bool) -> dict[str, Any]:
    """The attributes of a lazy Dataset: the reference space and grid of the sections, and the citation."""
    return {
        "section_dataset": dataset.id,
        "reference_space": grid.space.id,
        "mirrored": int(mirror),
        "resolution_um": grid.resolution,
        "anchor_um": grid.space.anchor,
        **credit.SECTIONS,
    }

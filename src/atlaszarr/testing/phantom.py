"""A phantom brain in closed form: the exact image, label and volumes at any point.

The brain is an ellipsoid, the regions are about fifty disjoint ellipsoids inside it, with the names and ids of real
structures. Most regions lie in both hemispheres, five in one only, so that a left-right flip is visible. Coordinates
are PIR microns of reference space 9.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import InputError
from ..geometry.spaces import reference_space
from .ontology import ROOT_ID, figures, structures
from .phantom_kernels import expression_rows, tissue_rows
from .sectioned_brain import Array, SectionedBrain, Triple, annotation_shape

# Amplitude (grey levels), cycles per mm along p, i and r, and phase (radians) of the waves inside the
# brain: three per channel, with gradients of about ten grey levels per mm and no symmetry in r.
_WAVES = (
    ((14.0, 1 / 7.0, 0.0, 1 / 11.0, 0.4), (12.0, 0.0, 1 / 6.0, -1 / 9.0, 1.9), (10.0, -1 / 9.0, 1 / 8.0, 1 / 6.0, 3.1)),
    ((13.0, 1 / 9.0, 1 / 7.0, 0.0, 2.2), (12.0, 1 / 8.0, 0.0, -1 / 7.0, 0.7), (11.0, 0.0, 1 / 9.0, 1 / 10.0, 4.4)),
    ((15.0, 0.0, 1 / 8.0, 1 / 8.0, 5.0), (11.0, 1 / 6.0, -1 / 10.0, 0.0, 1.1), (10.0, 1 / 10.0, 0.0, 1 / 7.0, 2.6)),
)


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid whose axes lie along p, i and r.

    Attributes
    ----------
    centre, semi_axes : tuple of float
        Along (p, i, r), in um of reference space 9.
    """

    centre: Triple
    semi_axes: Triple

    @property
    def volume_mm3(self) -> float:
        """4/3 pi abc, in mm3."""
        return 4.0 / 3.0 * math.pi * math.prod(self.semi_axes) * 1e-9

    def squared_radius(self, pir: ArrayLike) -> Array:
        """Squared distance from the centre in units of the semi-axes: (..., 3) um to (...), 1 on the surface."""
        scaled = (np.asarray(pir, dtype=np.float64) - self.centre) / self.semi_axes
        return np.asarray(np.square(scaled).sum(axis=-1))

    def distance_to_surface(self, pir: ArrayLike) -> Array:
        """A lower bound (um) of the distance of points (..., 3) to the surface, from inside or outside.

        The larger of two bounds: the distance to the unit sphere in units of the semi-axes, times the smallest
        semi-axis; and the distance to the bounding box along one axis.
        """
        scaled = np.abs(np.sqrt(self.squared_radius(pir)) - 1.0) * min(self.semi_axes)
        outside = np.abs(np.asarray(pir, dtype=np.float64) - self.centre) - self.semi_axes
        return np.asarray(np.maximum(scaled, outside.max(axis=-1)))


@dataclass(frozen=True)
class Region(Ellipsoid):
    """An ellipsoid of a structure; a structure in both hemispheres has two.

    Attributes
    ----------
    structure_id : int
        The Allen Institute's structure id.
    acronym : str
        The structure's acronym.
    shift : tuple of float
        Grey levels added to the red, green and blue of the tissue view.
    expression : float
        Expression at the centre, 0 to 1.
    """

    structure_id: int
    acronym: str
    shift: Triple
    expression: float


def standard_regions() -> tuple[Region, ...]:
    """The regions of the table ``figures/phantom_regions.csv``; those in both hemispheres are mirrored."""
    across = reference_space(9).extent[2]
    ids = {structure["acronym"]: id for id, structure in structures().items()}
    regions = []
    for number, row in enumerate(figures("phantom_regions")):
        p, i, r, semi_p, semi_i, semi_r = (float(row[key]) for key in ("p", "i", "r", "semi_p", "semi_i", "semi_r"))
        # Whole numbers from -18 to 18 that differ between consecutive regions.
        shift = (float(7 * number % 37 - 18), float(11 * number % 37 - 18), float(13 * number % 37 - 18))
        for centre in (r, across - r) if row["sides"] == "both" else (r,):
            regions.append(
                Region(
                    centre=(p, i, centre),
                    semi_axes=(semi_p, semi_i, semi_r),
                    structure_id=ids[row["acronym"]],
                    acronym=row["acronym"],
                    shift=shift,
                    expression=float(row["expression"]),
                )
            )
    return tuple(regions)


@dataclass(frozen=True)
class Phantom(SectionedBrain):
    """A brain in closed form.

    Attributes
    ----------
    brain : Ellipsoid
        The outline of the brain; inside every aligned section image of datasets 74272479 and 69289763.
    regions : tuple of Region
        Disjoint ellipsoids inside the brain.
    background, base : tuple of float
        Grey levels (red, green, blue) outside the brain, and the mean of the waves inside.
    waves : tuple
        For each channel, amplitudes (grey levels), cycles per mm along (p, i, r) and phases (radians).
    """

    brain: Ellipsoid = Ellipsoid((7000.0, 4100.0, 5700.0), (5400.0, 3200.0, 4500.0))
    regions: tuple[Region, ...] = field(default_factory=standard_regions)
    background: Triple = (238.0, 236.0, 232.0)
    base: Triple = (150.0, 135.0, 172.0)
    waves: tuple[tuple[tuple[float, float, float, float, float], ...], ...] = _WAVES

    def of_dataset(self, dataset_id: int) -> Self:
        """The phantom itself: it looks the same in all section datasets."""
        return self

    def with_contrast(self, factor: float) -> Self:
        """Refused: the greys of this phantom are not those of structures."""
        raise InputError(
            f"the contrast between structures cannot be multiplied by {factor:g} in this phantom, whose greys are "
            "waves; use a BrainPhantom or an annotation",
            code="unsupported-damage",
        )

    def rgb(self, pir: ArrayLike, pixel: float = 0.0) -> Array:
        """Same as in `SectionedBrain`; nothing in the phantom is too fine to draw."""
        pir = np.asarray(pir, dtype=np.float64)
        waves = self._radians
        angles = np.einsum("cwk,...k->...cw", waves[..., 1:4], pir) + waves[..., 4]
        tissue = self.base + np.einsum("cw,...cw->...c", waves[..., 0], np.sin(angles))
        for region in self.regions:
            tissue[region.squared_radius(pir) <= 1.0] += region.shift
        return np.where(self.brain.squared_radius(pir)[..., np.newaxis] <= 1.0, tissue, self.background)

    def heat(self, pir: ArrayLike) -> Array:
        """Same as in `SectionedBrain`, and continuous.

        Within a region, it is the value at the centre times 1 - (distance / semi-axes)^2, so 0 on the surface.
        """
        pir = np.asarray(pir, dtype=np.float64)
        heat = np.zeros(pir.shape[:-1])
        for region in self.regions:
            if region.expression:
                heat = np.maximum(heat, region.expression * (1.0 - region.squared_radius(pir)))
        return heat

    def labels(self, pir: ArrayLike) -> NDArray[np.uint32]:
        """Same as in `SectionedBrain`; 997 (root) in the brain outside every region."""
        pir = np.asarray(pir, dtype=np.float64)
        labels = np.where(self.brain.squared_radius(pir) <= 1.0, ROOT_ID, 0).astype(np.uint32)
        for region in self.regions:
            labels[region.squared_radius(pir) <= 1.0] = region.structure_id
        return labels

    def annotation(self, resolution: float) -> NDArray[np.uint32]:
        """Same as in `SectionedBrain`, from the voxels in the box of each ellipsoid."""
        shape = annotation_shape(resolution)
        volume = np.zeros(shape, dtype=np.uint32)
        for ellipsoid, label in [(self.brain, ROOT_ID), *((region, region.structure_id) for region in self.regions)]:
            inside: Array = np.zeros(())
            box = []
            for axis, (centre, semi_axis) in enumerate(zip(ellipsoid.centre, ellipsoid.semi_axes, strict=True)):
                first = max(math.floor((centre - semi_axis) / resolution), 0)
                stop = min(math.ceil((centre + semi_axis) / resolution), shape[axis])
                offset = ((np.arange(first, stop) + 0.5) * resolution - centre) / semi_axis
                inside = inside + np.expand_dims(np.square(offset), tuple(k for k in range(3) if k != axis))
                box.append(slice(first, stop))
            volume[tuple(box)][inside <= 1.0] = label
        return volume

    def distance_to_edge(self, pir: ArrayLike) -> Array:
        """A lower bound of the distance to all discontinuities: the surfaces of the brain and of the regions.

        Parameters
        ----------
        pir : array_like, shape (..., 3)
            (p, i, r) in um of reference space 9.

        Returns
        -------
        ndarray, float64, shape (...)
            In um; `rgb` is smooth within this distance.
        """
        distance = self.brain.distance_to_surface(pir)
        for region in self.regions:
            distance = np.minimum(distance, region.distance_to_surface(pir))
        return distance

    def volumes_mm3(self) -> dict[int, float]:
        """Volume of each structure by id, in mm3, both hemispheres; the root's is the brain without the regions."""
        volumes = {ROOT_ID: self.brain.volume_mm3}
        for region in self.regions:
            volumes[region.structure_id] = volumes.get(region.structure_id, 0.0) + region.volume_mm3
            volumes[ROOT_ID] -= region.volume_mm3
        return volumes

    def draw_rows(
        self, pixel_to_pir: ArrayLike, first_row: int, shape: tuple[int, int], expression: bool = False
    ) -> Array:
        """Same as in `SectionedBrain`, with compiled kernels."""
        out = np.empty((*shape, 3))
        affine = np.ascontiguousarray(pixel_to_pir, dtype=np.float64)
        brain, regions, shifts, levels = self._arrays
        if expression:
            expression_rows(out, affine, first_row, regions, levels)
        else:
            background, base = (np.array(level, np.float64) for level in (self.background, self.base))
            tissue_rows(out, affine, first_row, brain, regions, shifts, background, base, self._radians)
        return out

    @cached_property
    def _radians(self) -> Array:
        waves = np.array(self.waves, np.float64)
        waves[..., 1:4] *= 2.0 * math.pi / 1000.0
        return waves

    @cached_property
    def _arrays(self) -> tuple[Array, Array, Array, Array]:
        regions = np.array([(region.centre, region.semi_axes) for region in self.regions], np.float64)
        shifts = np.array([region.shift for region in self.regions], np.float64)
        levels = np.array([region.expression for region in self.regions], np.float64)
        brain = np.array((self.brain.centre, self.brain.semi_axes), np.float64)
        return brain, regions.reshape(-1, 2, 3), shifts.reshape(-1, 3), levels


@cache
def default_phantom() -> Phantom:
    """The emulator's default phantom."""
    return Phantom()

"""A smooth displacement of the tissue in emulated sections, in closed form: what a registration has to find.

A section is drawn as if its tissue had moved: the pixel at the point (x, y) of the section plane shows the brain at
(x, y) + u(x, y, depth), where u is a sum of sine waves in all three coordinates, so that neighbouring sections move
alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import InputError, brief

Array = NDArray[np.float64]

#: Waves of a field, and their wavelengths in um, from to: about those of a brain that is pressed or stretched.
_WAVES, _WAVELENGTHS = 6, (4000.0, 9000.0)
#: Largest amplitude in um. The gradient of u is at most the sum over the waves of 2 pi / wavelength times the amplitude
#: of a wave, which is below 1 for this: the field never folds.
LARGEST_AMPLITUDE = 180.0
#: Largest seed: a whole number that every reader of JSON takes exactly.
LARGEST_SEED = 2**53


@dataclass(frozen=True)
class Deformation:
    """A smooth field for each section dataset.

    Attributes
    ----------
    amplitude : float
        Root mean square length of the displacements, in um; 0 to 180, so that no field folds.
    seed : int
        Of the fields.

    Raises
    ------
    InputError
        If the amplitude or the seed is outside its range.
    """

    amplitude: float
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.amplitude <= LARGEST_AMPLITUDE:
            raise InputError(
                f"a deformation of {self.amplitude} um is not between 0 and {LARGEST_AMPLITUDE:g} um; with a larger "
                "one a field may fold",
                code="invalid-value",
            )
        validate_seed(self.seed)

    def waves(self, dataset_id: int) -> Array:
        """The waves of the field of a section dataset.

        Returns
        -------
        ndarray, float64, shape (waves, 6)
            Amplitude along x and y in um; radians per um along x, y and depth; phase in radians.
        """
        return _waves(self.amplitude, self.seed, dataset_id)

    def displacement(self, dataset_id: int, section: ArrayLike) -> Array:
        """The displacement at points of the sections: what is added to x and y to find the tissue shown there.

        Parameters
        ----------
        dataset_id : int
        section : array_like, shape (..., 3)
            (x, y, depth) in um: the section plane, to which `tsv` maps pixels, and section number times thickness.

        Returns
        -------
        ndarray, float64, shape (..., 2)
            Along x and y, in um.
        """
        points = np.asarray(section, np.float64)
        out = np.zeros((*points.shape[:-1], 2))
        for along_x, along_y, *wave, phase in self.waves(dataset_id).tolist():
            sine = np.sin(points @ np.array(wave) + phase)
            out[..., 0] += along_x * sine
            out[..., 1] += along_y * sine
        return out

    def to_dict(self, datasets: Iterable[int]) -> dict[str, Any]:
        """The fields of section datasets in JSON types, with the formula."""
        return {
            "formula": "a pixel at (x, y) um of the section plane (tsv) and depth (section number times thickness) "
            "shows the brain at (x + sum of x_um sin(angle), y + sum of y_um sin(angle), depth), where angle = "
            "x radians_per_um[0] + y radians_per_um[1] + depth radians_per_um[2] + phase, and the sums are over waves",
            "amplitude_um": float(self.amplitude),
            "seed": self.seed,
            "datasets": {
                str(id): [
                    {"x_um": x, "y_um": y, "radians_per_um": wave, "phase": phase}
                    for x, y, *wave, phase in self.waves(id).tolist()
                ]
                for id in datasets
            },
        }


def validate_seed(seed: int) -> None:
    """Raise an InputError unless a seed is a whole number from 0 to `LARGEST_SEED`."""
    if not isinstance(seed, int) or not 0 <= seed <= LARGEST_SEED:
        raise InputError(f"seed {brief(seed)} is not a whole number from 0 to {LARGEST_SEED}", code="invalid-value")


@lru_cache(maxsize=64)
def _waves(amplitude: float, seed: int, dataset_id: int) -> Array:
    random = np.random.default_rng([seed, dataset_id])
    directions = random.normal(size=(_WAVES, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    numbers = 2.0 * math.pi / random.uniform(*_WAVELENGTHS, _WAVES)
    # The directions of the displacements are spread evenly, so that none is left out.
    turn = math.pi * (np.arange(_WAVES) / _WAVES) + random.uniform(0.0, math.pi)
    # The mean square of a sine is one half.
    length = amplitude * math.sqrt(2.0 / _WAVES)
    found = np.column_stack(
        [length * np.cos(turn), length * np.sin(turn), directions * numbers[:, np.newaxis], np.zeros(_WAVES)]
    )
    found[:, 5] = random.uniform(0.0, 2.0 * math.pi, _WAVES)
    found.setflags(write=False)
    return found

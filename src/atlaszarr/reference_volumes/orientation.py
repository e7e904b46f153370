"""The orientation of a file's axes: from directions or BrainGlobe's notation to arrays (z, y, x) = (p, i, r)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError

#: The origin of arrays (p, i, r): anterior, superior, left.
ORIGIN = "asl"
#: Off-axis part of a direction, as a fraction of its length, above which it is oblique.
_OBLIQUE = 1e-3
_OPPOSITE = {"a": "p", "p": "a", "s": "i", "i": "s", "r": "l", "l": "r"}


def origin_of(directions: NDArray[np.float64], ends: str) -> str | None:
    """The side at which each axis of a file begins, in BrainGlobe's notation; None if the axes are oblique.

    Parameters
    ----------
    directions : ndarray, float64, shape (3, 3)
        A row for each axis of the file: the step from one voxel to the next.
    ends : str
        The side that each coordinate of a step increases to: ``ras`` in NIfTI.
    """
    lengths = np.linalg.norm(directions, axis=1)
    main = np.abs(directions).argmax(axis=1)
    off = np.sort(np.abs(directions), axis=1)[:, :2].max(axis=1)
    if sorted(main) != [0, 1, 2] or not (off <= _OBLIQUE * lengths).all():
        return None
    return "".join(_OPPOSITE[ends[k]] if directions[axis, k] > 0 else ends[k] for axis, k in enumerate(main))


@dataclass(frozen=True)
class Orientation:
    """How an array of a file becomes (z, y, x).

    Attributes
    ----------
    axes : tuple of int
        The axes of the file that are z, y and x.
    flipped : tuple of bool
        Whether z, y and x run the other way in the file.
    """

    axes: tuple[int, int, int]
    flipped: tuple[bool, bool, bool]

    @classmethod
    def of(cls, origin: str, wanted: str = ORIGIN) -> Orientation:
        """The orientation of a file, from the side at which each of its axes begins.

        Parameters
        ----------
        origin : str
            BrainGlobe's notation: one letter for each axis of the file, in the order of its usual library (NRRD and
            NIfTI: fastest first; TIFF: pages, rows, columns; OME-Zarr: z, y, x), from a(nterior), p(osterior),
            s(uperior), i(nferior), r(ight), l(eft).
        wanted : str
            The sides at which z, y and x begin: one of a/p, then of s/i, then of r/l.

        Raises
        ------
        InputError
            If the letters are not one of each pair.
        """
        letters = origin.lower() if isinstance(origin, str) else ""
        pairs = [c for letter in letters for c in wanted if letter in (c, _OPPOSITE[c])]
        if len(letters) != 3 or sorted(pairs) != sorted(wanted):
            raise InputError(
                f"orientation {origin!r} must name the side at which each axis begins, one of each of a/p, s/i and "
                "r/l: asl, lpi",
                code="invalid-orientation",
            )
        axes = [pairs.index(c) for c in wanted]
        flipped = [letters[axis] != c for axis, c in zip(axes, wanted, strict=True)]
        return cls((axes[0], axes[1], axes[2]), (flipped[0], flipped[1], flipped[2]))

    def apply(self, array: Any) -> Any:
        """A view of a file's array (numpy or dask) as (z, y, x)."""
        return array.transpose(self.axes)[tuple(slice(None, None, -1 if flip else 1) for flip in self.flipped)]

    def order(self, lengths: Sequence[Any]) -> tuple[Any, Any, Any]:
        """Values for the axes of the file, in the order (z, y, x)."""
        z, y, x = (lengths[axis] for axis in self.axes)
        return z, y, x


def sides_remark(name: str) -> str:
    """A remark on a volume of the CCF whose metadata has the opposite names for the sides of x."""
    return (
        f"{name} has the opposite names for the sides of its x axis; all volumes of the CCF lie in one frame, so it is "
        "not flipped"
    )

"""The size of a voxel as a caller gives it, and the sizes that a volume of a brain can have. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from ..errors import InputError

#: The least and the largest voxel, in um: MRI of the human brain has voxels of 0.5 to 4 mm, light microscopy resolves
#: 0.2 um.
SMALLEST, LARGEST = 0.1, 5000.0
#: The longest side of a volume, in um: a human head is 0.25 m long.
LONGEST = 500_000.0
#: The least and the largest voxel that may be given, in um: electron microscopy has voxels of some nm, and a voxel of
#: 1 m is larger than any brain.
_LEAST, _MOST = 1e-3, 1e6


def lengths_of(voxel_size: float | Sequence[float]) -> tuple[float, float, float]:
    """A voxel size along (z, y, x), in um, from one length or three.

    Raises
    ------
    InputError
        If a length is not from 0.001 um to 1 m, or there are not one or three.
    """
    try:
        z, y, x = (float(length) for length in np.broadcast_to(np.asarray(voxel_size, np.float64), 3))
        if isinstance(voxel_size, bool) or not all(_LEAST <= length <= _MOST for length in (z, y, x)):
            raise ValueError
    except (TypeError, ValueError):
        raise InputError(
            f"voxel size {voxel_size!r} must be one length in um, from {_LEAST:g} to {_MOST:g}, or three along z, y, x",
            code="invalid-voxel-size",
        ) from None
    return z, y, x


def refuse_implausible(shape: Sequence[int], size: Sequence[float], name: str, numbers: str = "") -> None:
    """Refuse voxels under 0.1 um or over 5 mm, and a volume longer than 0.5 m: the header may have another unit.

    Parameters
    ----------
    shape : sequence of int
        Number of voxels along each axis.
    size : sequence of float
        Voxel size along each axis, in um.
    name : str
        Name of the volume, for messages.
    numbers : str
        What the header says, for messages.

    Raises
    ------
    InputError
    """
    longest = max(n * length for n, length in zip(shape, size, strict=True))
    if min(size) >= SMALLEST and max(size) <= LARGEST and longest <= LONGEST:
        return
    by_header = f" ({numbers})" if numbers else ""
    raise InputError(
        f"the voxels of {name} are {um(size)} by its metadata{by_header}, and its longest side {longest / 1000:g} mm; "
        "give the voxel size in um (--voxel-size), also to confirm this one",
        code="implausible-size",
    )


def um(lengths: Sequence[float | Fraction]) -> str:
    """Lengths in um as text: ``25 um``, ``25 x 25 x 50 um``."""
    distinct = lengths[:1] if len(set(lengths)) == 1 else lengths
    return " x ".join(f"{float(length):g}" for length in distinct) + " um"

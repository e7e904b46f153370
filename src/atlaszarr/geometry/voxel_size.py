"""The size of a voxel as a text or a caller gives it, and the sizes that a volume of a brain can have. No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fractions import Fraction

from ..errors import InputError, brief

#: A number in ASCII digits: Python also reads 1_000, nan and the digits of other scripts.
NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")
#: The least and the largest voxel, in um: MRI of the human brain has voxels of 0.5 to 4 mm, light microscopy resolves
#: 0.2 um.
SMALLEST, LARGEST = 0.1, 5000.0
#: The longest side of a volume, in um: a human head is 0.25 m long.
LONGEST = 500_000.0
#: The least and the largest voxel that may be given, in um: electron microscopy has voxels of some nm, and a voxel of
#: 1 m is larger than any brain.
_LEAST, _MOST = 1e-3, 1e6
#: Relative difference up to which two voxel sizes are the same: sizes in files are rounded.
_SAME = 1e-4


def lengths_of(voxel_size: float | Sequence[float]) -> tuple[float, float, float]:
    """A voxel size along (z, y, x), in um, from one length or three.

    Raises
    ------
    InputError
        If a length is not from 0.001 um to 1 m, or there are not one or three.
    """
    try:
        if isinstance(voxel_size, str | bool):
            raise ValueError
        given = list(map(float, voxel_size if isinstance(voxel_size, Iterable) else [voxel_size]))
        z, y, x = given * 3 if len(given) == 1 else given
        if not all(_LEAST <= length <= _MOST for length in (z, y, x)):
            raise ValueError
    except (TypeError, ValueError):
        raise invalid(voxel_size) from None
    return z, y, x


def invalid(voxel_size: object) -> InputError:
    """The error for what is not a voxel size."""
    return InputError(
        f"voxel size {brief(voxel_size)} must be one length in um (0.001 to 1,000,000), or three along z, y, x",
        code="invalid-voxel-size",
    )


def contradiction(
    name: str,
    recorded: Sequence[float | Fraction],
    given: Sequence[float | Fraction],
    numbers: str,
    factors: Sequence[float] = (1.0,),
) -> str | None:
    """A remark on a voxel size that is given and contradicts the metadata; None if it does not.

    Parameters
    ----------
    name : str
        Name of the volume.
    recorded, given : sequence of float or Fraction
        Voxel sizes along (z, y, x), in um, by the metadata and by the caller.
    numbers : str
        What the metadata say, see `by_metadata`.
    factors : sequence of float
        What `recorded` may be multiplied with, if its unit is uncertain.
    """
    if any(all(abs(a * f / b - 1) <= _SAME for a, b in zip(recorded, given, strict=True)) for f in factors):
        return None
    return f"the voxels of {name} are {um(recorded)} {by_metadata(numbers)}; they are read as {um(given)}, as given"


def by_metadata(numbers: str) -> str:
    """A phrase that shows the numbers of the metadata, if there are any."""
    return f"by its metadata ({numbers})" if numbers else "by its metadata"


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
        What the metadata say, see `by_metadata`.

    Raises
    ------
    InputError
    """
    longest = max(n * length for n, length in zip(shape, size, strict=True))
    if min(size) >= SMALLEST and max(size) <= LARGEST and longest <= LONGEST:
        return
    raise InputError(
        f"the voxels of {name} are {um(size)} {by_metadata(numbers)}, and its longest side {longest / 1000:g} mm; "
        "give the voxel size in um (--voxel-size), also to confirm this one",
        code="implausible-size",
    )


def um(lengths: Sequence[float | Fraction]) -> str:
    """Lengths in um as text: ``25 um``, ``25 x 25 x 50 um``."""
    distinct = lengths[:1] if len(set(lengths)) == 1 else lengths
    return " x ".join(f"{float(length):g}" for length in distinct) + " um"

"""The frame of a volume of any format: how its axes lie in the brain, its voxel size and its origin.

The CCF is recognised here by its extent, since three headers of it are in circulation. The files of the Allen Institute
call its axes p, i, r left, posterior, superior (`WRONG`), ITK copies this to NIfTI and MetaImage, and the corrected
files have the true axes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from ..errors import InputError
from ..geometry.spaces import reference_space
from ..geometry.voxel_size import LARGEST, contradiction, lengths_of, refuse_implausible, um
from .header import Header
from .orientation import ORIGIN, Orientation, sides_remark

#: How the axes begin by a header that is diagonal in the space left-posterior-superior.
WRONG = "rai"
#: BrainGlobe's name of the orientation of the CCF.
_BRAINGLOBE = "asr"
_FILE_ORDER = (0, 1, 2)


@dataclass(frozen=True)
class Frame:
    """The frame of a volume.

    Attributes
    ----------
    orientation : Orientation
    begins : str
        The sides at which the axes of the file begin: ``asl`` for the CCF under any of its headers.
    voxel_size : tuple of float
        Along (z, y, x), in um.
    position : tuple of float or None
        Centre of the first voxel along (z, y, x), in um, in the anatomical frame of the header; None if the header
        has no origin, or for the CCF.
    is_ccf : bool
        Whether the volume has the extent and the axes of the CCF.
    remarks : tuple of str
    contradictions : tuple of str
        The remarks on options that contradict the header, or the layout of the files of the CCF.
    """

    orientation: Orientation
    begins: str
    voxel_size: tuple[float, float, float]
    position: tuple[float, float, float] | None
    is_ccf: bool
    remarks: tuple[str, ...]
    contradictions: tuple[str, ...]


def frame_of(
    header: Header, orientation: str | None, voxel_size: float | Sequence[float] | None, wanted: str = ORIGIN
) -> Frame:
    """The frame of a volume: as given, else by its header or by the extent of the CCF.

    Parameters
    ----------
    header : Header
    orientation : str, optional
        The sides at which the axes of the file begin; see `Orientation.of`.
    voxel_size : float or sequence of 3 floats, optional
        Along (z, y, x) of the result, in um.
    wanted : str
        The sides at which z, y and x of the result begin; those of the CCF are never flipped.

    Raises
    ------
    InputError
        If the orientation or the voxel size is not known; if the voxel size is implausible and not given; if the
        header contradicts itself or the extent of the CCF.
    """
    name = header.name
    given = None if voxel_size is None else lengths_of(voxel_size)
    if orientation is not None:
        Orientation.of(orientation)
        orientation = orientation.lower()
    if header.contradiction and (orientation is None or given is None):
        raise InputError(
            f"{name} contradicts itself: {header.contradiction}; give its orientation and voxel size (--orientation, "
            "--voxel-size)",
            code="contradictory-header",
        )
    letters, factor, is_ccf = _ccf(header, orientation, given)
    if letters is None:
        reason = header.reason or "its header has none"
        size_too = "" if given or header.spacing else ", and the voxel size, in um (--voxel-size)"
        raise InputError(
            f"the orientation of {name} is not known: {reason}{_shown(header)}; give the orientation, such as asl "
            f"(--orientation){size_too}",
            code="missing-orientation",
        )
    # The voxels of the CCF are never flipped by the name of a side.
    sides_of_brainglobe = letters == _BRAINGLOBE or (header.is_own and orientation is None and "r" in letters)
    begins = letters.replace("r", "l") if is_ccf and sides_of_brainglobe else letters
    axes = Orientation.of(begins, ORIGIN if is_ccf else wanted)
    recorded = None if header.spacing is None else axes.order([length * factor for length in header.spacing])
    size = given or recorded
    if size is None or not all(math.isfinite(length) and length > 0 for length in size):
        raise InputError(
            f"the voxel size of {name} is not known: {header.reason}{_shown(header)}; give it, in um (--voxel-size)",
            code="missing-voxel-size",
        )
    if given is None:
        refuse_implausible(axes.order(header.shape), size, name, header.numbers)
    contradictions = _contradictions(header, orientation, given, recorded)
    if is_ccf and orientation is not None and begins != ORIGIN and axes.axes == _FILE_ORDER:
        contradictions.append(
            f"by its extent {name} is a volume of the CCF, whose files begin at {ORIGIN} (anterior, superior, left); "
            f"it is read as {orientation}, as given, and so turned or mirrored"
        )
    remarks = [*header.remarks]
    if orientation is None and (header.origin != letters or factor != 1):
        remarks.append(_ccf_remark(header, size))
    elif factor != 1:
        remarks.append(
            f"the sizes in the header of {name}{_shown(header)} are read as {um(size)}, since the volume then has the "
            "extent of the CCF"
        )
    elif orientation is None and header.fastest_first and not header.is_own:  # such headers are often wrong
        remarks.append(f"the axes of {name} begin at {letters}, by its header")
    if header.unit_assumed and given is None and factor == 1:
        remarks.append(f"the header of {name} has no unit of length{_shown(header)}; millimetres are assumed")
    if is_ccf and sides_of_brainglobe != (wanted == _BRAINGLOBE):
        remarks.append(sides_remark(name))
    if is_ccf and header.position is not None and max(abs(at) * factor for at in header.position) > max(size):
        remarks.append(
            f"the origin in the header of {name}{_shown(header)} is not used: the CCF has its own, the centre of the "
            "first voxel of 10 um"
        )
    position = None if is_ccf else _position(header, axes, size)
    return Frame(axes, begins, size, position, is_ccf, (*remarks, *contradictions), tuple(contradictions))


def _contradictions(
    header: Header,
    orientation: str | None,
    given: tuple[float, float, float] | None,
    recorded: tuple[float, float, float] | None,
) -> list[str]:
    """Remarks on an orientation and a voxel size that are given and contradict the header."""
    contradictions = []
    if orientation is not None and header.origin not in (None, orientation):
        contradictions.append(
            f"the axes of {header.name} begin at {header.origin} by its header{_shown(header)}; they are read as "
            f"{orientation}, as given"
        )
    if given is not None and recorded is not None:
        # The numbers of a header without a unit may be mm, as assumed, or um.
        factors = (1.0, 1e-3) if header.unit_assumed else (1.0,)
        remark = contradiction(header.name, recorded, given, header.numbers, factors)
        contradictions += [] if remark is None else [remark]
    return contradictions


def _ccf(
    header: Header, orientation: str | None, given: tuple[float, float, float] | None
) -> tuple[str | None, float, bool]:
    """The sides at which the axes begin, what to multiply the voxel size of the header with, and if it is the CCF."""
    begins = orientation or header.origin
    # The numbers of the Allen Institute are um; a reader that assumes mm, or ITK, calls them mm.
    factors = (1.0, 1e-3) if given is None and (header.unit_assumed or header.origin == WRONG) else (1.0,)

    def fits(order: Sequence[int], factor: float) -> bool:
        """Whether the volume has the extent of the CCF if its axes in this order are p, i, r."""
        size = given or (header.spacing and [header.spacing[axis] * factor for axis in order])
        return size is not None and reference_space(9).is_covered([header.shape[axis] for axis in order], size)

    for factor in factors:
        if begins is not None and fits(Orientation.of(begins).axes, factor):
            return begins, factor, True
    if orientation is not None:
        return orientation, 1.0, False
    for factor in factors:
        if fits(_FILE_ORDER, factor) and (begins == WRONG or (begins is None and not header.is_oblique)):
            return ORIGIN, factor, True
        if begins is not None and any(fits(order, factor) for order in permutations(_FILE_ORDER)):
            raise InputError(
                f"the axes of {header.name} begin at {begins} by its header{_shown(header)}, but its extent is that of "
                "the CCF in another order; give its orientation and voxel size (--orientation, such as asl for the "
                "axes p, i, r, and --voxel-size)",
                code="contradictory-header",
            )
    if begins == WRONG and header.spacing is not None and max(header.spacing) > LARGEST:
        raise InputError(
            f"the orientation of {header.name} is not known: its header names the space left-posterior-superior, with "
            f"voxels of {um(header.spacing)}{_shown(header)}, as in files of the Allen Institute, where it is wrong; "
            "give its orientation and voxel size (--orientation, such as asl, and --voxel-size)",
            code="missing-orientation",
        )
    return begins, 1.0, False


def _ccf_remark(header: Header, size: tuple[float, float, float]) -> str:
    """A remark on a volume of the CCF whose header has other axes or another unit."""
    says = "has no orientation" if header.origin is None else f"says that its axes begin at {header.origin}"
    if header.origin == WRONG:
        says = "names the space left-posterior-superior, like all old files of the Allen Institute"
    return (
        f"the header of {header.name} {says}{_shown(header)}; by its extent it is a volume of the CCF, so its axes "
        f"are read as p, i, r (asl), its voxels as {um(size)}"
    )


def _position(header: Header, axes: Orientation, size: tuple[float, float, float]) -> tuple[float, float, float] | None:
    """The centre of the first voxel along (z, y, x), in um; a size that is given keeps it in voxels."""
    if header.position is None or header.spacing is None or not np.isfinite(header.position).all():
        return None
    first = []
    for at, spacing, n, length, flipped in zip(
        axes.order(header.position),
        axes.order(header.spacing),
        axes.order(header.shape),
        size,
        axes.flipped,
        strict=True,
    ):
        voxels = -(at / spacing + n - 1) if flipped else at / spacing
        first.append(float(f"{voxels * length:.9g}") + 0.0)
    return first[0], first[1], first[2]


def _shown(header: Header) -> str:
    return f" ({header.numbers})" if header.numbers else ""

"""The header of a NIfTI file, as nibabel reads it."""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np

from ..errors import InputError
from .header import MICRONS, Header
from .orientation import origin_of

#: Bytes of a NIfTI-1 and of a NIfTI-2 header.
_LENGTHS = (348, 540)
#: Bytes of a header with all its extensions.
_LARGEST_OFFSET = 2**26
_UNITS = {"mm": MICRONS["mm"], "micron": MICRONS["um"], "meter": MICRONS["m"]}


def is_nifti(beginning: bytes) -> bool:
    """Whether a file that begins like this is a NIfTI-1 or NIfTI-2 file that includes its voxels."""
    return beginning[344:348] == b"n+1\0" or beginning[4:8] == b"n+2\0"


def read_nifti_header(stream: BinaryIO, name: str) -> Header:
    """Read the header, up to the first voxel.

    Parameters
    ----------
    stream : binary file
        Uncompressed, at its beginning.
    name : str
        Name of the file, for messages.

    Raises
    ------
    InputError
        If it is not the NIfTI header of a 3-D volume.
    """
    import nibabel

    beginning = stream.read(_LENGTHS[0])
    kind: Any = nibabel.Nifti1Header
    if beginning[344:348] != b"n+1\0":
        beginning += stream.read(_LENGTHS[1] - _LENGTHS[0])
        kind = nibabel.Nifti2Header
    try:
        header = kind(beginning)
        shape = tuple(int(n) for n in header.get_data_shape())
        dtype = np.dtype(header.get_data_dtype())
        offset, affine = int(header["vox_offset"]), np.asarray(header.get_best_affine())
        slope, intercept = header.get_slope_inter()
        unit = header.get_xyzt_units()[0]
    except Exception as error:  # nibabel raises several families of errors
        raise InputError(
            f"{name} has a NIfTI header that cannot be read: {type(error).__name__}: {error}", code="unreadable-header"
        ) from None
    rest = offset - len(beginning)
    if not (rest >= 0 and offset < _LARGEST_OFFSET and len(stream.read(rest)) == rest):
        raise InputError(f"{name} has an impossible vox_offset of {offset}; get the file again", code="damaged-file")
    while shape[3:] and shape[-1] == 1:
        shape = shape[:-1]
    origin, reason = None, "its header has no orientation (sform_code and qform_code are 0)"
    directions, first = affine[:3, :3].T, affine[:3, 3]
    spacing = np.linalg.norm(directions, axis=1)
    position: tuple[float, float, float] | None = None
    if int(header["sform_code"]) or int(header["qform_code"]):
        origin = origin_of(directions, "ras")
        reason = "" if origin else "the axes of its header are oblique"
    elif len(shape) == 3:
        spacing = np.asarray(header.get_zooms()[:3], np.float64)
    has_unit = unit in _UNITS
    micron = _UNITS.get(unit, MICRONS["mm"])
    if origin is not None:
        main = np.abs(directions).argmax(axis=1)
        position = _three(first[main] * np.sign(directions[range(3), main]) * micron)
    return Header(
        name,
        shape,
        dtype,
        fastest_first=True,
        offset=offset,
        spacing=_three(spacing * micron),
        origin=origin,
        reason=reason,
        scaling=(1.0 if slope is None else float(slope), 0.0 if intercept is None else float(intercept)),
        position=position,
        numbers=f"spacing {' x '.join(f'{n:g}' for n in spacing)} ({unit if has_unit else 'no unit'}), "
        f"origin {', '.join(f'{n + 0:g}' for n in first)}",
        unit_assumed=not has_unit,
        is_oblique=reason.endswith("oblique"),
    )


def _three(spacing: Any) -> tuple[float, float, float]:
    # The header stores float32: 0.025 mm are 25 um, and not 25.000000372529.
    z, y, x = (float(f"{length:.6g}") for length in spacing)
    return z, y, x

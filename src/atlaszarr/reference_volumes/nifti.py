"""The header of a NIfTI file, as nibabel reads it."""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np

from ..errors import InputError
from .header import MICRONS, Header

#: Bytes of a NIfTI-1 and of a NIfTI-2 header.
_LENGTHS = (348, 540)
#: Bytes of a header with all its extensions.
_LARGEST_OFFSET = 2**26
_UNITS = {"mm": MICRONS["mm"], "micron": MICRONS["um"], "meter": MICRONS["m"]}
#: Off the axis, as a part of the length, at which a direction is no longer along it.
_OBLIQUE = 1e-3
_BEGINS = {"R": "l", "L": "r", "A": "p", "P": "a", "S": "i", "I": "s"}


def is_nifti(beginning: bytes) -> bool:
    """Whether a file that begins so is a NIfTI-1 or NIfTI-2 with its voxels in it."""
    return beginning[344:348] == b"n+1\0" or beginning[4:8] == b"n+2\0"


def read_nifti_header(stream: BinaryIO, name: str) -> Header:
    """Read a header, up to where the voxels begin.

    Parameters
    ----------
    stream : binary file
        At its beginning, uncompressed.
    name : str
        For messages.

    Raises
    ------
    InputError
        If it is none, or is not of a 3-D volume.
    """
    import nibabel

    codes: Any = nibabel.aff2axcodes
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
    except Exception as error:  # nibabel has several families of them
        raise InputError(f"{name} has a NIfTI header that cannot be read: {type(error).__name__}: {error}") from None
    if not len(beginning) <= offset < _LARGEST_OFFSET or len(stream.read(offset - len(beginning))) < offset - len(
        beginning
    ):
        raise InputError(f"{name} has the vox_offset {offset}, where no voxels can be; it is damaged")
    while shape[3:] and shape[-1] == 1:
        shape = shape[:-1]
    origin, doubt = None, "its header states no orientation (sform_code and qform_code are 0)"
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if int(header["sform_code"]) or int(header["qform_code"]):
        main = np.abs(affine[:3, :3]).argmax(axis=0)
        off = np.sort(np.abs(affine[:3, :3]), axis=0)[:2].max(axis=0)
        if sorted(main) == [0, 1, 2] and not (off > _OBLIQUE * spacing).any():
            origin = "".join(_BEGINS[letter] for letter in codes(affine))
        doubt = "" if origin else "the axes of its header are oblique"
    elif len(shape) == 3:
        spacing = np.asarray(header.get_zooms()[:3], np.float64)
    micron = _UNITS.get(unit)
    return Header(
        name,
        shape,
        dtype,
        fastest_first=True,
        offset=offset,
        spacing=None if micron is None else _three(spacing * micron),
        origin=origin,
        doubt=doubt or ("" if micron else "its header states no unit of length"),
        remarks=(f"the axes of {name} begin at {origin}, as its header says",) if origin else (),
        scaling=(1.0 if slope is None else float(slope), 0.0 if intercept is None else float(intercept)),
    )


def _three(spacing: Any) -> tuple[float, float, float]:
    # Stored as float32: 0.025 mm are 25 um, and not 25.000000372529.
    z, y, x = (float(f"{length:.6g}") for length in spacing)
    return z, y, x

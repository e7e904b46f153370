"""The header of a NIfTI file, as nibabel reads it."""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .directions import Placement, placement, product, step_lengths
from .header import MOST_SKIPPED, Header, unreadable_header
from .orientation import origin_of

#: Bytes of a NIfTI-1 header, which tell the format.
BEGINNING = 348
#: Bytes of a NIfTI-2 header.
_LENGTH_2 = 540
#: The description of a file that atlaszarr wrote.
WRITER = b"atlaszarr"
#: The largest code of a space, NIFTI_XFORM_TEMPLATE_OTHER.
_LARGEST_FORM_CODE = 5
#: Relative difference of two sizes up to which they are the same.
_SAME = 1e-3


def is_nifti(beginning: bytes) -> bool:
    """Whether a file that begins like this is a NIfTI-1 or NIfTI-2 file, with its voxels or next to them."""
    return beginning[344:348] in (b"n+1\0", b"ni1\0") or beginning[4:8] in (b"n+2\0", b"ni2\0")


def read_nifti_header(stream: BinaryIO, name: str, beginning: bytes = b"") -> Header:
    """Read the header, up to the first voxel of a file that includes its voxels.

    A header without a unit is in mm, as every reader of NIfTI takes it (`Header.unit_assumed`). The sform is followed
    where there is one, else the qform.

    Parameters
    ----------
    stream : binary file
        Uncompressed, after `beginning`.
    name : str
        Name of the file, for messages.
    beginning : bytes
        What was read of the stream already: at most `BEGINNING` bytes.

    Raises
    ------
    InputError
        If it is not the NIfTI header of a 3-D volume.
    """
    import nibabel

    beginning += stream.read(BEGINNING - len(beginning))
    kind: Any = nibabel.Nifti1Header
    pair = beginning[344:348] == b"ni1\0"
    if not (pair or beginning[344:348] == b"n+1\0"):
        beginning += stream.read(_LENGTH_2 - BEGINNING)
        kind, pair = nibabel.Nifti2Header, beginning[4:8] == b"ni2\0"
    try:
        with np.errstate(all="ignore"):
            header = kind(beginning, check=False)  # the checks log, and repair what they should refuse
            _check(header)
            shape = tuple(int(n) for n in header.get_data_shape())
            dtype = np.dtype(header.get_data_dtype())
            offset = int(header["vox_offset"])
            slope, intercept = header.get_slope_inter()
            unit = header.get_xyzt_units()[0]
            while shape[3:] and shape[-1] == 1:
                shape = shape[:-1]
            place = _placement(header, None if unit == "unknown" else unit)
            remarks = _remarks(header, name)
            doubt = _contradiction(header)
    except Exception as error:  # nibabel raises several families of errors
        raise unreadable_header(name, "a NIfTI", error) from None
    rest = 0 if pair else offset - len(beginning)
    if not (rest >= 0 and offset < MOST_SKIPPED and len(stream.read(rest)) == rest):
        raise InputError(f"{name} has an impossible vox_offset of {offset}; get the file again", code="damaged-file")
    return Header(
        name,
        shape,
        dtype,
        fastest_first=True,
        offset=0 if pair else offset,
        scaling=(1.0 if slope is None else float(slope), 0.0 if intercept is None else float(intercept)),
        remarks=remarks,
        contradiction=doubt,
        data_file=_image_of(name) if pair else None,
        skip=offset if pair else 0,
        is_own=bytes(header["descrip"].item()) == WRITER,
        **place,
    )


def _check(header: Any) -> None:
    """Refuse what the standard does not define, and what nibabel would repair with a guess."""
    if int(header["sizeof_hdr"]) != header.sizeof_hdr:
        raise ValueError(f"sizeof_hdr is {int(header['sizeof_hdr'])}, and must be {header.sizeof_hdr}")
    for field in ("sform_code", "qform_code"):
        if not 0 <= (code := int(header[field])) <= _LARGEST_FORM_CODE:
            raise ValueError(f"{field} is {code}, and must be 0 to {_LARGEST_FORM_CODE}")


def _placement(header: Any, unit: str | None) -> Placement:
    """Spacing, origin and all that follows from them."""
    affine = np.asarray(header.get_best_affine(), np.float64)
    if int(header["sform_code"]) or int(header["qform_code"]):
        directions, missing = affine[:3, :3].T, ""
        lengths, first = _rounded(step_lengths(directions)), _rounded(affine[:3, 3])
        return placement(lengths, directions, "ras", unit, list(first), missing=missing)
    lengths = _rounded(header.get_zooms()[:3])
    missing = "its header has no orientation (sform_code and qform_code are 0)"
    return placement(lengths, None, None, unit, None, missing=missing)


def _remarks(header: Any, name: str) -> tuple[str, ...]:
    """A remark if pixdim has other sizes than the sform, without a qform."""
    lengths = _rounded(step_lengths(np.asarray(header.get_best_affine(), np.float64)[:3, :3].T))
    zooms = _rounded(header.get_zooms()[:3])
    if not int(header["sform_code"]) or int(header["qform_code"]) or not _differ(lengths, zooms):
        return ()
    sizes = f"{product(lengths)} by its sform, which is followed, and {product(zooms)} by pixdim"
    return (f"{name} has voxels of {sizes}",)


def _contradiction(header: Any) -> str:
    """How the sform and the qform differ in size or axes, if both are given; else an empty text."""
    if not (int(header["sform_code"]) and int(header["qform_code"])):
        return ""
    texts, sizes, origins = [], [], []
    for form in ("sform", "qform"):
        directions = np.asarray(getattr(header, f"get_{form}")(), np.float64)[:3, :3].T
        sizes.append(_rounded(step_lengths(directions)))
        origins.append(origin_of(directions, "ras"))
        texts.append(f"voxels of {product(sizes[-1])} from {origins[-1] or 'oblique axes'} by its {form}")
    return " and ".join(texts) if _differ(*sizes) or origins[0] != origins[1] else ""


def _differ(sizes: Any, others: Any) -> bool:
    return len(sizes) == len(others) == 3 and not np.allclose(sizes, others, rtol=_SAME, atol=0)


def _rounded(lengths: Any) -> NDArray[np.float64]:
    # The header stores float32: 0.025 mm are 25 um, and not 25.000000372529.
    return np.asarray([float(f"{length:.6g}") for length in lengths])


def _image_of(name: str) -> str:
    """The name of the file with the voxels of a pair."""
    file = name.rpartition("/")[2]
    for ending, image in ((".hdr", ".img"), (".hdr.gz", ".img.gz"), (".HDR", ".IMG")):
        if file.endswith(ending):
            return file.removesuffix(ending) + image
    raise InputError(
        f"{name} is the header of a NIfTI pair, whose voxels are in another file; give them names that end in .hdr "
        "and .img",
        code="invalid-data-file",
    )

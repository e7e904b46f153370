"""Files that are not read as volumes, named by their first bytes, with the way out."""

from __future__ import annotations

import struct
from collections.abc import Callable

from ..errors import InputError
from .metaimage import is_metaimage
from .nifti import BEGINNING, is_nifti
from .tiff import TIFF_BEGINNINGS

#: The first bytes of a gzip.
GZIP = b"\x1f\x8b"
#: The largest length of an axis that the header of an MGH file is believed.
_MGH_LONGEST = 2**16
_SAVE = "save it as NIfTI, NRRD, MetaImage, TIFF or OME-Zarr"
#: Offset, bytes, name, what to do (nothing for what is read).
_SIGNATURES = (
    (0, GZIP, "a gzip file", "gunzip it first"),
    (0, b"NRRD", "an NRRD", ""),
    *((0, beginning, "a TIFF", "") for beginning in TIFF_BEGINNINGS),
    (0, b"BZh", "a bzip2 file", "bunzip2 it first"),
    (0, b"\xfd7zXZ\0", "an xz file", "unxz it first"),
    (0, b"\x28\xb5\x2f\xfd", "a zstd file", "unzstd it first"),
    (0, b"\x04\x22\x4d\x18", "an lz4 file", "unlz4 it first"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it, and give the volume in it"),
    (0, b"PK\x03\x04", "a zip archive", "unzip it, and give the volume in it"),
    (0, b"PK\x05\x06", "a zip archive", "it is empty"),
    (257, b"ustar", "a tar archive", "unpack it, and give the volume in it"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 (as MINC, Imaris and BigDataViewer files are)", _SAVE),
    (0, b"CDF\x01", "a NetCDF (as MINC files are)", _SAVE),
    (0, b"CDF\x02", "a NetCDF (as MINC files are)", _SAVE),
    (0, b"ZISRAWFILE", "a CZI", _SAVE),
    (0, b"\xda\xce\xbe\x0a", "an ND2", _SAVE),
    (0, b"\x93NUMPY", "a NumPy array", "it has no voxel size; " + _SAVE),
    (0, b"\xff\xd8\xff", "a JPEG", "give a volume"),
    (0, b"\x89PNG\r\n\x1a\n", "a PNG", "give a volume"),
    (0, b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000", "give a volume"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000", "give a volume"),
    (0, b"GIF8", "a GIF", "give a volume"),
    (128, b"DICM", "a DICOM", "convert the series to NIfTI, as dcm2niix does"),
    (0, b"# vtk DataFile", "a VTK", _SAVE),
    (0, b"%PDF", "a PDF", "give a volume"),
    (0, b"SIMPLE  =", "an FITS", _SAVE),
    (0, b"version https://git-lfs", "a Git LFS pointer", "run 'git lfs pull' to get the file"),
    (0, b"/annex/objects/", "a git-annex pointer", "run 'git annex get' to get the file"),
    (0, b"<?xml", "an XML", "give a volume"),
)
#: What to do with files of voxels alone, by the ends of their names.
_VOXELS = {
    ".raw": "give the .mhd or .nhdr file that describes it",
    ".zraw": "give the .mhd file that describes it",
    ".raw.gz": "give the .nhdr file that describes it",
    ".img": "give the .hdr file that describes it",
    ".img.gz": "give the .hdr.gz file that describes it",
}
#: Beginnings of a web page, in lower case.
_PAGES = (b"<!doctype html", b"<html")


def not_a_volume(beginning: bytes, name: str, *, compressed: bool = False) -> InputError:
    """The error for a file of a format that is not read.

    Parameters
    ----------
    beginning : bytes
        Its first `BEGINNING` bytes.
    name : str
        Name of the file, for messages.
    compressed : bool
        Whether the file is a gzip, and `beginning` is that of its decompressed bytes.
    """
    what = "a gzip of something that" if compressed else "a file that"
    found = _format(beginning)
    if found is None:
        formats = "NIfTI" if compressed else "NRRD, NIfTI, MetaImage, TIFF or OME-Zarr"
        way_out = next((way for ending, way in _VOXELS.items() if name.endswith(ending)), "give a volume")
        return InputError(
            f"{name} is {what} is not {formats}: it begins with {beginning[:8]!r}; {way_out}", code="unknown-format"
        )
    format, way_out = found
    if compressed:
        return InputError(
            f"{name} is a gzip of {format}, and only NIfTI is read through gzip; gunzip it first"
            + (f", then {way_out}" if way_out else ""),
            code="unknown-format",
        )
    return InputError(f"{name} is {format}, which is not read; {way_out}", code="unknown-format")


def _format(beginning: bytes) -> tuple[str, str] | None:
    """The name of a format, and what to do with the file."""
    for offset, signature, format, way_out in _SIGNATURES:
        if beginning[offset:].startswith(signature):
            return format, way_out
    for recognised, format, way_out in _LOOKS:
        if recognised(beginning):
            return format, way_out
    return None


def _is_json(beginning: bytes) -> bool:
    return beginning.lstrip()[:1] in (b"{", b"[") and beginning.isascii() and b"\0" not in beginning


def _is_analyze(beginning: bytes) -> bool:
    """Whether the file begins with the length of its header, as NIfTI does too, which is recognised before."""
    return len(beginning) >= BEGINNING and BEGINNING in (
        struct.unpack("<i", beginning[:4])[0],
        struct.unpack(">i", beginning[:4])[0],
    )


def _is_mgh(beginning: bytes) -> bool:
    """Whether these are the version, a possible shape and a type of an MGH file."""
    if len(beginning) < 24:
        return False
    version, *shape, kind = struct.unpack(">6i", beginning[:24])
    return version == 1 and all(0 < n < _MGH_LONGEST for n in shape) and 0 <= kind <= 10


#: What recognises the first bytes of a format, its name, what to do.
_LOOKS: tuple[tuple[Callable[[bytes], bool], str, str], ...] = (
    (lambda beginning: beginning.lstrip().lower().startswith(_PAGES), "a web page", "check the URL"),
    (_is_json, "a JSON document", "give a volume"),
    (is_nifti, "a NIfTI", ""),
    (is_metaimage, "a MetaImage", ""),
    (_is_mgh, "an MGH file (of FreeSurfer)", "convert it with 'mri_convert' to .nii.gz"),
    (_is_analyze, "an Analyze 7.5 header", "it has no orientation; save it as NIfTI"),
)

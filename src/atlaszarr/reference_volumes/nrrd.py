"""The header of an NRRD file.

The fields are defined in https://teem.sourceforge.net/nrrd/format.html; pynrrd parses them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, BinaryIO, Literal

import numpy as np

from ..errors import InputError
from .directions import Placement, placement, product, step_lengths
from .header import Header, unreadable_header

#: The most bytes of a header.
_LONGEST = 2**20
#: Relative difference of two sizes up to which they are the same.
_SAME = 1e-3
_COMPRESSIONS = {
    "raw": "none",
    **dict.fromkeys(("gzip", "gz"), "gzip"),
    **dict.fromkeys(("bzip2", "bz2"), "bzip2"),
    **dict.fromkeys(("ascii", "text", "txt"), "text"),
}
#: Kinds of axes along which an image extends; along any other lie the components of a value.
_EXTENDED = {"domain", "space", "time", "list", "point", "???", "none", ""}
#: Types by their names, without a final ``_t``.
_TYPES = {
    **dict.fromkeys(("signed char", "int8"), "i1"),
    **dict.fromkeys(("uchar", "unsigned char", "uint8"), "u1"),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16"), "i2"),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16"), "u2"),
    **dict.fromkeys(("int", "signed int", "int32"), "i4"),
    **dict.fromkeys(("uint", "unsigned int", "uint32"), "u4"),
    **dict.fromkeys(("longlong", "long long", "long long int", "signed long long", "int64"), "i8"),
    **dict.fromkeys(("ulonglong", "unsigned long long", "unsigned long long int", "uint64"), "u8"),
    "float": "f4",
    "double": "f8",
}
_SKIPS = ("line skip", "byte skip")
_ENDIANS: dict[str, Literal["<", ">"]] = {"little": "<", "big": ">"}
#: By the long or short name of a space: the side that each of its coordinates increases to.
_SPACES = {
    "right-anterior-superior": "ras",
    "left-anterior-superior": "las",
    "left-posterior-superior": "lps",
    "ras": "ras",
    "las": "las",
    "lps": "lps",
}


def read_nrrd_header(stream: BinaryIO, name: str) -> Header:
    """Read the header, up to the first voxel.

    Parameters
    ----------
    stream : binary file
        At its beginning.
    name : str
        Name of the file, for messages.

    Raises
    ------
    InputError
        If it is not an NRRD header, or has what is not supported: several data files or components, other encodings,
        or another number of axes than 3.
    """
    import nrrd

    body = bytearray()
    while line := stream.readline(_LONGEST):
        body += line
        if not line.strip():
            break
        if len(body) > _LONGEST:
            raise InputError(
                f"{name} has an NRRD header that does not end within {_LONGEST} bytes; get the file again",
                code="damaged-file",
            )
    try:
        with np.errstate(all="ignore"):
            fields: Mapping[str, Any] = nrrd.read_header(_text(bytes(body)).split("\n"))
        shape = tuple(int(n) for n in fields["sizes"])
        compression = _compression(fields, name)
        dtype = _dtype(fields, compression)
        kept = _kept_axes(fields, shape, name)
        place = _placement(fields, kept)
        lines, skip = (int(fields.get(field, fields.get(field.replace(" ", ""), 0))) for field in _SKIPS)
    except InputError:
        raise
    except Exception as error:  # pynrrd raises several families of errors
        raise unreadable_header(name, "an NRRD", error) from None
    if line and line.strip():
        raise InputError(f"{name} is cut short within its NRRD header; get the file again", code="truncated-file")
    data_file = fields.get("data file", fields.get("datafile"))
    if data_file is None and not line:
        raise InputError(
            f"{name} has neither voxels nor a 'data file' after its NRRD header; get the file again",
            code="truncated-file",
        )
    return Header(
        name,
        tuple(shape[axis] for axis in kept),
        dtype,
        fastest_first=True,
        compression=compression,
        offset=0 if data_file is not None else len(body),
        data_file=None if data_file is None else str(data_file),
        lines=lines,
        skip=skip,
        contradiction=_contradiction(fields, kept),
        **place,
    )


def _text(body: bytes) -> str:
    """The text of a header: pynrrd drops what is not ASCII, which makes m of µm."""
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError:
        return body.decode("latin-1")


def _compression(fields: Mapping[str, Any], name: str) -> str:
    encoding = str(fields["encoding"]).lower()
    if encoding not in _COMPRESSIONS:
        raise InputError(
            f"{name} has the encoding {encoding!r}; save it with one of {', '.join(_COMPRESSIONS)}",
            code="not-supported",
        )
    return _COMPRESSIONS[encoding]


def _kept_axes(fields: Mapping[str, Any], shape: tuple[int, ...], name: str) -> tuple[int, ...]:
    """The axes without those of length 1 beyond three: first the ones without a direction, then the last ones."""
    kinds = [str(kind).lower() for kind in fields.get("kinds", ())]
    for length, kind in zip(shape, kinds, strict=False):
        if length > 1 and kind not in _EXTENDED:
            raise InputError(
                f"{name} has an axis of kind {kind!r} with {length} components; save one value per voxel",
                code="wrong-dimensions",
            )
    kept = list(range(len(shape)))
    directions = np.asarray(fields.get("space directions", np.zeros((len(shape), 1))), np.float64)
    without = [axis for axis in kept if len(directions) != len(shape) or np.isnan(directions[axis]).any()]
    for axis in (*without, *reversed(range(len(shape)))):
        if len(kept) > 3 and shape[axis] == 1 and axis in kept:
            kept.remove(axis)
    return tuple(kept)


def _placement(fields: Mapping[str, Any], kept: tuple[int, ...]) -> Placement:
    """Spacing, origin and all that follows from them, for the kept axes."""
    all_directions = np.asarray(fields.get("space directions", np.empty((0, 0))), np.float64)
    units = [str(unit) for unit in fields.get("space units", ())]
    first = fields.get("space origin")
    if len(all_directions) <= max(kept) or (directions := all_directions[list(kept)]).shape != (3, 3):
        units = units or [str(unit) for unit in fields.get("units", ())]
        spacings = fields.get("spacings", ())
        lengths = np.asarray([spacings[axis] for axis in kept], np.float64) if len(spacings) > max(kept) else None
        missing = "its header has no space directions"
        return placement(lengths, None, None, _one_unit(units), None, missing=missing)
    letters = _SPACES.get(str(fields.get("space", "")).lower())
    missing = f"its header names the space {fields.get('space')!r}"
    return placement(step_lengths(directions), directions, letters, _one_unit(units), first, missing=missing)


def _contradiction(fields: Mapping[str, Any], kept: tuple[int, ...]) -> str:
    """How ``spacings`` and ``space directions`` differ in size, of which a header has one; else an empty text."""
    directions = np.asarray(fields.get("space directions", np.empty((0, 0))), np.float64)
    spacings = np.asarray(fields.get("spacings", ()), np.float64)
    if min(len(directions), len(spacings)) <= max(kept):
        return ""
    lengths, others = step_lengths(directions[list(kept)]), spacings[list(kept)]
    given = np.isfinite(lengths) & np.isfinite(others)
    if np.allclose(lengths[given], np.abs(others[given]), rtol=_SAME, atol=0):
        return ""
    return f"voxels of {product(others)} by its spacings and of {product(lengths)} by its space directions"


def _one_unit(units: list[str]) -> str | None:
    """The unit of all axes, None if there is none; the names of different units, joined, are no known unit."""
    named = {unit.strip('"') for unit in units if unit.strip('" ') not in ("", "???")}
    return " and ".join(sorted(named)) if named else None


def _dtype(fields: Mapping[str, Any], compression: str) -> np.dtype[Any]:
    dtype = np.dtype(_TYPES[str(fields["type"]).removesuffix("_t")])
    if dtype.itemsize == 1 or compression == "text":
        return dtype
    return dtype.newbyteorder(_ENDIANS[str(fields["endian"]).lower()])

"""The header of an NRRD file. Files of the Allen Institute have a wrong orientation, which `frame` corrects.

The fields are defined in https://teem.sourceforge.net/nrrd/format.html; pynrrd parses them.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, BinaryIO, Literal

import numpy as np

from ..errors import InputError
from .header import MICRONS, Header
from .orientation import origin_of

#: The most bytes of a header.
_LONGEST = 2**20
_COMPRESSIONS = {"raw": "none", "gzip": "gzip", "gz": "gzip", "bzip2": "bzip2", "bz2": "bzip2"}
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
        If it is not an NRRD header, or has what is not supported: text, skipped bytes, several data files, or another
        number of axes than 3.
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
        fields: Mapping[str, Any] = nrrd.read_header(io.BytesIO(bytes(body)))
        shape = tuple(int(n) for n in fields["sizes"])
        dtype = _dtype(fields)
        compression = _COMPRESSIONS[str(fields["encoding"]).lower()]
    except (nrrd.NRRDError, KeyError, ValueError, TypeError, StopIteration) as error:
        raise InputError(
            f"{name} has an NRRD header that cannot be read: {type(error).__name__}: {error}", code="unreadable-header"
        ) from None
    if line and line.strip():
        raise InputError(f"{name} is cut short within its NRRD header; get the file again", code="truncated-file")
    for field in ("line skip", "lineskip", "byte skip", "byteskip"):
        if fields.get(field, 0) != 0:
            raise InputError(f"{name} has {field} {fields[field]}; save it without", code="not-supported")
    data_file = fields.get("data file", fields.get("datafile"))
    if data_file is None and not line:
        raise InputError(
            f"{name} has neither voxels nor a 'data file' after its NRRD header; get the file again",
            code="truncated-file",
        )
    return Header(
        name,
        shape,
        dtype,
        fastest_first=True,
        compression=compression,
        offset=0 if data_file is not None else len(body),
        data_file=None if data_file is None else _data_file(str(data_file), name),
        **_geometry(fields),
    )


def _geometry(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a Header on orientation, voxel size and origin."""
    directions = np.asarray(fields.get("space directions", np.empty((0, 0))), np.float64)
    if directions.shape != (3, 3) or not np.isfinite(directions).all():
        return {"reason": "its header has no space directions"}
    lengths = np.linalg.norm(directions, axis=1)
    letters = _SPACES.get(str(fields.get("space", "")).lower())
    units = {MICRONS.get(str(unit).strip('"').lower()) for unit in fields.get("space units", ())}
    micron = units.pop() if len(units) == 1 else None
    unit = "no unit" if micron is None else " ".join(map(str, fields["space units"]))
    first = np.asarray(fields.get("space origin", np.full(3, np.nan)), np.float64)
    at = ", origin " + ", ".join(f"{n:g}" for n in first) if np.isfinite(first).all() else ""
    found: dict[str, Any] = {"numbers": f"spacing {' x '.join(f'{n:g}' for n in lengths)} ({unit}){at}"}
    if micron is None:
        micron, found["unit_assumed"] = MICRONS["mm"], True
    found["spacing"] = tuple(float(f"{length * micron:.12g}") for length in lengths)
    if letters is None:
        return {**found, "reason": f"its header names the space {fields.get('space')!r}"}
    origin = origin_of(directions, letters)
    if origin is None:
        return {**found, "is_oblique": True, "reason": "the axes of its header are oblique"}
    if at:
        main = np.abs(directions).argmax(axis=1)
        signs = np.sign(directions[range(3), main])
        found["position"] = tuple(float(n) for n in first[main] * signs * micron)
    return {**found, "origin": origin}


def _dtype(fields: Mapping[str, Any]) -> np.dtype[Any]:
    dtype = np.dtype(_TYPES[str(fields["type"]).removesuffix("_t")])
    if dtype.itemsize == 1:
        return dtype
    return dtype.newbyteorder(_ENDIANS[str(fields["endian"]).lower()])


def _data_file(data_file: str, name: str) -> str:
    """The name of a detached data file, which must be in the folder of its header."""
    plain = data_file.removeprefix("./")
    if not plain or any(mark in plain for mark in "/\\%\n") or plain.split()[0] == "LIST" or plain == "..":
        raise InputError(
            f"{name} names the data file {data_file!r}; it must be one file in the folder of the header",
            code="invalid-data-file",
        )
    return plain

"""The header of a MetaImage (.mhd with .raw or .zraw, or .mha).

The fields are defined in https://itk.org/Wiki/MetaIO/Documentation; where ITK's own reader differs, ITK is followed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import BinaryIO, Literal

import numpy as np

from ..errors import InputError
from ..geometry.voxel_size import NUMBER
from .directions import Placement, placement
from .header import Header, unreadable_header

#: The most bytes of a header; ITK writes 400 to 2000.
_LONGEST = 2**16
#: The most axes, as in MetaIO.
_MOST_AXES = 10
#: The most digits of a number: a float64 in full has 24 characters.
_LONGEST_NUMBER = 64
#: Types by their names; a long has 4 bytes in the file on every machine.
_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
_BOOLEANS = {"true": True, "false": False, "1": True, "0": False, "t": True, "f": False}
#: The value of ElementDataFile if the voxels follow the header.
_LOCAL = "local"
_FIRST_LINE = re.compile(
    rb"\s*(ObjectType|ObjectSubType|NDims|Comment|Name|ID|TransformType|BinaryData|CompressedData|DimSize)[ \t]*[=:]"
)
#: The names of the directions, and of the centre of the first voxel, in the order in which they are looked for.
_MATRICES = ("TransformMatrix", "Rotation", "Orientation")
_ORIGINS = ("Offset", "Origin", "Position")


def is_metaimage(beginning: bytes) -> bool:
    """Whether a file that begins like this is a MetaImage."""
    return _FIRST_LINE.match(beginning) is not None


def read_metaimage_header(stream: BinaryIO, name: str) -> Header:
    """Read the header, up to the first voxel.

    A MetaImage has no unit: its lengths are in mm by ITK's convention (`Header.unit_assumed`). Its space is
    left-posterior-superior, as ITK has it. ``AnatomicalOrientation``, which writers use in opposite senses, is not
    read: the matrix decides, as in ITK.

    Parameters
    ----------
    stream : binary file
        At its beginning.
    name : str
        Name of the file, for messages.

    Raises
    ------
    InputError
        If it is not the header of a MetaImage, or has what is not supported: several data files or channels, or
        another number of axes than 3.
    """
    fields, length = _fields(stream, name)
    kind = fields.get("ObjectType", "Image")
    if kind != "Image":
        raise InputError(f"{name} is a MetaIO file of a {kind}; give an Image", code="not-supported")
    shape = tuple(_integer(n, "DimSize", name) for n in _words(fields, "DimSize", _axes(fields, name), name))
    channels = _integer(fields.get("ElementNumberOfChannels", "1"), "ElementNumberOfChannels", name)
    if channels != 1:
        raise InputError(f"{name} has {channels} channels; save one value per voxel", code="wrong-dimensions")
    element = fields.get("ElementType", "")
    if element not in _TYPES:
        raise _unreadable(name, f"ElementType is {element!r}, and must be one of {', '.join(_TYPES)}")
    binary = _boolean(fields, "BinaryData", True, name)
    compressed = _boolean(fields, "CompressedData", False, name)
    big = _boolean(fields, "BinaryDataByteOrderMSB", _boolean(fields, "ElementByteOrderMSB", False, name), name)
    endian: Literal["<", ">"] = ">" if big else "<"
    dtype = np.dtype(_TYPES[element]).newbyteorder(endian)
    data_file = fields["ElementDataFile"]
    local = data_file.lower() == _LOCAL
    skip = _integer(fields.get("HeaderSize", "0"), "HeaderSize", name)
    if local and skip > 0:
        # ITK counts from the beginning of the file here, and others from the end of the header.
        raise InputError(
            f"{name} has HeaderSize {skip} and its voxels in the same file; save it without", code="not-supported"
        )
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    return Header(
        name,
        shape,
        dtype if binary else dtype.newbyteorder("="),
        fastest_first=True,
        compression="text" if not binary else "zlib" if compressed else "none",
        offset=length if local else 0,
        data_file=None if local else data_file,
        skip=skip,
        **_place(fields, name),
    )


def _place(fields: Mapping[str, str], name: str) -> Placement:
    """Spacing, origin and all that follows from them, along the first three axes."""
    axes = _axes(fields, name)
    lengths = matrix = first = None
    for field in ("ElementSpacing", "ElementSize"):
        if field in fields:
            lengths = np.asarray(_numbers(fields, field, axes, name)[:3])
            break
    for field in _MATRICES:
        if field in fields:
            # The numbers of one axis follow one another.
            matrix = np.asarray(_numbers(fields, field, axes * axes, name)).reshape(axes, axes)[:3, :3]
            break
    for field in _ORIGINS:
        if field in fields:
            first = _numbers(fields, field, axes, name)[:3]
            break
    ends = None if matrix is None else "lps"
    if matrix is None:
        matrix = np.eye(axes)[:3, :3]
    if lengths is not None and ends is not None:
        # As in ITK, an axis with a negative spacing runs the other way: refused where no matrix tells which way.
        matrix, lengths = matrix * np.where(lengths < 0, -1, 1)[:, None], np.abs(lengths)
    return placement(lengths, matrix, ends, None, first, missing="its header has no TransformMatrix")


def _fields(stream: BinaryIO, name: str) -> tuple[dict[str, str], int]:
    """The fields by their names, up to that of the voxels, and the bytes that were read."""
    fields: dict[str, str] = {}
    length = 0
    while "ElementDataFile" not in fields:
        line = stream.readline(_LONGEST + 1)
        length += len(line)
        if length > _LONGEST:
            raise InputError(
                f"{name} has a MetaImage header that does not end within {_LONGEST} bytes; get the file again",
                code="damaged-file",
            )
        if not line:
            raise InputError(
                f"{name} is cut short within its MetaImage header, which ends with ElementDataFile; get the file again",
                code="truncated-file",
            )
        text = line.decode("utf-8", "backslashreplace").strip()
        key, separator, value = (part.strip() for part in re.match("([^=:]*)([=:]?)(.*)", text).groups())  # type: ignore[union-attr]
        if not separator and text:
            raise _unreadable(name, f"a line reads {text[:_LONGEST_NUMBER]!r}, and must be 'name = value'")
        if key in fields:
            raise _unreadable(name, f"{key} occurs twice")
        if text:
            fields[key] = value
    return fields, length


def _axes(fields: Mapping[str, str], name: str) -> int:
    axes = _integer(fields.get("NDims", ""), "NDims", name)
    if not 1 <= axes <= _MOST_AXES:
        raise _unreadable(name, f"NDims is {axes}, and must be 1 to {_MOST_AXES}")
    return axes


def _words(fields: Mapping[str, str], field: str, count: int, name: str) -> list[str]:
    words = fields.get(field, "").split()
    if len(words) != count:
        raise _unreadable(name, f"{field} has {len(words)} numbers, and must have {count}")
    return words


def _numbers(fields: Mapping[str, str], field: str, count: int, name: str) -> list[float]:
    words = _words(fields, field, count, name)
    for word in words:
        if len(word) > _LONGEST_NUMBER or not NUMBER.fullmatch(word):
            raise _unreadable(name, f"{field} has {word[:_LONGEST_NUMBER]!r}, which is not a number")
    return [float(word) for word in words]


def _integer(word: str, field: str, name: str) -> int:
    if len(word) > _LONGEST_NUMBER or not re.fullmatch(r"[+-]?[0-9]+", word):
        raise _unreadable(name, f"{field} is {word[:_LONGEST_NUMBER]!r}, and must be a whole number")
    return int(word)


def _boolean(fields: Mapping[str, str], field: str, default: bool, name: str) -> bool:
    if field not in fields:
        return default
    value = _BOOLEANS.get(fields[field].lower())
    if value is None:
        raise _unreadable(name, f"{field} is {fields[field][:_LONGEST_NUMBER]!r}, and must be True or False")
    return value


def _unreadable(name: str, reason: str) -> InputError:
    return unreadable_header(name, "a MetaImage", reason)

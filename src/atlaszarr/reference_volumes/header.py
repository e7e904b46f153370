"""The header of a volume's file, in any format."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError

#: The most bytes of a file to skip before its voxels: headers of other formats are far smaller.
MOST_SKIPPED = 2**26
#: The most lines to skip.
_MOST_LINES = 2**16
#: The most voxels along an axis: 26 cm of 1 um.
_LONGEST_AXIS = 2**18


@dataclass(frozen=True)
class Header:
    """Metadata of a volume, along the axes of its file.

    Attributes
    ----------
    name : str
        Name of the file, for messages.
    shape : tuple of int
    dtype : dtype
        Of the stored voxels, with their byte order.
    fastest_first : bool
        Whether voxels lie next to each other along the first axis, and not along the last.
    compression : str
        ``none``, ``gzip``, ``bzip2``, ``zlib``, ``text`` for numbers in ASCII, or ``pages`` if planes are decoded one
        by one.
    offset : int
        Bytes of the file before uncompressed voxels.
    spacing : tuple of float, optional
        Voxel size, in um.
    origin : str, optional
        The side at which each axis begins, see `atlaszarr.reference_volumes.orientation`.
    reason : str
        Why `spacing` or `origin` is None.
    remarks : tuple of str
    scaling : tuple of float
        (slope, intercept): a value is slope x stored + intercept.
    data_file : str, optional
        Name of the file next to this one that holds the voxels.
    position : tuple of float, optional
        Centre of the first voxel along the axes of the file, in um; it grows with the index of the voxel.
    numbers : str
        Sizes, unit and origin as the header writes them, for messages.
    unit_assumed : bool
        Whether `spacing` and `position` are in mm by convention, since the file has no unit.
    is_oblique : bool
        Whether `origin` is None since the axes are oblique.
    contradiction : str
        What the header records twice and differently, so that `spacing` or `origin` is uncertain; else empty.
    lines : int
        Lines of the file of the voxels to skip before them, before they are decompressed.
    skip : int
        Bytes to skip after `lines`, decompressed; -1: the voxels are the last bytes of the file.
    is_own : bool
        Whether atlaszarr wrote the file, so that its axes are those of the atlas.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fastest_first: bool
    compression: str = "none"
    offset: int = 0
    spacing: tuple[float, float, float] | None = None
    origin: str | None = None
    reason: str = ""
    remarks: tuple[str, ...] = ()
    scaling: tuple[float, float] = (1.0, 0.0)
    data_file: str | None = None
    position: tuple[float, float, float] | None = None
    numbers: str = ""
    unit_assumed: bool = False
    is_oblique: bool = False
    contradiction: str = ""
    lines: int = 0
    skip: int = 0
    is_own: bool = False

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or min(self.shape) < 1:
            voxels = " x ".join(map(str, self.shape)) or "no"
            raise InputError(f"{self.name} has {voxels} voxels; give a 3-D volume", code="wrong-dimensions")
        if self.dtype.kind not in "iufb":
            raise InputError(
                f"{self.name} holds {self.dtype}; give integers or floating point numbers", code="unsupported-dtype"
            )
        if max(self.shape) > _LONGEST_AXIS:
            raise InputError(
                f"{self.name} has {max(self.shape)} voxels along an axis; at most {_LONGEST_AXIS} are supported",
                code="wrong-dimensions",
            )
        least = -1 if self.compression == "none" else 0
        if not (least <= self.skip <= MOST_SKIPPED and 0 <= self.lines <= _MOST_LINES):
            raise InputError(
                f"{self.name} skips {self.lines} lines and {self.skip} bytes before its voxels; up to {_MOST_LINES} "
                f"lines and {MOST_SKIPPED} bytes are supported, and -1 if they are not compressed; save it without",
                code="not-supported",
            )

    @property
    def size(self) -> int:
        """Bytes of all stored voxels, uncompressed."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def slowest(self) -> int:
        """The axis of the file along which whole planes follow one another."""
        return 2 if self.fastest_first else 0

    def values(self, stored: Any) -> Any:
        """The values of stored voxels, in native byte order; float64 if scaled."""
        if self.scaling != (1.0, 0.0):
            slope, intercept = self.scaling
            return stored.astype(np.float64) * slope + intercept
        return stored.astype(self.value_dtype, copy=False)

    @property
    def value_dtype(self) -> np.dtype[Any]:
        """The dtype of `values`."""
        return np.dtype(np.float64) if self.scaling != (1.0, 0.0) else self.dtype.newbyteorder("=")


#: Characters of a library's own words that an error repeats.
_QUOTED = 200


def quoted(text: str) -> str:
    """A library's own words as one line of bounded length, for a message."""
    line = " ".join(text.split())
    return line if len(line) <= _QUOTED else f"{line[:_QUOTED]}..."


def unreadable_header(name: str, format: str, reason: str | Exception) -> InputError:
    """The error for a header of a format (``an NRRD``) that cannot be read, with a reason or a library's error."""
    text = reason if isinstance(reason, str) else f"{type(reason).__name__}: {reason}"
    return InputError(f"{name} has {format} header that cannot be read: {quoted(text)}", code="unreadable-header")

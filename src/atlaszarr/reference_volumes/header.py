"""The header of a volume's file, in any format."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..engine import ome
from ..errors import InputError

#: Micrometres in each unit of length.
MICRONS = {unit: float(micron) for unit, micron in ome.MICRONS.items()}


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
        ``none``, ``gzip``, ``bzip2``, or ``pages`` if planes are decoded one by one.
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
        Whether the header has no unit of length, and `spacing` and `position` assume mm.
    is_oblique : bool
        Whether `origin` is None since the axes are oblique.
    contradiction : str
        How the header contradicts itself; empty if it does not.
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

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or min(self.shape) < 1:
            voxels = " x ".join(map(str, self.shape)) or "no"
            raise InputError(f"{self.name} has {voxels} voxels; give a 3-D volume", code="wrong-dimensions")
        if self.dtype.kind not in "iufb":
            raise InputError(
                f"{self.name} holds {self.dtype}; give integers or floating point numbers", code="unsupported-dtype"
            )

    @property
    def size(self) -> int:
        """Bytes of all stored voxels, uncompressed."""
        return math.prod(self.shape) * self.dtype.itemsize

    def too_long(self) -> InputError:
        """The error for a file with more voxels than its header declares."""
        text = f"{self.name} holds more than the {self.size} bytes of voxels of its header; get the file again"
        return InputError(text, code="file-too-large")

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

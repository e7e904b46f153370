"""The header of a volume's file, in any format."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..engine import ome
from ..errors import InputError

#: Micrometres in the units of length that files name.
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
        As it is stored, with its byte order.
    fastest_first : bool
        Whether the first axis, not the last, is the one along which voxels lie next to each other.
    compression : str
        ``none``, ``gzip``, ``bzip2``, or ``pages`` where planes are decoded one by one.
    offset : int
        Bytes of the file before uncompressed voxels.
    spacing : tuple of float, optional
        Voxel size, in um.
    origin : str, optional
        See `atlaszarr.reference_volumes.orientation`.
    doubt : str, optional
        Why there is no `spacing` or `origin`.
    remarks : tuple of str
    scaling : tuple of float
        (slope, intercept): a value is slope x stored + intercept.
    data_file : str, optional
        Name of the file next to this one that holds the voxels.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fastest_first: bool
    compression: str = "none"
    offset: int = 0
    spacing: tuple[float, float, float] | None = None
    origin: str | None = None
    doubt: str = ""
    remarks: tuple[str, ...] = ()
    scaling: tuple[float, float] = (1.0, 0.0)
    data_file: str | None = None

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise InputError(
                f"{self.name} has {' x '.join(map(str, self.shape)) or 'no'} voxels; it must be a 3-D volume"
            )
        if self.dtype.kind not in "iufb":
            raise InputError(f"{self.name} holds {self.dtype}; it must hold integers or floating point numbers")

    @property
    def size(self) -> int:
        """Bytes of all voxels as they are stored, uncompressed."""
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
        return stored.astype(self.dtype.newbyteorder("="), copy=False)

    @property
    def value_dtype(self) -> np.dtype[Any]:
        """The dtype of `values`."""
        return np.dtype(np.float64) if self.scaling != (1.0, 0.0) else self.dtype.newbyteorder("=")

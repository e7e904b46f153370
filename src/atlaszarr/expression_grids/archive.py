"""Read the zip in which the Allen Institute sends the expression grids of a dataset: a MetaImage for each quantity."""

from __future__ import annotations

import io
import lzma
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from ..errors import ImageError, InputError, RecordError
from ..geometry.grid import Grid
from ..geometry.spaces import ReferenceSpace
from ..reference_volumes.header import Header
from ..reference_volumes.metaimage import read_metaimage_header
from ..reference_volumes.voxels import decompressed, stream_planes

#: The quantities of a grid, in the order of its channels.
QUANTITIES = ("energy", "density", "intensity")
#: The most bytes of the voxels of a grid, uncompressed: a hundred times those of 67 x 41 x 58 float32.
_LARGEST_GRID = 2**26
#: The most members of the zip: a header and a data file for each quantity, and some others.
_MOST_MEMBERS = 16
#: The value of the Allen Institute for no data.
_NO_DATA = -1.0
#: What zipfile and its decompressors raise for a damaged zip: ValueError for an offset before the start of the file.
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    RuntimeError,
    ValueError,
    ArithmeticError,
    OSError,
)


@dataclass(frozen=True)
class GridArchive:
    """The expression grids of a dataset.

    Attributes
    ----------
    include : tuple of str
        The quantities, in the order of the channels.
    values : ndarray, float32, shape (c, z, y, x) = (c, p, i, r)
        NaN for no data.
    spacing : float
        Distance of two points, in um.
    """

    include: tuple[str, ...]
    values: NDArray[np.float32]
    spacing: float

    def first(self, space: ReferenceSpace) -> float:
        """The coordinate of the first point along each axis, in um of a reference space.

        A grid that has one point more than there are voxels in the space has its points on the edges of these voxels:
        the first is at 0, as the Offset of the header says, and the last at the far end of the space. One that has as
        many has its points at the centres of the voxels.

        Raises
        ------
        RecordError
            If the grid does not fill the space.
        """
        shape = self.values.shape[1:]
        voxels = Grid(space, self.spacing).shape if self.spacing <= min(space.extent) else ()
        if shape == tuple(n + 1 for n in voxels):
            return 0.0
        if shape == voxels:
            return self.spacing / 2
        raise RecordError(
            f"the grid has {' x '.join(map(str, shape))} points every {self.spacing:g} um, which do not fill reference "
            f"space {space.id} of {' x '.join(f'{n:g}' for n in space.extent)} um; report this dataset",
            code="wrong-grid",
        )


def read_archive(body: bytes, include: Sequence[str], name: str) -> GridArchive:
    """Read and validate the zip of some grids.

    Parameters
    ----------
    body : bytes
    include : sequence of str
        The quantities that it must hold.
    name : str
        The URL, for messages.

    Raises
    ------
    ImageError
        If it is not a zip, lacks a quantity, holds one twice, has the same voxels for two of them, names a file in
        another folder, is larger than a grid can be, or a member is damaged or has values that no grid has.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            members = archive.infolist()
            if len(members) > _MOST_MEMBERS:
                raise InputError(f"{name} has {len(members)} members, more than {_MOST_MEMBERS}", code="damaged-file")
            for member in members:
                if "/" in member.filename or "\\" in member.filename or member.filename.startswith(".."):
                    raise InputError(
                        f"{name} has the member {member.filename[:100]!r}, which is in another folder",
                        code="damaged-file",
                    )
            twice = [found for found, count in Counter(member.filename for member in members).items() if count > 1]
            if twice:
                raise InputError(f"{name} has two members {twice[0][:100]!r}", code="damaged-file")
            files: dict[str, str] = {}
            grids = [_grid(archive, quantity, name, files) for quantity in include]
    except _DAMAGED as error:  # an InputError is a ValueError
        text = str(error) if isinstance(error, InputError) else f"{name} is not an intact zip of grids ({error})"
        raise ImageError(f"{text}; try again later, or the dataset has no grids", code="damaged-grid") from None
    shapes = {(values.shape, spacing) for values, spacing in grids}
    if len(shapes) > 1:
        raise ImageError(f"{name} has grids of different sizes", code="damaged-grid")
    return GridArchive(tuple(include), np.stack([values for values, _ in grids]), grids[0][1])


def _grid(
    archive: zipfile.ZipFile, quantity: str, name: str, files: dict[str, str]
) -> tuple[NDArray[np.float32], float]:
    """The values (p, i, r) of one quantity, and their spacing in um; `files` has the quantity of each data file."""
    where = f"{quantity}.mhd in {name}"
    with _member(archive, f"{quantity}.mhd", name) as stream:
        header = read_metaimage_header(stream, where)
    if header.data_file not in archive.namelist():
        raise InputError(f"{where} has its voxels in {header.data_file!r}, which is missing", code="damaged-file")
    if (other := files.setdefault(str(header.data_file), quantity)) != quantity:
        raise InputError(
            f"{where} has its voxels in {header.data_file!r}, which are those of {other}", code="damaged-file"
        )
    if header.size > _LARGEST_GRID or header.value_dtype != np.float32:
        raise InputError(
            f"{where} has {' x '.join(map(str, header.shape))} {header.value_dtype}, not a grid of float32",
            code="damaged-file",
        )
    if header.skip:
        raise InputError(f"{where} skips {header.skip} bytes before its voxels; grids skip none", code="damaged-file")
    # The header has no unit; ITK's convention is mm, but the numbers of the Allen Institute are um.
    spacing = {float(f"{size / 1000:.9g}") for size in header.spacing or ()}
    if len(spacing) != 1:
        raise InputError(f"{where} has the spacing {header.spacing}, not one distance", code="damaged-file")
    with _member(archive, str(header.data_file), name) as stream:
        values = _voxels(stream, header)
    values[values == _NO_DATA] = np.nan
    if (wrong := values[(values < 0) | np.isinf(values)]).size:
        raise InputError(
            f"{where} has the value {wrong[0]:g}; a grid has numbers from 0, and {_NO_DATA:g} for no data",
            code="damaged-file",
        )
    return values, spacing.pop()


def _member(archive: zipfile.ZipFile, member: str, name: str) -> BinaryIO:
    try:
        return cast(BinaryIO, archive.open(member))
    except KeyError:
        raise InputError(f"{name} has no member {member!r}", code="damaged-file") from None


def _voxels(stream: BinaryIO, header: Header) -> NDArray[np.float32]:
    """The values of the axes p, i, r, which are those of the file whatever the header calls them."""
    planes = [header.values(plane) for plane in stream_planes(decompressed(stream, header), header)]
    return np.ascontiguousarray(np.concatenate(planes, axis=header.slowest), np.float32)

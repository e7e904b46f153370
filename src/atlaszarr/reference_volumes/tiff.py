"""A TIFF stack, as tifffile reads it: without an orientation or a reliable voxel size."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import AtlaszarrError, InputError
from .header import Header

#: The first bytes of a TIFF: little and big endian, classic and BigTIFF.
BEGINNINGS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


@contextmanager
def reading_tiff(name: str) -> Iterator[None]:
    """Raise an InputError that names the file for any error of tifffile and the decoders.

    This includes missing pages, which tifffile only logs.
    """
    logged: list[str] = []

    def keep_errors(record: logging.LogRecord) -> bool:
        if record.levelno >= logging.ERROR:
            logged.append(record.getMessage())
        return record.levelno < logging.ERROR

    logger = logging.getLogger("tifffile")
    logger.addFilter(keep_errors)
    try:
        yield
        if logged:
            raise ValueError(logged[0])
    except Exception as error:  # the decoders raise several families of errors
        if isinstance(error, AtlaszarrError) and not logged:
            raise
        reason = " ".join((logged or [str(error)])[0].split())
        hint, code = "get the file again", "damaged-file"
        if "imagecodecs" in reason:
            hint, code = "pip install imagecodecs, or save it uncompressed", "missing-dependency"
        raise InputError(
            f"{name} is a TIFF that cannot be read: {reason or type(error).__name__}; {hint}", code=code
        ) from None
    finally:
        logger.removeFilter(keep_errors)


def read_tiff_header(path: Path, name: str) -> Header:
    """Read the header of the first series of a local TIFF.

    Raises
    ------
    InputError
        If the file is damaged, or not a 3-D volume.
    """
    from tifffile import TiffFile

    with reading_tiff(name), TiffFile(path) as tiff:
        if not tiff.series:
            raise InputError(f"{name} is a TIFF without an image; get the file again", code="damaged-file")
        series = tiff.series[0]
        shape = tuple(n for n in series.shape if n != 1) if len(series.shape) > 3 else series.shape
        order: Literal["<", ">"] = ">" if tiff.byteorder == ">" else "<"
        dtype = np.dtype("V1") if series.dtype is None else series.dtype
        whole = series.dataoffset is not None
        if not whole and len(shape) == 3 and len(series.pages) != shape[0]:
            raise InputError(
                f"{name} has {len(series.pages)} pages for {shape[0]} planes; save one plane per page",
                code="not-supported",
            )
        return Header(
            name,
            tuple(map(int, shape)),
            dtype.newbyteorder(order) if whole else dtype,
            fastest_first=False,
            compression="none" if whole else "pages",
            offset=int(series.dataoffset or 0),
            reason="a TIFF does not record it reliably",
        )


def tiff_planes(path: Path, header: Header) -> Iterator[NDArray[Any]]:
    """Decode the planes of a TIFF one by one, each of length 1 along the pages.

    Raises
    ------
    InputError
        If a plane cannot be decoded.
    """
    from tifffile import TiffFile

    with TiffFile(path) as tiff:
        pages: Any = tiff.series[0].pages
        for number in range(header.shape[0]):
            with reading_tiff(header.name):
                plane = pages[number].asarray(maxworkers=1).reshape(1, *header.shape[1:])
            yield plane

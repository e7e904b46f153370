"""A level of a finished image as a compressed NIfTI: made in slabs of planes, each a gzip member of its own.

NIfTI stores the first axis fastest, so its axes i, j, k are x, y, z, and the bytes are those of an array (z, y, x). The
same image gives the same bytes with any number of workers.
"""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Iterator
from functools import partial
from itertools import chain
from typing import Any

import numpy as np

from ..boxes import Region, everywhere, shape_of, within
from ..engine.finished_image import Finished
from ..engine.ledger import new_digest
from ..engine.ome import geometry_of_level
from ..engine.schedulers import Scheduler
from ..engine.task_windows import in_order
from ..engine.writer import Progress
from ..errors import InputError
from ..reference_volumes.nifti import WRITER
from ..stores.target import Target

#: The most bytes of a slab, and of the chunks that are decoded at a time: a task holds both, and the compressed slab.
_SLAB = 2**26
#: Levels of zlib, of 1 to 9. Labels of the CCF take as long with level 3 as with level 1, which nibabel uses, and are a
#: quarter smaller; level 4 takes twice as long. A template takes half as long again with level 3, and is 5 % smaller.
_LEVEL_OF_LABELS, _LEVEL_OF_INTENSITIES = 3, 1
#: Slabs that are compressed ahead of the one to write, besides one for each worker.
_AHEAD = 2
#: The most voxels along an axis, an int16 in the header of NIfTI-1.
_LONGEST_AXIS = 2**15 - 1
#: Offset of the first voxel: a header of 348 bytes, and four that say that it has no extension.
_OFFSET = 352
#: NIFTI_XFORM_SCANNER_ANAT, which ITK writes: coordinates in the anatomy. Every reader follows it.
_ANATOMICAL = 1
#: The axis of right-anterior-superior that each RFC-4 orientation runs along, and its sign.
_TO_RAS = {
    "left-to-right": (0, 1),
    "right-to-left": (0, -1),
    "posterior-to-anterior": (1, 1),
    "anterior-to-posterior": (1, -1),
    "inferior-to-superior": (2, 1),
    "superior-to-inferior": (2, -1),
}


def nifti_names(stem: str, image: Finished) -> list[str]:
    """The name of the file of each level, by its voxel size in um: ``template_25.nii.gz``, ``template_12.5.nii.gz``.

    Parameters
    ----------
    stem : str
        ``template`` or ``annotations_compressed``.
    image : Finished
    """
    names = []
    for sizes in image.resolutions:
        different = sizes if len(set(sizes)) > 1 else sizes[:1]
        names.append(f"{stem}_{'x'.join(f'{size:.10g}' for size in different)}.nii.gz")
    return names


def nifti_header(image: Finished, level: int) -> bytes:
    """All bytes before the voxels of a level: millimetres, with an affine to right-anterior-superior.

    The affine maps the indices (i, j, k) = (x, y, z) to the OME-Zarr coordinates of the centre of the voxel, with their
    sign changed for axes that run to left, posterior or inferior. sform and qform are the same.

    Parameters
    ----------
    image : Finished
        Its voxels are not read, so it need not be written yet.
    level : int

    Raises
    ------
    InputError
        If an axis is longer than NIfTI-1 allows, or its orientation is not known.
    """
    import nibabel

    shape = image.multiscale.pyramid.levels[level].shape
    if max(shape) > _LONGEST_AXIS:
        raise InputError(
            f"level {level} of {image.multiscale.target.url} has {max(shape)} voxels along an axis, and NIfTI at most "
            f"{_LONGEST_AXIS}; use larger voxels, or leave out the layout assets",
            code="wrong-dimensions",
        )
    affine = _affine(image, level)
    header: Any = nibabel.Nifti1Header(endianness="<")  # type: ignore[no-untyped-call]
    header.set_data_dtype(_dtype(image))
    header.set_data_shape(shape[::-1])
    header.set_sform(affine, _ANATOMICAL)
    header.set_qform(affine, _ANATOMICAL)
    header.set_xyzt_units("mm")
    header["vox_offset"] = _OFFSET
    header["scl_slope"], header["scl_inter"] = 1, 0
    header["descrip"] = WRITER
    return bytes(header.binaryblock) + bytes(_OFFSET - len(header.binaryblock))


def export_nifti(
    image: Finished,
    root: Target,
    key: str,
    level: int,
    scheduler: Scheduler,
    progress: Progress | None = None,
    spool: str | os.PathLike[str] | None = None,
) -> tuple[int, str]:
    """Write a level of an image as a compressed NIfTI, without holding the file in memory.

    Parameters
    ----------
    image : Finished
        Integers or floating point numbers, which the file has in the same dtype (float16 as float32).
    root : Target
    key : str
        Key of the file in `root`.
    level : int
    scheduler : Scheduler
    progress : callable, optional
        Called with the slabs that are done, their number, and the name of the file.
    spool : str or path-like, optional
        A local folder with room for the file until it is put, unless `root` is on a local disk. Default: that of the
        system for temporary files.

    Returns
    -------
    size : int
        Bytes of the file.
    digest : str
        As `engine.ledger.digest` makes it; `engine.ledger.matches` compares a file with both.

    Raises
    ------
    InputError
        For the reasons of `nifti_header`.
    TargetError
        If a chunk of the image is missing or damaged, or the file cannot be written.
    """
    report = progress or (lambda *_: None)
    slabs, name = list(_slabs(image, level)), key.rpartition("/")[2]
    header = _compressed(nifti_header(image, level), image)
    shared = scheduler.share(image)
    checksum, size = new_digest(), 0

    def parts() -> Iterator[bytes]:
        nonlocal size
        starts = (partial(scheduler.compute, _member, shared, level, slab) for slab in slabs)
        report(0, len(slabs), name)
        members = in_order(scheduler, starts, scheduler.workers + _AHEAD)
        for done, part in enumerate(chain([header], members)):
            checksum.update(part)
            size += len(part)
            yield part
            report(done, len(slabs), name)

    root.write_parts(key, parts(), spool)
    return size, checksum.hexdigest()


def _dtype(image: Finished) -> np.dtype[Any]:
    """The dtype of the voxels in the file; NIfTI has no float16."""
    dtype = np.dtype(image.multiscale.arrays[0].dtype)
    return np.dtype("f4" if dtype == np.float16 else dtype).newbyteorder("<")


def _affine(image: Finished, level: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """From (i, j, k, 1) to (right, anterior, superior, 1), in mm."""
    geometry = geometry_of_level(image.geometry, image.multiscale.pyramid, level)
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    for column, axis in enumerate("xyz"):
        words = geometry.orientation.get(axis, "")
        if words not in _TO_RAS:
            raise InputError(
                f"the {axis} axis of {image.multiscale.target.url} has the orientation {words!r}; a NIfTI needs an "
                "anatomical one: give the orientation of its source (--orientation)",
                code="missing-orientation",
            )
        row, sign = _TO_RAS[words]
        affine[row, column] = sign * geometry.scale[2 - column]
        affine[row, 3] = sign * geometry.translation[2 - column]
    return affine


def _slabs(image: Finished, level: int) -> Iterator[Region]:
    """Parts of a level that follow each other in the file: planes within a row of chunks, or rows of one plane."""
    at = image.multiscale.pyramid.levels[level]
    planes, rows, columns = at.shape
    row = columns * _dtype(image).itemsize
    for z in _ranges(0, planes, at.unit[0]):
        for part in _ranges(z.start, z.stop, max(1, _SLAB // (rows * row))):
            strip = rows if part.stop - part.start > 1 else max(1, _SLAB // row)
            for y in _ranges(0, rows, strip):
                yield part, y, slice(0, columns)


def _ranges(start: int, stop: int, most: int) -> Iterator[slice]:
    """Ranges of at most `most` voxels."""
    for first in range(start, stop, most):
        yield slice(first, min(first + most, stop))


def _member(image: Finished, level: int, slab: Region) -> bytes:
    """Read a slab, chunk by chunk, and compress it."""
    at = image.multiscale.pyramid.levels[level]
    dtype = _dtype(image)
    values = np.empty(shape_of(slab), dtype)
    width = at.unit[2] * max(1, _SLAB // (math.prod(at.unit) * dtype.itemsize))
    _, rows, columns = everywhere(at.shape)
    for y in _ranges(0, rows.stop, at.unit[1]):
        if y.stop <= slab[1].start or y.start >= slab[1].stop:
            continue
        for x in _ranges(0, columns.stop, width):
            y_part = slice(max(y.start, slab[1].start), min(y.stop, slab[1].stop))
            part = (slab[0], y_part, x)
            values[within(part, slab)] = image.read(level, part)
    return _compressed(values.data, image)


def _compressed(voxels: Any, image: Finished) -> bytes:
    """A gzip member without a time."""
    level = _LEVEL_OF_INTENSITIES if image.multiscale.arrays[0].rule == "mean" else _LEVEL_OF_LABELS
    packer = zlib.compressobj(level, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    return b"".join((packer.compress(voxels), packer.flush()))

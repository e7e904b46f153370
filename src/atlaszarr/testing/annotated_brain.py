"""A brain drawn from an annotation: any volume of labels that `atlas` reads, in greys that differ between datasets."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import AtlaszarrWarning, InputError
from ..geometry.spaces import reference_space
from ..geometry.voxel_size import um
from ..reference_volumes import ReferenceVolume, open_annotation
from ..stores.temporary import temporary_folder
from .brain_kernels import Slots
from .stained_brain import MEAN_DARKNESS, StainedBrain

#: Labels of an annotation, since a voxel is kept as 16 bits; the finest published one has about 700.
_MOST_LABELS = 65_535


class AnnotatedBrain(StainedBrain):
    """A brain whose structure at a point is the label of the voxel that contains the point.

    Parameters
    ----------
    voxels : ndarray, uint16, shape (p, i, r)
        Indices into `ids`; voxel k covers [k s, (k + 1) s) along each axis, for the voxel size s.
    voxel_size : tuple of float
        Along (p, i, r), in um.
    ids : ndarray, uint32, shape (n,)
        Labels by index; 0 first.
    identity : str
        Of the annotation: other text for other voxels.
    """

    def __init__(
        self, voxels: NDArray[np.uint16], voxel_size: tuple[float, float, float], ids: NDArray[np.uint32], identity: str
    ) -> None:
        super().__init__(ids, np.where(ids > 0, MEAN_DARKNESS, 0.0))
        self._voxels, self._voxel_size, self._identity = voxels, np.array(voxel_size), identity

    def __repr__(self) -> str:
        return f"AnnotatedBrain({self._identity}, {self.dataset_id})"

    def slots(self, pir: ArrayLike) -> Slots:
        """The slot of `ids` at each point: uint16, shape (...)."""
        place = np.floor(np.asarray(pir, np.float64) / self._voxel_size)
        inside = ((place >= 0) & (place < self._voxels.shape)).all(axis=-1)
        index = np.where(inside[..., np.newaxis], place, 0).astype(np.int64)
        found = self._voxels[index[..., 0], index[..., 1], index[..., 2]]
        return np.where(inside, found, 0).astype(np.uint16)


@contextmanager
def open_annotated_brain(
    annotation: str | os.PathLike[str],
    *,
    storage_options: Mapping[str, Any] | None = None,
    orientation: str | None = None,
    voxel_size: float | Sequence[float] | None = None,
) -> Iterator[AnnotatedBrain]:
    """Open an annotation as a brain. Its voxels are kept in a temporary file, 2 bytes each, until the context ends.

    Parameters
    ----------
    annotation : str or path-like
        Same as in `atlaszarr.reference_volumes.open_annotation`, and so are the other parameters. It fills reference
        space 9, that of the adult mouse.

    Raises
    ------
    InputError
        For the reasons of `open_annotation`; if the annotation does not fill reference space 9, or has more than 65,535
        labels.
    NotFoundError, SourceError, TargetError
        Same as in `open_annotation`.

    Warns
    -----
    AtlaszarrWarning
        If the orientation or the voxel size contradicts the annotation.
    """
    with temporary_folder() as folder:
        given: dict[str, Any] = {
            "storage_options": storage_options,
            "orientation": orientation,
            "voxel_size": voxel_size,
        }
        with open_annotation(annotation, folder, **given) as volume:
            _refuse_other_space(volume)
            for remark in volume.contradictions:
                warnings.warn(remark, AtlaszarrWarning, stacklevel=4)
            brain = _kept(volume, folder)
        yield brain


def _refuse_other_space(volume: ReferenceVolume) -> None:
    space = reference_space(9)
    if not space.is_covered(volume.array.shape, volume.voxel_size):
        z, y, x = volume.extent
        p, i, r = space.extent
        raise InputError(
            f"{volume.uri} is {z:g} x {y:g} x {x:g} um, of voxels of {um(volume.voxel_size)}; sections are drawn from "
            f"an annotation that fills reference space 9, {p:g} x {i:g} x {r:g} um",
            code="other-space",
        )


def _kept(volume: ReferenceVolume, folder: Path) -> AnnotatedBrain:
    """The brain of an annotation, with its voxels in a file of a folder."""
    ids = np.concatenate([np.zeros(1, np.uint32), volume.find_labels().astype(np.uint32)])
    if len(ids) - 1 > _MOST_LABELS:
        raise InputError(
            f"{volume.uri} has {len(ids) - 1} labels, more than {_MOST_LABELS}; it is not an annotation of structures",
            code="too-many-labels",
        )
    voxels = np.memmap(folder / "slots", np.uint16, "w+", shape=volume.array.shape)
    digest = hashlib.sha256(repr((ids.tolist(), volume.voxel_size)).encode())
    ends = [np.cumsum((0, *lengths)) for lengths in volume.array.chunks]
    for index, block in zip(np.ndindex(*volume.array.numblocks), volume.blocks(), strict=True):
        place = tuple(slice(end[k], end[k + 1]) for end, k in zip(ends, index, strict=True))
        slots = np.searchsorted(ids, block).astype(np.uint16)
        voxels[place] = slots
        digest.update(slots.tobytes())
    voxels.flush()
    return AnnotatedBrain(voxels, volume.voxel_size, ids, digest.hexdigest()[:32])

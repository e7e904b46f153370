"""The labels of an annotation at every level, as compressed_segmentation of neuroglancer's precomputed format.

tensorstore encodes: its driver writes the chunks of a block to memory, from where they go to the target.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..boxes import Region, everywhere
from ..engine.blocks import Done, Made, put
from ..engine.finished_image import Finished
from ..engine.ledger import Task
from ..engine.pyramid import Level
from ..errors import InputError
from ..stores.target import Target
from . import precomputed

#: Wanted side of a chunk in voxels, as in published volumes, and the sides that a chunk may have so that each object of
#: the annotation is read once.
_CHUNK, _CHUNKS = 64, range(32, 129)
#: The longest side of a chunk: the format has 24 bits for the position of a table of labels in a chunk, in words of 32
#: bits. 216 voxels are 27 blocks of 8, and 27**3 blocks of 2 + 512 + 256 words, of noise, are fewer than 2**24 words.
_LONGEST_SIDE = 216
#: Approximate side of a block, which is read at once: several chunks, so that there are fewer tasks.
_BLOCK = 128


def info(annotation: Finished) -> bytes:
    """The metadata of the volume."""
    layers = map(layer, annotation.multiscale.pyramid.levels)
    return precomputed.volume_info(
        (at.shape, resolution, at.chunk) for at, resolution in zip(layers, annotation.resolutions, strict=True)
    )


def folders(annotation: Finished) -> list[str]:
    """The folder of every level."""
    return [precomputed.scale_key(resolution) for resolution in annotation.resolutions]


def tasks(annotation: Finished) -> list[Task]:
    """The blocks of every level."""
    layers = enumerate(map(layer, annotation.multiscale.pyramid.levels))
    return [(number, index) for number, at in layers for index in at.units(everywhere(at.shape))]


def write_block(annotation: Finished, target: Target, task: Task) -> list[Done]:
    """Read a block of a level of the annotation, write its chunks, and record it.

    Raises
    ------
    InputError
        If a label does not fit into 32 bits.
    """
    number, index = task
    region = layer(annotation.multiscale.pyramid.levels[number]).region(index)
    bodies = encode(info(annotation), number, region, annotation.read(number, region))
    return put(target, [Made(task, bodies.items())])


def encode(volume: bytes, scale: int, region: Region, labels: NDArray[Any]) -> dict[str, bytes]:
    """Encode the labels of a region that consists of whole chunks.

    Parameters
    ----------
    volume : bytes
        The result of `info`.
    scale : int
        The level.
    region : tuple of slice
    labels : ndarray, integers, shape (z, y, x)
        0 for no structure.

    Returns
    -------
    dict
        The chunks by their keys. A chunk without labels has none: neuroglancer and tensorstore read zeros there.

    Raises
    ------
    InputError
        If a label does not fit into 32 bits.
    """
    import tensorstore

    values = np.ascontiguousarray(labels, np.uint32)
    if values.dtype != labels.dtype and (different := labels[values != labels]).size:
        raise InputError(
            f"the annotation has the label {different[0]}; labels must be from 1 to {2**32 - 1}", code="unknown-label"
        )
    # A context of its own: the memory store of a context is shared by all stores that are opened in it.
    context = tensorstore.Context()
    store = tensorstore.KvStore.open("memory://", context=context).result()
    store.write("info", volume).result()
    spec = {"driver": "neuroglancer_precomputed", "kvstore": "memory://", "scale_index": scale}
    opened = tensorstore.open(spec, context=context).result()
    opened[(*region[::-1], 0)].write(values.T).result()
    return {key.decode(): store[key] for key in sorted(store.list().result()) if key != b"info"}


def layer(level: Level) -> Level:
    """A level in chunks of the volume; its units are the blocks, which consist of whole chunks.

    They also consist of whole objects of the annotation, unless these have sides that no chunk can have a part of.
    """
    z, y, x = map(_side, level.unit)
    chunk = (z, y, x)
    whole = (max(n, unit) if _fit(n, unit) else n for n, unit in zip(chunk, level.unit, strict=True))
    z, y, x = (n * max(1, round(_BLOCK / n)) for n in whole)
    return replace(level, chunk=chunk, unit=(z, y, x))


def _side(unit: int) -> int:
    """The side of a chunk: near 64, and if possible a part or a multiple of the side of an object of the annotation."""
    fitting = (n for n in _CHUNKS if _fit(n, unit))
    return min(fitting, key=lambda n: abs(n - _CHUNK), default=unit if unit <= _LONGEST_SIDE else _CHUNK)


def _fit(one: int, other: int) -> bool:
    """Whether one side is a part or a multiple of another one."""
    return one % other == 0 or other % one == 0

"""Images warped by a displacement field block by block, as a NumPy array or as a dask array."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..boxes import Box
from ..errors import InputError
from ..resampling.sampler import corner_footprint, footprint, resample, validate
from .fields import AffineField, Field, blocks


def warp(field: Field, image: NDArray[Any], interpolation: str, border: str, constant: ArrayLike) -> NDArray[Any]:
    """Warp an image, with one block of the field in memory at a time."""
    validate(image.shape, image.dtype, interpolation, border, constant)
    image = np.ascontiguousarray(image)
    out = np.empty((*field.shape, *image.shape[2:]), image.dtype.newbyteorder("="))
    for _, block in blocks(field.chunks):
        out[block] = resample(image, field.coordinates(*block), interpolation, border, constant)
    return out


def warp_lazily(field: Field, image: Any, interpolation: str, border: str, constant: ArrayLike) -> Any:
    """Warp a dask array lazily; each block depends on the chunks of the image in its footprint.

    Footprints are computed when the graph is made: for an affine from the corners of each block, for any other field
    from all its points.
    """
    import dask.array as da
    from dask.base import tokenize
    from dask.highlevelgraph import HighLevelGraph

    validate(image.shape, image.dtype, interpolation, border, constant)
    if any(not isinstance(n, int | np.integer) for n in image.shape):
        raise InputError(
            f"image has unknown chunk sizes, shape {image.shape}; call its compute_chunk_sizes() first",
            code="unknown-shape",
        )
    if image.ndim == 3:
        image = image.rechunk({2: -1})
    size = (image.shape[1], image.shape[0])
    token = tokenize(field, image, interpolation, border, constant)
    name, shared, sampling = f"warp-{token}", f"field-{token}", f"sampling-{token}"

    def box(block: tuple[slice, slice]) -> Box | None:
        if not isinstance(field, AffineField):
            return footprint(field.coordinates(*block), size, interpolation, border)
        ends = [(slice(s.start, s.start + 1), slice(s.stop - 1, s.stop)) for s in block]
        corners = [field.coordinates(rows, columns) for rows in ends[0] for columns in ends[1]]
        return corner_footprint(np.concatenate(corners, axis=1), size, interpolation, border)

    regions = list(blocks(field.chunks))
    with ThreadPoolExecutor() as threads:
        boxes = list(threads.map(box, [block for _, block in regions]))
    lead = (0,) * (image.ndim - 2)
    edges = [np.cumsum((0, *lengths)).tolist() for lengths in image.chunks[:2]]
    empty = np.empty((0, 0, *image.shape[2:]), image.dtype)
    sample = partial(resample, interpolation=interpolation, border=border, constant=constant)
    layer: dict[Any, Any] = {shared: field, sampling: sample}
    for (index, block), needed in zip(regions, boxes, strict=True):
        left, top, right, bottom = needed or (0, 0, 0, 0)
        rows, columns = _overlapping(edges[0], top, bottom), _overlapping(edges[1], left, right)
        parts = [[(image.name, i, j, *lead) for j in columns] for i in rows]
        crops = [[_crop(edges, i, j, (left, top, right, bottom)) for j in columns] for i in rows]
        layer[(name, *index, *lead)] = (_warp_block, shared, sampling, block, parts or empty, crops, (left, top), size)
    graph = HighLevelGraph.from_collections(name, layer, dependencies=[image])
    chunks = (*field.chunks, *((n,) for n in image.shape[2:]))
    return da.Array(graph, name, chunks=chunks, dtype=image.dtype.newbyteorder("="))


def _warp_block(
    field: Field,
    sample: Callable[..., NDArray[Any]],
    block: tuple[slice, slice],
    parts: list[list[NDArray[Any]]] | NDArray[Any],
    crops: list[list[tuple[slice, slice]]],
    origin: tuple[int, int],
    size: tuple[int, int],
) -> NDArray[Any]:
    """Warp a block from the chunks of the image that it samples, each cropped to its footprint."""
    if isinstance(parts, list):
        lines = zip(parts, crops, strict=True)
        cut = [[part[crop] for part, crop in zip(*line, strict=True)] for line in lines]
        parts = np.concatenate([np.concatenate(line, axis=1) for line in cut])
    return sample(parts, field.coordinates(*block), origin=origin, size=size)


def _overlapping(edges: Sequence[int], start: int, stop: int) -> list[int]:
    """The chunks of an axis that overlap a half-open range."""
    return [k for k, (first, end) in enumerate(pairwise(edges)) if first < stop and start < end and first < end]


def _crop(edges: Sequence[Sequence[int]], i: int, j: int, box: Box) -> tuple[slice, slice]:
    left, top, right, bottom = box
    down, across = edges[0][i], edges[1][j]
    rows = slice(max(top - down, 0), min(bottom, edges[0][i + 1]) - down)
    return rows, slice(max(left - across, 0), min(right, edges[1][j + 1]) - across)

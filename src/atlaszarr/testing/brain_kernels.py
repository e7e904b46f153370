"""Compiled kernels of the brain-like phantom: the structure at points, and the grey levels of a stained section there.

The geometry is closed form, in the compiled code alone: outlines, layers and folds are functions of the coordinates,
and the nearest of the seeds in ``figures/brain.csv`` decides within a part. Compiled from brain_kernels.cpp.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..native.library import FLOAT, INT, kernel, read, written

Array = NDArray[np.float64]
Slots = NDArray[np.uint16]

#: The parts whose structures are the cells of seeds, in the order of the compiled code.
PARTS = (
    *("cortex", "olfactory", "basal", "amygdala", "thalamus", "hypothalamus", "midbrain", "hindbrain"),
    *("retrohippocampal", "vermis", "hemisphere", "nuclei"),
)
#: Layers of a seed, and columns of its row: part, p, i, lateral distance, radius, and the slot of each layer.
LAYERS = 5
COLUMNS = 5 + LAYERS

_slots = kernel("brain_slots", written("u2", 1), read("f8", 2), INT, read("f8", 2), INT, FLOAT)
_paint = kernel(
    *("brain_paint", written("f8", 2), read("f8", 2), read("u2", 1), INT, read("f8", 1), read("f8", 2), INT),
    *(FLOAT, FLOAT, read("f8", 1), read("f8", 1), INT),
)


def brain_slots(pir: Array, seeds: Array, midline: float) -> Slots:
    """The slot of the label table at points.

    Parameters
    ----------
    pir : ndarray, float64, shape (..., 3)
        (p, i, r) in um of reference space 9.
    seeds : ndarray, float64, shape (n, COLUMNS)
        Ordered by part.
    midline : float
        r of the midline, in um.

    Returns
    -------
    ndarray, uint16, shape (...)
        0 outside the brain and at points that are not finite.
    """
    points = _points(pir)
    _check("seeds", seeds, (len(seeds), COLUMNS))
    out = np.empty(len(points), np.uint16)
    _slots(out, points, len(points), seeds, len(seeds), midline)
    return out.reshape(np.shape(pir)[:-1])


def brain_paint(
    pir: Array,
    slots: Slots,
    levels: Array,
    octaves: Array,
    bodies: tuple[float, float],
    paper: Array,
    ink: Array,
    seed: int,
) -> Array:
    """The grey levels of a section at points, from the slot of each.

    Parameters
    ----------
    pir : ndarray, float64, shape (..., 3)
        (p, i, r) in um.
    slots : ndarray, uint16, shape (...)
        Indices into `levels`.
    levels : ndarray, float64, shape (m,)
        Darkness of each slot, 0 (paper) to 1 (ink).
    octaves : ndarray, float64, shape (k, 2)
        The texture: side of the cells in um, and amplitude as a part of the darkness.
    bodies : tuple of float
        The same for cell bodies, balls in cells of a lattice.
    paper, ink : ndarray, float64, shape (3,)
        Red, green and blue grey levels.
    seed : int
        Of the texture.

    Returns
    -------
    ndarray, float64, shape (..., 3)
        Red, green and blue grey levels, not rounded.
    """
    points, flat = _points(pir), np.ascontiguousarray(slots, np.uint16).ravel()
    _check("slots", flat, (len(points),))
    _check("octaves", octaves, (len(octaves), 2))
    _check("paper", paper, (3,))
    _check("ink", ink, (3,))
    if flat.size and int(flat.max()) >= len(levels):
        raise InputError(f"slots has {int(flat.max())}; levels has {len(levels)} values", code="shape-mismatch")
    out = np.empty((len(points), 3))
    _paint(out, points, flat, len(points), levels, octaves, len(octaves), *bodies, paper, ink, seed)
    return out.reshape(np.shape(pir))


def _points(pir: Array) -> Array:
    if np.shape(pir)[-1:] != (3,):
        raise InputError(f"pir has shape {np.shape(pir)}; give an array of shape (..., 3)", code="shape-mismatch")
    return np.ascontiguousarray(pir, np.float64).reshape(-1, 3)


def _check(name: str, array: NDArray[Any], shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise InputError(f"{name} has shape {array.shape}; give an array of shape {shape}", code="shape-mismatch")

"""Affine transformations between section-image pixels and reference space, in float64. Arithmetic only.

A section image has a 2-D alignment (pixels of the full-resolution image, um of the section plane), and its dataset a
3-D alignment (um of the section plane and depth, um of the reference space). The Allen API stores each with its
inverse, both rounded to six digits: tsv (2-D) and tvr (3-D) map from the image to the reference space, tvs and trv map
back. To reproduce the answers of the API, use each in its own direction; do not invert it.

Pixel (X, Y) has its centre at the integer coordinates (X, Y).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Affine = NDArray[np.float64]


def image_to_reference(xy: ArrayLike, depth: ArrayLike, tsv: ArrayLike, tvr: ArrayLike) -> Affine:
    """Map pixels of a section image to the reference space.

    Parameters
    ----------
    xy : array_like, shape (..., 2)
        Full-resolution pixel coordinates (X, Y), relative to the image's crop.
    depth : array_like, shape (...)
        Section number times section thickness, in um.
    tsv : array_like, shape (2, 3)
        2-D alignment: pixels to um in the section plane.
    tvr : array_like, shape (3, 4)
        3-D alignment: (x, y, depth) to (p, i, r), in um.

    Returns
    -------
    ndarray, float64, shape (..., 3)
        (p, i, r) in um, in the dataset's own reference space.

    Notes
    -----
    Agrees with the API's ``image_to_reference`` service to 1e-9 um.
    """
    plane = apply(tsv, xy)
    depth = np.broadcast_to(np.asarray(depth, dtype=np.float64), plane.shape[:-1])
    return apply(tvr, np.concatenate([plane, depth[..., np.newaxis]], axis=-1))


def reference_to_image(pir: ArrayLike, tvs: ArrayLike, trv: ArrayLike) -> tuple[Affine, Affine]:
    """Map points of the reference space to pixels of a section image, and to depths in the stack of sections.

    Parameters
    ----------
    pir : array_like, shape (..., 3)
        (p, i, r) in um, in the dataset's own reference space.
    tvs : array_like, shape (2, 3)
        2-D alignment: um in the section plane to pixels.
    trv : array_like, shape (3, 4)
        3-D alignment: (p, i, r) to (x, y, depth), in um.

    Returns
    -------
    xy : ndarray, float64, shape (..., 2)
        Full-resolution pixel coordinates (X, Y).
    depth : ndarray, float64, shape (...)
        Depth in um. That of a section is its section number times the section thickness.

    Notes
    -----
    Agrees with the API's ``reference_to_image`` service to 1e-9 pixels.
    """
    volume = apply(trv, pir)
    return apply(tvs, volume[..., :2]), volume[..., 2]


def apply(affine: ArrayLike, points: ArrayLike) -> Affine:
    """Apply an affine of shape (m, n + 1) to points of shape (..., n): float64, shape (..., m)."""
    affine = np.asarray(affine, dtype=np.float64)
    return np.asarray(np.asarray(points, dtype=np.float64) @ affine[:, :-1].T + affine[:, -1])


def compose(outer: ArrayLike, inner: ArrayLike) -> Affine:
    """The affine that applies `inner` (m, n + 1), then `outer` (k, m + 1): float64, shape (k, n + 1)."""
    outer = np.asarray(outer, dtype=np.float64)
    inner = np.asarray(inner, dtype=np.float64)
    composed: Affine = outer[:, :-1] @ inner
    composed[:, -1] += outer[:, -1]
    return composed


def tier_affine(downsample: int, offset: tuple[float, float] = (0.0, 0.0)) -> Affine:
    """The affine from full-resolution pixel coordinates to those of a tier with pixels of 2**downsample.

    The centre of tier pixel (X, Y) is the full-resolution point ((X + 1/2) 2^d - 1/2 + a, (Y + 1/2) 2^d - 1/2 + b).

    Parameters
    ----------
    downsample : int
    offset : tuple of float
        (a, b), in full-resolution pixels: where the tier image begins within the full-resolution image.

    Returns
    -------
    ndarray, float64, shape (2, 3)
    """
    scale = 0.5**downsample
    shift = 0.5 * scale - 0.5
    return np.array([[scale, 0.0, shift - scale * offset[0]], [0.0, scale, shift - scale * offset[1]]])

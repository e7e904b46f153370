"""The surface of a mask, made as in brainglobe-atlasapi: holes filled, closed, marching cubes, simplified."""

from __future__ import annotations

from importlib.util import find_spec
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError

#: Iterations of binary closing; `construct_meshes_from_annotation` of brainglobe-atlasapi 3.0.2.
CLOSING = 2
#: Share of the triangles that simplification removes; a larger share visibly deforms small structures.
_REDUCTION = 0.6
#: The libraries of `atlaszarr[atlas]` by their modules.
_LIBRARIES = {
    "DracoPy": "DracoPy",
    "fast_simplification": "fast-simplification",
    "scipy": "SciPy",
    "skimage": "scikit-image",
    "tensorstore": "tensorstore",
}
#: fast-simplification keeps the mesh in module variables: two calls at once return wrong meshes, or crash.
_simplifying = Lock()


def surface(mask: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Make the surface of a mask.

    Parameters
    ----------
    mask : ndarray, bool, shape (z, y, x)
        With at least one voxel.

    Returns
    -------
    vertices : ndarray, float64, shape (n, 3)
        (z, y, x) in voxels; voxel k covers k to k + 1.
    faces : ndarray, int64, shape (m, 3)
        Indices of the vertices of triangles, counter-clockwise seen from outside in (z, y, x).

    Raises
    ------
    InputError
        If the libraries for meshes are not installed.
    """
    check_libraries()
    from fast_simplification import simplify
    from scipy import ndimage
    from skimage.measure import marching_cubes

    padded = np.pad(mask, CLOSING + 1)
    background, _ = ndimage.label(~padded)
    filled = background != background[0, 0, 0]
    closed = ndimage.binary_closing(filled, iterations=CLOSING)
    surface_of: Any = marching_cubes  # scikit-image has no types for it
    vertices, faces, _, _ = surface_of(
        closed.astype(np.float32), 0.5, gradient_direction="ascent", allow_degenerate=False
    )
    with _simplifying:
        simpler, kept = simplify(vertices.astype(np.float32), faces.astype(np.int32), target_reduction=_REDUCTION)
    if len(kept) >= 4:  # else nothing is left of a mesh of a few voxels
        vertices, faces = simpler, kept
    # Undo the padding; marching cubes has the centre of a voxel at its index.
    return vertices.astype(np.float64) - (CLOSING + 1) + 0.5, faces.astype(np.int64)


def check_libraries() -> None:
    """Raise an InputError if the libraries for meshes and the segmentation are not installed."""
    if missing := [library for module, library in _LIBRARIES.items() if find_spec(module) is None]:
        raise InputError(
            f"meshes and the segmentation need {', '.join(missing)}; install atlaszarr[atlas]",
            code="missing-dependency",
        )

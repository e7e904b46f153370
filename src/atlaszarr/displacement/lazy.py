"""A displacement field as dask arrays: a block is computed when it is asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .fields import Field, blocks


def lazily(field: Field, token: str, what: str) -> Any:
    """One quantity of every pixel.

    Parameters
    ----------
    field : Field
    token : str
        Of the field, by dask's rules.
    what : str
        ``x``, ``y``, ``delta_x``, ``delta_y`` or ``norm``.

    Returns
    -------
    dask array, float64, shape (rows, columns)
        In the field's own blocks.
    """
    import dask.array as da
    from dask.highlevelgraph import HighLevelGraph

    name, shared = f"{what}-{token}", f"field-{token}"
    layer: dict[Any, Any] = {shared: field}
    for index, block in blocks(field.chunks):
        layer[(name, *index)] = (_part, shared, block, what)
    return da.Array(HighLevelGraph.from_collections(name, layer), name, chunks=field.chunks, dtype="float64")


def _part(field: Field, block: tuple[slice, slice], what: str) -> NDArray[np.float64]:
    found = field.coordinates(*block) if what in ("x", "y") else field.displacements(*block)
    part: NDArray[np.float64] = np.hypot(*found) if what == "norm" else found[0 if what.endswith("x") else 1]
    return part

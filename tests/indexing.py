"""Indices that NumPy and dask take alike, and whether a lazy array answers to them as a whole one."""

import numpy as np
from hypothesis import strategies as st


@st.composite
def indices(draw, shape, lists=1):
    """An index that NumPy and dask take alike: integers, slices, a list, an ellipsis, a new axis."""
    parts = []
    for n in shape[: draw(st.integers(0, len(shape)))]:
        kinds = [st.slices(n), st.integers(-n, n - 1), st.just(slice(None))]
        # Beside a list, dask and NumPy order the axes of integers differently.
        if lists and not any(isinstance(part, int) for part in parts):
            kinds.append(st.lists(st.integers(-n, n - 1), max_size=4))
        elif not lists:
            kinds.pop(1)
        part = draw(st.one_of(kinds))
        lists -= isinstance(part, list)
        parts.append(part)
    if draw(st.booleans()) and len(parts) == len(shape):
        at = draw(st.integers(0, len(parts) - 1))
        parts[at : at + draw(st.integers(0, 1))] = [...]
    elif draw(st.booleans()):
        parts.append(...)
    if draw(st.booleans()) and not any(isinstance(part, list) for part in parts):
        parts.insert(draw(st.integers(0, len(parts))), None)
    return tuple(parts)


def is_same(lazy, whole, index):
    found = lazy[index].compute()
    assert found.dtype == whole.dtype
    np.testing.assert_array_equal(found, whole[index])

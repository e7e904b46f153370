"""Which section fills which depths of the stack: pure arithmetic on depths in um."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

FILLS = ("none", "nearest", "linear")
#: The widest gap between neighbouring sections, in nominal intervals: one missing section is bridged, two are not.
MAX_GAP = 2.5


def depth_intervals(
    depths: list[float], thickness: float, nominal: float, fill: str, max_gap: float = MAX_GAP
) -> tuple[NDArray[np.float64], NDArray[np.int32], NDArray[np.int32]]:
    """Cut the axis of depth into intervals, each filled by one section.

    Parameters
    ----------
    depths : list of float
        Of the sections, rising, in um.
    thickness, nominal : float
        Section thickness and nominal interval, in um.
    fill : str
        ``none``: a section fills only its own thickness; ``nearest``: every depth takes the nearest section;
        ``linear``: that one blended with its neighbour on the other side. In a gap wider than `max_gap` and at
        both ends, a section fills half a nominal interval and no more.
    max_gap : float
        In nominal intervals; ``none`` ignores it. A gap of exactly `max_gap` is bridged: lengths within a millionth of
        a nominal interval are equal, since a depth is a product that floating point rounds.

    Returns
    -------
    edges : ndarray, float64, shape (m + 1,)
        Interval j is [edges[j], edges[j + 1]).
    nearest, neighbour : ndarray, int32, shape (m,)
        The section that fills it, and the one to blend in; -1 where none.
    """
    reach = (thickness if fill == "none" else nominal) / 2
    edges: list[float] = []
    nearest: list[int] = []
    neighbour: list[int] = []

    def add(low: float, section: int, other: int) -> None:
        edges.append(low)
        nearest.append(section)
        neighbour.append(other)

    widest = thickness if fill == "none" else (max_gap + 1e-6) * nominal
    joined = [b - a <= widest for a, b in pairwise(depths)]
    for s, depth in enumerate(depths):
        before, after = s > 0 and joined[s - 1], s + 1 < len(depths) and joined[s]
        low = (depths[s - 1] + depth) / 2 if before else depth - reach
        high = (depth + depths[s + 1]) / 2 if after else depth + reach
        if fill == "linear":
            add(low, s, s - 1 if before else -1)
            add(depth, s, s + 1 if after else -1)
        else:
            add(low, s, -1)
        if not after:
            add(high, -1, -1)
    return np.array(edges), np.array(nearest[:-1], np.int32), np.array(neighbour[:-1], np.int32)

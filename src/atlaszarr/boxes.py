"""Rectangles of an image's pixels."""

from __future__ import annotations

#: Half-open: left, top, right, bottom.
Box = tuple[int, int, int, int]


def area(box: Box) -> int:
    """How many pixels a box has."""
    left, top, right, bottom = box
    return (right - left) * (bottom - top)

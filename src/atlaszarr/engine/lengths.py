"""Lengths and factors along (z, y, x) as a user gives them, checked."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from fractions import Fraction

from ..errors import InputError

Shape = tuple[int, int, int]
Factor = tuple[Fraction, Fraction, Fraction]


def lengths(name: str, given: int | Sequence[int]) -> Shape:
    """Three positive lengths; of one number, that for every axis."""
    try:
        z, y, x = map(operator.index, given if isinstance(given, Sequence) else (given,) * 3)
    except (TypeError, ValueError):
        z = y = x = 0
    if min(z, y, x) < 1:
        raise InputError(f"{name} {given!r} must be one positive whole number or three")
    return z, y, x


def shard_of(given: int | Sequence[int], chunk: Shape) -> Shape:
    """Lengths of a shard: whole chunks."""
    shard = lengths("shard", given)
    if any(s % c for s, c in zip(shard, chunk, strict=True)):
        raise InputError(f"shard {given!r} must be whole chunks of {chunk}")
    return shard


def factor_of(given: float | Fraction | Sequence[float | Fraction]) -> Factor:
    """Three factors from level to level, exact; of one number, that for every axis."""
    factors = tuple(given) if isinstance(given, Sequence) else (given,) * 3
    try:
        exact = tuple(Fraction(factor).limit_denominator(1000) for factor in factors)
    except (TypeError, ValueError, OverflowError):
        exact = ()
    if len(exact) != 3 or any(f < 1 or abs(f - Fraction(g)) > 1e-9 for f, g in zip(exact, factors, strict=True)):
        raise InputError(f"factor {given!r} must be one number from 1 up or three, with denominators up to 1000")
    if math.prod(f.numerator for f in exact) > 2**30:
        raise InputError(f"factor {given!r} is too large; make more levels")
    z, y, x = exact
    return z, y, x

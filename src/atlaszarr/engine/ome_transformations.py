"""Compose the transformations of OME-Zarr that reorder, reverse, scale and shift axes; raise an error for any other."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import InputError, brief

#: A matrix entry below this part of the largest of its row is rounding: 1e-9 of 10,000 voxels is far below a voxel.
_ROUNDING = 1e-9
#: Characters of a value in a message.
LONGEST = 150
#: Names of the input and output axes in the members of ``byDimension``: of the schema of 0.6, of its text, of RFC-5.
_INPUTS = ("inputAxes", "input_axes", "input")
_OUTPUTS = ("outputAxes", "output_axes", "output")


@dataclass(frozen=True)
class AxisMap:
    """A transformation of which every output depends on one input: ``y[i] = scale[i] * x[axes[i]] + translation[i]``.

    Attributes
    ----------
    axes : tuple of int
        The input axis of each output axis, a permutation.
    scale, translation : tuple of float
        Along the output axes; a negative scale reverses an axis.
    is_scaled : bool
        Whether it gives sizes; a translation alone does not.
    """

    axes: tuple[int, ...]
    scale: tuple[float, ...]
    translation: tuple[float, ...]
    is_scaled: bool = True

    @classmethod
    def identity(cls, count: int, is_scaled: bool = True) -> AxisMap:
        """The identity along `count` axes."""
        return cls(tuple(range(count)), (1.0,) * count, (0.0,) * count, is_scaled)

    def then(self, following: AxisMap) -> AxisMap:
        """The composition of this transformation and a following one."""
        pairs = list(zip(following.axes, following.scale, following.translation, strict=True))
        return AxisMap(
            tuple(self.axes[k] for k, _, _ in pairs),
            tuple(s * self.scale[k] for k, s, _ in pairs),
            tuple(s * self.translation[k] + t for k, s, t in pairs),
            self.is_scaled or following.is_scaled,
        )


@dataclass(frozen=True)
class Step:
    """A transformation in the metadata, with the names of its input and output axes.

    Attributes
    ----------
    document : mapping
    inputs, outputs : sequence of str
    """

    document: Mapping[str, Any]
    inputs: Sequence[str]
    outputs: Sequence[str]


def composed(url: str, steps: Iterable[Step], count: int) -> AxisMap:
    """The composition of transformations along `count` axes.

    Raises
    ------
    InputError
        If a transformation is not supported, or its numbers are not valid.
    """
    whole = AxisMap.identity(count, is_scaled=False)
    for step in steps:
        is_sequence = step.document["type"] == "sequence"
        for document in step.document["transformations"] if is_sequence else (step.document,):
            member = _map_of(url, Step(document, step.inputs, step.outputs), count, " within a sequence")
            whole = whole.then(member)
            if not all(map(math.isfinite, (*whole.scale, *whole.translation))) or 0 in whole.scale:
                raise _invalid(
                    url, document, f"the sizes and positions of voxels along all {count} axes must be finite"
                )
    return whole


def _map_of(url: str, step: Step, count: int, within: str) -> AxisMap:
    document, kind = step.document, str(step.document["type"])
    plain = AxisMap.identity(count)
    if kind == "identity":
        return plain
    if kind in ("scale", "translation"):
        numbers = _numbers(document.get(kind), count)
        if numbers is None or (kind == "scale" and min(numbers) <= 0):
            what = "positive numbers" if kind == "scale" else "numbers"
            raise _invalid(url, document, f"it must be {count} {what}, one for each axis")
        if kind == "scale":
            return AxisMap(plain.axes, numbers, plain.translation)
        return AxisMap(plain.axes, plain.scale, numbers, is_scaled=False)
    if kind == "mapAxis":
        return AxisMap(_order(url, step, count), plain.scale, plain.translation)
    if kind in ("affine", "rotation"):
        return _of_matrix(url, document, count)
    if kind == "byDimension":
        return _by_dimension(url, step, count)
    nested = within if kind == "sequence" else ""
    raise InputError(
        f"{url} has a transformation of type {brief(kind)}{nested}, which is not supported; write it with a scale and "
        "a translation",
        code="unsupported-transformation",
    )


def _numbers(given: Any, count: int) -> tuple[float, ...] | None:
    """Finite numbers of metadata; None if there are not `count` of them."""
    if not isinstance(given, Sequence) or isinstance(given, str) or len(given) != count:
        return None
    if not all(isinstance(n, int | float) for n in given):
        return None
    try:
        numbers = tuple(map(float, given))
    except OverflowError:
        return None
    return numbers if all(map(math.isfinite, numbers)) else None


def _order(url: str, step: Step, count: int) -> tuple[int, ...]:
    """The input axis of each output axis of a ``mapAxis``: their indices, or in RFC-5 names by the output's name."""
    given = step.document.get("mapAxis")
    if isinstance(given, Mapping):
        names = [given.get(name) for name in step.outputs]
        given = [step.inputs.index(name) if name in step.inputs else None for name in names]
    if not isinstance(given, Sequence) or not _is_permutation(given, count):
        raise _invalid(url, step.document, f"it must name each of the {count} axes once")
    return tuple(given)


def _is_permutation(given: Sequence[Any], count: int) -> bool:
    whole = all(isinstance(k, int) and not isinstance(k, bool) for k in given)
    return whole and sorted(given) == list(range(count))


def _of_matrix(url: str, document: Mapping[str, Any], count: int) -> AxisMap:
    """The map of an affine matrix or a rotation whose rows and columns have one number other than 0.

    The last column of an affine matrix is the translation.
    """
    kind = str(document["type"])
    given, columns = document.get(kind), count + (kind == "affine")
    rows = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else []
    if kind == "affine" and len(rows) == count + 1 and _numbers(rows[-1], columns) == (*(0.0,) * count, 1.0):
        rows.pop()  # of homogeneous coordinates
    matrix = [(*numbers, 0.0)[: count + 1] for row in rows if (numbers := _numbers(row, columns)) is not None]
    if len(matrix) != count or len(rows) != count:
        raise _invalid(url, document, f"it must be {count} rows of {columns} numbers")
    sizes = [max(map(abs, row[:count])) for row in matrix]
    axes = [[k for k in range(count) if abs(row[k]) > _ROUNDING * n] for row, n in zip(matrix, sizes, strict=True)]
    order = [along[0] for along in axes if len(along) == 1]
    if len(order) != count or not _is_permutation(order, count):
        raise InputError(
            f"{url} has a transformation of type {kind!r}, {brief(given, LONGEST)}, that rotates, shears or projects "
            "axes, which is not supported; resample it to its axes, or write it with a scale and a translation",
            code="unsupported-transformation",
        )
    scale = tuple(row[k] for row, k in zip(matrix, order, strict=True))
    return AxisMap(tuple(order), scale, tuple(row[count] for row in matrix), is_scaled=kind == "affine")


def _by_dimension(url: str, step: Step, count: int) -> AxisMap:
    axes, scale, translation, is_scaled = [-1] * count, [1.0] * count, [0.0] * count, []
    for item in step.document["transformations"]:
        inputs, outputs = _positions(item, _INPUTS, step.inputs), _positions(item, _OUTPUTS, step.outputs)
        inner = item.get("transformation", item)
        if len(inputs) != len(outputs) or not inputs or not all(0 <= k < count for k in (*inputs, *outputs)):
            raise _invalid(url, step.document, f"each member must have input and output axes, of the {count}")
        names = [step.inputs[k] for k in inputs], [step.outputs[k] for k in outputs]
        found = _map_of(url, Step(inner, *names), len(inputs), " within a byDimension")
        is_scaled.append(found.is_scaled)
        for k, axis, s, t in zip(outputs, found.axes, found.scale, found.translation, strict=True):
            axes[k], scale[k], translation[k] = inputs[axis], s, t
    if not _is_permutation(axes, count):
        raise _invalid(url, step.document, f"it must name each of the {count} axes once")
    return AxisMap(tuple(axes), tuple(scale), tuple(translation), all(is_scaled))


def _positions(item: Mapping[str, Any], keys: Sequence[str], names: Sequence[str]) -> list[int]:
    """The axes of a member of ``byDimension``, given by index or by name; empty if they are not valid."""
    given = next((item[key] for key in keys if key in item), ())
    if not isinstance(given, Sequence) or isinstance(given, str):
        return []
    found = [names.index(axis) if axis in names else axis for axis in given]
    return [k for k in found if isinstance(k, int) and not isinstance(k, bool)] if len(found) == len(given) else []


def _invalid(url: str, document: Mapping[str, Any], what: str) -> InputError:
    kind = document["type"]
    return InputError(
        f"{url} has the {kind} {brief(document.get(kind, document.get('transformations')), LONGEST)}; {what}",
        code="invalid-transformation",
    )

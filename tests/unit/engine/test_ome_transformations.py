"""Compositions of transformations equal the products of their matrices, and those that are no axis map are refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlaszarr.engine.ome_transformations import Step, composed
from atlaszarr.errors import InputError
from codes import raises

AXES = ["t", "z", "y", "x"]
LENGTHS = st.floats(0.01, 100)
SHIFTS = st.floats(-1000, 1000)


@st.composite
def axis_maps(draw, count, depth=1):
    """A transformation along `count` axes in JSON's types, and its matrix in homogeneous coordinates."""
    kinds = ["identity", "scale", "translation", "mapAxis", "affine", *(["byDimension"] if depth else [])]
    kind = draw(st.sampled_from(kinds))
    matrix = np.eye(count + 1)
    if kind == "identity":
        return {"type": kind}, matrix
    if kind == "scale":
        numbers = draw(st.lists(LENGTHS, min_size=count, max_size=count))
        matrix[range(count), range(count)] = numbers
        return {"type": kind, kind: numbers}, matrix
    if kind == "translation":
        numbers = draw(st.lists(SHIFTS, min_size=count, max_size=count))
        matrix[:count, count] = numbers
        return {"type": kind, kind: numbers}, matrix
    order = draw(st.permutations(range(count)))
    if kind == "mapAxis":
        matrix[:count, :count] = np.eye(count)[list(order)]
        return {"type": kind, kind: list(order)}, matrix
    if kind == "affine":
        numbers = np.array(draw(st.lists(LENGTHS, min_size=count, max_size=count)))
        matrix[:count, :count] = numbers[:, np.newaxis] * np.eye(count)[list(order)]
        matrix[:count, count] = draw(st.lists(SHIFTS, min_size=count, max_size=count))
        return {"type": kind, kind: matrix[:count].tolist()}, matrix
    outputs, members, at = draw(st.permutations(range(count))), [], 0
    matrix[:count, :count] = 0
    while at < count:
        n = draw(st.integers(1, count - at))
        inputs, outs = list(order[at : at + n]), list(outputs[at : at + n])
        inner, part = draw(axis_maps(n, depth - 1))
        matrix[np.ix_(outs, inputs)] = part[:n, :n]
        matrix[outs, count] = part[:n, n]
        members.append({"transformation": inner, "inputAxes": inputs, "outputAxes": outs})
        at += n
    return {"type": kind, "transformations": members}, matrix


@given(st.lists(axis_maps(4), min_size=1, max_size=5), st.booleans())
@settings(deadline=None)
def test_a_composition_is_the_product_of_the_matrices(steps, is_sequence):
    documents = [document for document, _ in steps]
    if is_sequence:
        documents = [{"type": "sequence", "transformations": documents}]
    found = composed("x", [Step(document, AXES, AXES) for document in documents], 4)
    expected = np.eye(5)
    for _, matrix in steps:
        expected = matrix @ expected
    matrix = np.eye(5)
    matrix[:4, :4] = np.array(found.scale)[:, np.newaxis] * np.eye(4)[list(found.axes)]
    matrix[:4, 4] = found.translation
    np.testing.assert_allclose(matrix, expected, rtol=1e-9, atol=1e-9)


@given(st.lists(st.lists(st.floats(-2, 2), min_size=4, max_size=4), min_size=3, max_size=3))
@settings(deadline=None)
def test_an_affine_is_followed_if_each_row_and_column_has_one_number(rows):
    document = {"type": "affine", "affine": rows}
    linear = np.array(rows)[:, :3]
    large = np.abs(linear) > 1e-9 * np.abs(linear).max(axis=1, keepdims=True)
    if (large.sum(axis=0) == 1).all() and (large.sum(axis=1) == 1).all():
        found = composed("x", [Step(document, AXES[1:], AXES[1:])], 3)
        assert found.axes == tuple(large.argmax(axis=1))
        np.testing.assert_array_equal(found.scale, linear[large])
        return
    with pytest.raises(InputError) as caught:
        composed("x", [Step(document, AXES[1:], AXES[1:])], 3)
    assert caught.value.code in ("unsupported-transformation", "invalid-transformation")


@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, 1), (1, -1, -1), (-1, -1, -1)])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
def test_a_rotation_by_right_angles_reorders_and_reverses_axes(signs, order):
    matrix = np.diag(signs) @ np.eye(3)[list(order)]
    steps = [{"type": "scale", "scale": [2.0, 3.0, 4.0]}, {"type": "rotation", "rotation": matrix.tolist()}]
    found = composed("x", [Step(document, AXES[1:], AXES[1:]) for document in steps], 3)
    assert found.axes == order
    np.testing.assert_array_equal(found.scale, np.array([2.0, 3.0, 4.0])[list(order)] * signs)
    assert found.is_scaled


def test_a_rotation_by_another_angle_is_refused():
    matrix = [[0.8, -0.6, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]]
    with raises(InputError, "unsupported-transformation") as caught:
        composed("x", [Step({"type": "rotation", "rotation": matrix}, AXES[1:], AXES[1:])], 3)
    assert "'rotation'" in str(caught.value)


@pytest.mark.parametrize("rows", [None, 3, "ab", [], [[1.0]], [[1.0, 0.0, 0.0]] * 2, [[1.0, 0.0, None]] * 3], ids=repr)
def test_a_rotation_that_is_no_matrix_is_refused(rows):
    with raises(InputError, "invalid-transformation"):
        composed("x", [Step({"type": "rotation", "rotation": rows}, AXES[1:], AXES[1:])], 3)

"""The compiled kernels: of these sources, the same on all processors, and never given an array that does not fit."""

import ctypes

import numpy as np
import pytest

from atlaszarr.native import library
from atlaszarr.native.compiling import SUFFIX, VARIANTS, digest


@pytest.mark.parametrize("name", VARIANTS)
def test_the_libraries_are_compiled_from_these_sources(name):
    found = ctypes.CDLL(f"{library.__file__.removesuffix('library.py')}{name}{SUFFIX}")
    found.sources.restype = ctypes.c_char_p
    assert found.sources().decode() == digest(), "run `pip install -e .` again"


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((2, 3, 3), "f4"),
        np.zeros((3, 3), "f8"),
        np.zeros((2, 3, 6), "f8")[..., ::2],
        np.zeros((2, 3, 3), ">f8"),
        [0.0],
    ],
    ids=["dtype", "axes", "layout", "byte order", "no array"],
)
def test_an_array_that_a_kernel_does_not_take_is_refused(wrong):
    from atlaszarr.displacement.kernels import interpolate

    points = np.zeros((2, 1, 1))
    with pytest.raises((ctypes.ArgumentError, AttributeError, ValueError)):
        interpolate(wrong, 0, 0, 3, 3, points, points.copy())


def test_an_array_that_may_not_be_written_is_refused():
    from atlaszarr.displacement.kernels import interpolate

    points = np.zeros((2, 1, 1))
    points.setflags(write=False)
    with pytest.raises(ctypes.ArgumentError):
        interpolate(np.zeros((2, 3, 3)), 0, 0, 3, 3, points, points)

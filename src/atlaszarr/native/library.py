"""Call the compiled kernels. A call releases the GIL, and checks the dtype, axes and layout of each array."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.ctypeslib import ndpointer
from numpy.typing import DTypeLike, NDArray

from ..errors import AtlaszarrError
from .compiling import SUFFIX, VARIANTS

#: Types of arguments that are no arrays.
INT, FLOAT, BOOL = ctypes.c_int64, ctypes.c_double, ctypes.c_bool


def as_read(array: NDArray[Any]) -> NDArray[Any]:
    """An array as kernels read it: C-contiguous, in native byte order, bool as uint8.

    It is the array itself, or a view of it, if that has this form.
    """
    numbers = array.view(np.uint8) if array.dtype == bool else array
    return np.ascontiguousarray(numbers, numbers.dtype.newbyteorder("="))


@cache
def read(dtype: DTypeLike, ndim: int) -> Any:
    """The type of an argument: a C-contiguous array of a dtype in native byte order."""
    return ndpointer(np.dtype(dtype), ndim, flags="C_CONTIGUOUS")


@cache
def written(dtype: DTypeLike, ndim: int) -> Any:
    """The type of an argument: as `read`, and the kernel writes to it."""
    return ndpointer(np.dtype(dtype), ndim, flags=("C_CONTIGUOUS", "WRITEABLE"))


@cache
def _library() -> ctypes.CDLL:
    """The variant of the library for this processor.

    Raises
    ------
    AtlaszarrError
        If the package was not built.
    """
    folder = Path(__file__).parent
    first, *others = (folder / f"{name}{SUFFIX}" for name in VARIANTS)
    if not first.is_file():
        raise AtlaszarrError(
            f"atlaszarr has no compiled kernels ({first.name} is missing); install it with pip", code="not-compiled"
        )
    library = ctypes.CDLL(str(first))
    return ctypes.CDLL(str(others[0])) if others and library.has_avx2() else library


def kernel(name: str, *arguments: Any, result: Any = None) -> Callable[..., Any]:
    """A function of the library.

    Parameters
    ----------
    name : str
    *arguments : type
        The types of its arguments: `read`, `written`, `INT`, `FLOAT` or `BOOL`.
    result : type, optional
        Of what it returns; None for nothing.
    """
    function = getattr(_library(), name)
    function.argtypes, function.restype = arguments, result
    return cast(Callable[..., Any], function)


class KernelByDtype(dict[np.dtype[Any], Callable[..., Any]]):
    """A function of the library for each dtype, loaded when it is first asked for.

    Parameters
    ----------
    name : str
        That of the function for uint8 is ``<name>_u1``.
    arguments : callable
        The types of the arguments for a dtype.
    result : type, optional
        As in `kernel`.
    """

    def __init__(self, name: str, arguments: Callable[[np.dtype[Any]], tuple[Any, ...]], result: Any = None) -> None:
        super().__init__()
        self._name, self._arguments, self._result = name, arguments, result

    def __missing__(self, dtype: np.dtype[Any]) -> Callable[..., Any]:
        name = f"{self._name}_{dtype.kind}{dtype.itemsize}"
        self[dtype] = kernel(name, *self._arguments(dtype), result=self._result)
        return self[dtype]

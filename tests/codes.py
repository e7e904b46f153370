"""Errors are matched by their codes, so that a sentence can be improved without breaking tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def raises(kind: type[Exception], code: str) -> Iterator[pytest.ExceptionInfo[Exception]]:
    """Like `pytest.raises`, for an error of atlaszarr with a code: ``with raises(InputError, "target-not-empty"):``."""
    with pytest.raises(kind) as caught:
        yield caught
    assert caught.value.code == code, str(caught.value)

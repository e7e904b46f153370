"""A bound on the memory that Python allocates in a block."""

import tracemalloc
from contextlib import contextmanager


@contextmanager
def little_memory(most):
    """Assert that the block allocates fewer than `most` bytes at once."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()

"""A batch whose images come from slides, and whose records come from a catalogue: the API is asked for nothing."""

import pytest

from atlaszarr import AllenClient, build, build_many
from atlaszarr.testing.open_data import write_bucket
from copied_datasets import copies

IDS = (11, 12, 13)
SMALL = {"resolution": 200, "chunk": 16}


@pytest.fixture
def emulator(records, serve):
    return serve(*copies(records, IDS))

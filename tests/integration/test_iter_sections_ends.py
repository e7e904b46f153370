"""iter_sections, where the iteration ends before the sections do."""

import threading
from contextlib import contextmanager
from itertools import islice

import pytest

from atlaszarr import AllenClient, iter_sections
from atlaszarr.errors import AtlaszarrError
from atlaszarr.testing import Emulator

SAGITTAL = 69289763
#: Seconds that the service holds an image back: the test ends earlier.
HELD = 4.0


def fetching():
    return [thread for thread in threading.enumerate() if thread.name.startswith("atlaszarr-sections")]


@pytest.fixture
def third():
    """The ids of the first three images."""
    with Emulator() as emulator, AllenClient(emulator.url, cache="none", rate=1e9) as client:
        return [section.image_id for section in islice(iter_sections(SAGITTAL, resolution=100, client=client), 3)]


def held(image_id):
    return {"do": "hang", "match": {"path": f"section_image_download/{image_id}"}, "seconds": HELD, "times": None}


@contextmanager
def connected(*faults):
    with Emulator(faults=faults) as emulator, AllenClient(emulator.url, cache="none", rate=1e9) as client:
        yield client


def test_an_iteration_that_is_closed_does_not_wait_for_the_images_that_are_fetched_ahead(third):
    with connected(held(third[2])) as client:
        sections = iter_sections(SAGITTAL, resolution=100, client=client)
        next(sections)
        sections.close()
        assert fetching()


def test_an_error_is_raised_before_the_images_that_are_fetched_ahead_arrive(third):
    broken = {
        "do": "status",
        "match": {"path": f"section_image_download/{third[0]}"},
        "status": 404,
        "times": None,
    }
    with connected(broken, held(third[2])) as client:
        with pytest.raises(AtlaszarrError):
            next(iter_sections(SAGITTAL, resolution=100, client=client))
        assert fetching()

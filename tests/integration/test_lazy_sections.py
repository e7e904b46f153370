"""Lazy section images give the same result as NumPy for any index."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atlaszarr import open_sections, open_volume
from indexing import indices, is_same


@pytest.mark.parametrize("name", ["image", "section", "displacement", "registered"])
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_index_of_section_images_agrees_with_numpy(dataset, emulator, connect, name, data):
    client = connect(emulator)
    if name == "registered":
        array = open_sections(dataset, resolution=400, client=client).image.data
    else:
        array = open_volume(dataset, resolution=400, chunk=16, displacement=True, client=client)[name].data
    is_same(array, array.compute(), data.draw(indices(array.shape)))

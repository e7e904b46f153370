"""Messages are short whatever a file holds: a long value is cut."""

import json
import pickle

import numpy as np
import pytest
import zarr

from atlaszarr.engine.ome_reader import StoredImage
from atlaszarr.engine.zarr_reader import StoredArray
from atlaszarr.errors import LONGEST_MESSAGE, AtlaszarrWarning, InputError
from atlaszarr.stores.target import Target
from codes import raises

LONG = "9" * 1_000_000
HUGE = 10**4000


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"shape": [HUGE, HUGE, HUGE]}, id="lengths of 4000 digits, whose product Python does not write"),
        pytest.param({"shape": [2**63, 4, 4]}, id="a length beyond an index"),
        pytest.param({"shape": [1] * 100_000}, id="many axes"),
        pytest.param({"shape": LONG}, id="a shape of text"),
        pytest.param({"dtype": LONG, "data_type": LONG}, id="a dtype"),
        pytest.param({"fill_value": LONG}, id="a fill value"),
        pytest.param({"chunks": [HUGE] * 3, "chunk_grid": {"name": LONG}}, id="chunks"),
        pytest.param({"compressor": LONG, "codecs": [LONG]}, id="codecs"),
    ],
)
def test_a_long_value_in_the_metadata_of_an_array_is_cut(tmp_path, zarr_format, changed):
    zarr.create_array(tmp_path, data=np.ones((4, 4, 4), np.uint8), chunks=(4, 4, 4), zarr_format=zarr_format)
    path = tmp_path / ("zarr.json" if zarr_format == 3 else ".zarray")
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))
    with raises(InputError, "damaged-metadata") as caught:
        StoredArray.at(Target.of(tmp_path))
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize("path", [LONG, ["0"], {"a": 1}, None, 1.5])
def test_a_path_of_a_level_is_a_short_text(tmp_path, path):
    axes = [{"name": name, "type": "space"} for name in "zyx"]
    image = {"version": "0.4", "axes": axes, "datasets": [{"path": path}]}
    (tmp_path / ".zgroup").write_text('{"zarr_format": 2}')
    (tmp_path / ".zattrs").write_text(json.dumps({"multiscales": [image]}))
    with raises(InputError, "damaged-metadata") as caught:
        StoredImage.at(Target.of(tmp_path))
    assert "a level has the path" in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_long_message_keeps_its_beginning_and_its_end():
    for message in (InputError(f"x is {LONG}; write it again", code="c"), AtlaszarrWarning(f"x is {LONG}; look")):
        text = str(message)
        assert len(text) <= LONGEST_MESSAGE
        assert text.startswith("x is 9")
        assert text.endswith(("; write it again", "; look"))
        assert str(pickle.loads(pickle.dumps(message))) == text

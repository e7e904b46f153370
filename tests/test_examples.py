"""The examples run as they stand."""

import os
import subprocess
import sys
from pathlib import Path

import simplejpeg

from atlaszarr.testing.emulator import Emulator

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_a_lazy_slice_fetches_only_what_it_shows(tmp_path):
    with Emulator() as emulator:
        environment = {**os.environ, "ATLASZARR_API_URL": emulator.url, "ATLASZARR_CACHE": "none"}
        arguments = [sys.executable, EXAMPLES / "lazy_slice.py", "74272479", tmp_path / "slice.jpg"]
        told = subprocess.run(arguments, env=environment, check=True, capture_output=True, text=True).stdout
        asked = emulator.count("section_image_download")
    assert told.startswith("p = 7")
    assert 0 < asked < 25
    assert simplejpeg.decode_jpeg((tmp_path / "slice.jpg").read_bytes()).shape == (160, 228, 3)

"""Inputs changed at random, over every reader: accepted, or refused in one sentence."""

import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).parents[1] / "fuzz/fuzz.py"


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(sys.platform != "linux", reason="measures memory by /proc")
def test_no_changed_input_is_a_fault():
    """Of 300 inputs none is a traceback, takes a gigabyte or ten seconds, or has an error of several lines."""
    command = [sys.executable, FUZZ, "300", "1", "--workers", "1"]
    ended = subprocess.run(command, check=False, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout
    accepted, refused, *faults = map(int, ended.stdout.split()[-7:])
    assert accepted + refused == 300
    assert not any(faults)

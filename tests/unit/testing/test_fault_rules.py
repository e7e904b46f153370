"""Rules of faults: those that the emulator knows, and those that it refuses."""

from __future__ import annotations

import pytest

from atlaszarr.errors import InputError
from atlaszarr.testing.faults import KINDS, Rule


def test_rules_can_be_written_in_python():
    assert {Rule(kind).do for kind in KINDS} == set(KINDS)
    with pytest.raises(InputError, match="cannot do 'explode'"):
        Rule("explode")

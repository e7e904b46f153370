"""Rules of scripted faults: valid and invalid kinds."""

from __future__ import annotations

from atlaszarr.errors import InputError
from atlaszarr.testing.faults import KINDS, Rule
from codes import raises


def test_rules_can_be_written_in_python():
    assert {Rule(kind).do for kind in KINDS} == set(KINDS)
    with raises(InputError, "unknown-value") as caught:
        Rule("explode")
    assert "'explode'" in str(caught.value)

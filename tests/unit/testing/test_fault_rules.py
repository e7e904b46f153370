"""Rules of scripted faults: valid and invalid kinds."""

from __future__ import annotations

import pytest

from atlaszarr.errors import InputError
from atlaszarr.testing.faults import KINDS, Rule, load_faults
from codes import raises


def test_rules_can_be_written_in_python():
    assert {Rule(kind).do for kind in KINDS} == set(KINDS)
    with raises(InputError, "unknown-value") as caught:
        Rule("explode")
    assert "'explode'" in str(caught.value)


@pytest.mark.parametrize("seconds", [float("inf"), float("nan"), 1e300, 10**400, -1])
def test_a_duration_that_no_system_can_wait_for_is_refused(seconds):
    with raises(InputError, "invalid-fault") as caught:
        Rule("hang", seconds=seconds)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("[" * 10**5, "not-json"),
        ("[" * 200 + "]" * 200, "not-json"),
        ('[{"do": "' + "x" * 10**5 + '"}]', "unknown-value"),
        ('[{"do": "hang", "' + "x" * 10**5 + '": 1}]', "unknown-option"),
    ],
)
def test_a_file_of_faults_that_is_too_deep_or_long_is_one_short_sentence(tmp_path, text, code):
    (tmp_path / "faults.json").write_text(text)
    with raises(InputError, code) as caught:
        load_faults(tmp_path / "faults.json")
    assert len(str(caught.value)) < 250 + len(str(tmp_path))

"""Long texts in terminologies: the time to read them grows as their length, which a file of 16 MiB shows."""

import json

import pytest

from atlaszarr import Terminology
from atlaszarr.errors import RecordError
from codes import raises

#: A reader whose time grows as the square of the length takes a minute at least.
LONG = 200_000


def object_with_many_keys():
    keys = ", ".join(f'"{n}": 0' for n in range(LONG))
    return f'[{{"id": 1, "name": "x", {keys}, "last": 0, "last": 0}}]'


@pytest.mark.parametrize(
    ("text", "code"),
    [
        pytest.param(" " * LONG + "x", "text-too-long", id="spaces before a label"),
        pytest.param("\u00a0" * LONG, "text-too-long", id="spaces that are no ASCII"),
        pytest.param("#" + "\u00a0" * LONG + "\n10 " + " " * LONG, "text-too-long", id="a comment of spaces"),
        pytest.param('[{"id": "' + "0" * LONG + 'x", "name": "x"}]', "invalid-id", id="zeros before a letter"),
        pytest.param('[{"id": "' + "1" * LONG + 'x", "name": "x"}]', "invalid-id", id="digits before a letter"),
        pytest.param('[{"id": 1, "name": "x", "parent_id": "' + "0" * LONG + '."}]', "invalid-id", id="a parent"),
        pytest.param(f"id,name\n{'0' * 100_000}.x,y\n", "invalid-id", id="an identifier in a table"),
        pytest.param(object_with_many_keys(), "duplicate-key", id="the last of many keys twice"),
        pytest.param("1 2 3 4 " + "0" * LONG + " x\n", "text-too-long", id="digits of a colour"),
        pytest.param("1 x 2 3 4" + " " * LONG + "x\n", "text-too-long", id="spaces after a colour"),
        pytest.param('1 2 3 4 1 1 1 "' + '" ' * LONG + "x\n", "text-too-long", id="quotes"),
    ],
)
def test_a_long_text_is_refused_in_time_that_grows_as_its_length(tmp_path, text, code):
    (tmp_path / "x").write_text(text, encoding="utf-8")
    with raises(RecordError, code) as caught:
        Terminology.read(tmp_path / "x")
    assert len(str(caught.value)) < 500


def test_identifiers_with_leading_zeros_are_numbers(tmp_path):
    (tmp_path / "x.json").write_text(json.dumps([{"id": "0007", "name": "x"}, {"id": "0010.00", "name": "y"}]))
    assert [structure.id for structure in Terminology.read(tmp_path / "x.json")] == [7, 10]

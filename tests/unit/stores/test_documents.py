"""What is wrong with a document is said in words, wherever its file is named."""

import pytest

from atlaszarr.engine.zarr_reader import read_document
from atlaszarr.errors import InputError, reason_of
from atlaszarr.stores.documents import parse
from atlaszarr.stores.target import Target
from codes import raises

DAMAGED = {
    b"": "it is empty",
    b'{"a": \n': "it is cut off before its end",
    b'{\n "a": 1,\n "b" 2}': "it is not JSON from line 3, column 6 on",
    b'{"a": "\xff"}': "it is not text in UTF-8: byte 7 is 0xff",
    b"[" * 200 + b"]" * 200: "it has more than 100 nested lists and objects",
    b"[1]": "it is not a JSON object",
}


@pytest.mark.parametrize(("body", "words"), DAMAGED.items(), ids=DAMAGED.values())
def test_damaged_metadata_name_the_file_what_is_wrong_and_the_way_out(tmp_path, body, words):
    (tmp_path / "zarr.json").write_bytes(body)
    with raises(InputError, "damaged-metadata") as caught:
        read_document(Target.of(tmp_path), "zarr.json")
    name = f"{tmp_path}/zarr.json is not the metadata of an image: {words}; "
    assert str(caught.value) == f"{name}get the image again, or repeat the command that wrote it"


def test_a_document_without_damage_is_parsed():
    assert parse(b' {"a": [1, 2.5, null]}\n') == {"a": [1, 2.5, None]}


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (KeyError("axes"), "it lacks 'axes'"),
        (ValueError("x" * 200), "x" * 147 + "..."),
        (TypeError("'int' object is not iterable"), "a value in it is of the wrong kind"),
        (OverflowError("int too large"), "a number in it is out of range"),
        (RecursionError("maximum recursion depth exceeded"), "it is nested too deep"),
    ],
    ids=repr,
)
def test_the_reason_of_an_error_of_python_is_in_words(error, words):
    assert reason_of(error) == words

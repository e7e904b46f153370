"""Lists of ids in files."""

import io
import sys

import pytest

from atlaszarr.allen.id_list import read_ids
from atlaszarr.errors import InputError, NotFoundError
from codes import raises


@pytest.mark.parametrize(
    "text",
    [
        "7\n8\n9\n",
        "id\n7\n8\n9",
        "\ufeffid,gene\r\n7,Prox1\r\n\r\n8,\r\n9\r\n",
        '"7"\tProx1\n"8"\n9\n',
        " 7 \n\n8\n7\n9\n8\n",
    ],
)
def test_an_id_is_read_from_each_line_and_kept_once(text, tmp_path):
    (tmp_path / "ids.csv").write_bytes(text.encode())
    assert read_ids(tmp_path / "ids.csv") == [7, 8, 9]


@pytest.mark.parametrize("line", ["Prox1", "-8", "8.0", "8 9", "1" * 19, ",8", "\u0661"])
def test_a_line_without_an_id_is_named_with_its_number(line, tmp_path):
    (tmp_path / "ids.txt").write_text(f"7\n{line}\n9\n")
    with raises(InputError, "invalid-id") as caught:
        read_ids(tmp_path / "ids.txt")
    assert f"line 2 of {tmp_path / 'ids.txt'}, {line!r}, does" in str(caught.value)


@pytest.mark.parametrize("text", ["", "\n\n", "id\n"])
def test_a_file_without_ids_is_refused(text, tmp_path):
    (tmp_path / "ids.txt").write_text(text)
    with raises(InputError, "no-datasets"):
        read_ids(tmp_path / "ids.txt")


def test_a_file_that_is_missing_or_too_large_is_named(tmp_path):
    with raises(NotFoundError, "file-not-found"):
        read_ids(tmp_path / "nowhere.txt")
    (tmp_path / "zeros").write_bytes(bytes(2**24 + 1))
    with raises(InputError, "file-too-large"):
        read_ids(tmp_path / "zeros")


def test_a_dash_is_standard_input(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"7\n8\n")))
    assert read_ids("-") == [7, 8]

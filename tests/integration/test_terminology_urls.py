"""Terminologies read from URLs, and what is said of those that cannot be read."""

import fsspec
import pytest

from atlaszarr import Terminology
from atlaszarr.errors import InputError, NotFoundError, SourceError
from atlaszarr.testing.ontology import structure_graph


def test_it_is_read_from_any_url(emulator):
    brain = Terminology.from_structure_graph(structure_graph()["msg"])
    with fsspec.open("memory://terminology/one.csv", "wt", newline="") as file:
        file.write("\ufeff" + brain.to_csv())
    assert Terminology.read("memory://terminology/one.csv") == brain
    assert Terminology.read(f"{emulator.url}/structure_graph_download/1.json") == brain


def test_a_file_that_cannot_be_read_is_said_in_one_sentence(tmp_path, emulator):
    with pytest.raises(NotFoundError, match="there is no file"):
        Terminology.read(tmp_path / "none.csv")
    with pytest.raises(NotFoundError, match="there is no file memory://nowhere"):
        Terminology.read("memory://nowhere")
    with pytest.raises(NotFoundError, match="there is no file http"):
        Terminology.read(f"{emulator.url}/nothing")
    with pytest.raises(InputError, match="is a folder"):
        Terminology.read(tmp_path)
    with pytest.raises(InputError, match="is neither a path nor a URL"):
        Terminology.read("")
    with pytest.raises(InputError, match="nosuch://x"):
        Terminology.read("nosuch://x")
    with pytest.raises(InputError, match="storage option 'key' is not supported for the path"):
        Terminology.read(tmp_path / "x.csv", {"key": "secret"})
    with pytest.raises(InputError, match="user name or password") as caught:
        Terminology.read("http://me:secret@host/x.csv")
    assert "secret" not in str(caught.value)
    with pytest.raises(SourceError, match=r"cannot read http://127\.0\.0\.1:1/x\.csv:") as refused:
        Terminology.read("http://127.0.0.1:1/x.csv?signature=secret")
    assert "secret" not in str(refused.value)

"""Terminologies read from URLs, and the errors of those that cannot be read."""

import fsspec

from atlaszarr import Terminology
from atlaszarr.errors import InputError, NotFoundError, SourceError
from atlaszarr.testing.ontology import structure_graph
from codes import raises


def test_a_terminology_is_read_from_any_url(emulator):
    brain = Terminology.from_structure_graph(structure_graph()["msg"])
    with fsspec.open("memory://terminology/one.csv", "wt", newline="") as file:
        file.write("\ufeff" + brain.to_csv())
    assert Terminology.read("memory://terminology/one.csv") == brain
    assert Terminology.read(f"{emulator.url}/structure_graph_download/1.json") == brain


def test_a_file_that_does_not_exist_is_named(tmp_path, emulator):
    for uri in (tmp_path / "none.csv", "memory://nowhere", f"{emulator.url}/nothing"):
        with raises(NotFoundError, "file-not-found") as caught:
            Terminology.read(uri)
        assert str(uri) in str(caught.value)


def test_an_invalid_location_is_refused(tmp_path):
    for uri, code, options in (
        (tmp_path, "not-a-file", None),
        ("", "not-a-location", None),
        ("nosuch://x", "unknown-protocol", None),
        (tmp_path / "x.csv", "not-supported", {"key": "secret"}),
        ("http://me:secret@host/x.csv", "credentials-in-url", None),
    ):
        with raises(InputError, code) as caught:
            Terminology.read(uri, options)
        assert "secret" not in str(caught.value)


def test_a_server_that_is_not_reached_is_named_without_the_signature_of_its_url():
    with raises(SourceError, "store-error") as caught:
        Terminology.read("http://127.0.0.1:1/x.csv?signature=secret")
    assert "http://127.0.0.1:1/x.csv" in str(caught.value)
    assert "secret" not in str(caught.value)

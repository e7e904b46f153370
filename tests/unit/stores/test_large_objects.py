"""Objects that are put from parts, in every kind of store that needs no server."""

import pytest

from atlaszarr.errors import InputError, TargetError
from atlaszarr.stores.target import Target
from codes import raises
from scripted import Fault, Scripted, StoreFaultError

PARTS = [b"first, ", b"", b"second, ", b"third"]


@pytest.fixture(params=["a local disk", "memory", "a store with errors of its own"])
def target(request, tmp_path):
    places = {
        "a local disk": tmp_path / "tree",
        "memory": "memory://large",
        "a store with errors of its own": "scripted://x",
    }
    found = Target.of(places[request.param])
    yield found
    Scripted.faults.clear()
    found.remove()


@pytest.fixture
def spool(tmp_path):
    (tmp_path / "spool").mkdir()
    return tmp_path / "spool"


def test_the_parts_are_one_object_and_nothing_else_is_left(target, spool):
    target.write_parts("a/b/c.bin", PARTS, spool)
    assert target.read("a/b/c.bin") == b"first, second, third"
    assert target.list_keys() == ["a/b/c.bin"]
    assert not list(spool.iterdir())


def test_an_object_is_replaced(target, spool):
    target.write("c.bin", b"longer than what replaces it")
    target.write_parts("c.bin", PARTS, spool)
    assert target.read("c.bin") == b"first, second, third"


def test_an_error_of_the_parts_is_raised_unchanged_and_the_object_stays(target, spool):
    def failing():
        yield b"first"
        raise ZeroDivisionError("of the parts")

    target.write("c.bin", b"as before")
    with pytest.raises(ZeroDivisionError, match="of the parts"):
        target.write_parts("c.bin", failing(), spool)
    assert target.read("c.bin") == b"as before"
    assert target.list_keys() == ["c.bin"]
    assert not list(spool.iterdir())


def test_an_error_of_the_store_names_the_target(spool):
    Scripted.faults[:] = [Fault("put", "c.bin", StoreFaultError("the-secret"))]
    with raises(TargetError, "store-error") as caught:
        Target.of("scripted://x").write_parts("c.bin", PARTS, spool)
    assert "scripted://x" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert not list(spool.iterdir())


def test_a_spool_folder_that_does_not_exist_is_named(tmp_path):
    with raises(TargetError, "store-error") as caught:
        Target.of("memory://large").write_parts("c.bin", PARTS, tmp_path / "absent")
    assert str(tmp_path / "absent") in str(caught.value)


def test_nothing_is_written_through_a_link(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/link").symlink_to(tmp_path / "other")
    with raises(InputError, "link-in-target"):
        Target.of(tmp_path / "tree").write_parts("link/c.bin", PARTS)
    assert not list((tmp_path / "other").iterdir())

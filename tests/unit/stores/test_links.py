"""Nothing is put through a folder that becomes a symbolic link while objects are written to it."""

import pytest

from atlaszarr.errors import InputError, TargetError
from atlaszarr.stores.target import Target
from codes import raises


@pytest.mark.parametrize("linked", ["a", "a/b"])
@pytest.mark.parametrize(
    ("before", "error", "code"),
    [
        pytest.param(1, TargetError, "store-error", id="with a file in the folder that the link replaces"),
        pytest.param(64, InputError, "link-in-target", id="after a whole batch"),
    ],
)
def test_a_folder_that_becomes_a_link_is_not_written_through(tmp_path, linked, before, error, code):
    tree, other = tmp_path / "tree", tmp_path / "other"
    (other / "b").mkdir(parents=True)

    def bodies():
        for number in range(before):
            yield f"a/b/{number}", b"before"
        (tree / linked).rename(tmp_path / "moved")
        (tree / linked).symlink_to(other if linked == "a" else other / "b")
        yield "a/b/last", b"after"

    with raises(error, code):
        Target.of(tree).write_all(bodies())
    assert [path for path in other.rglob("*") if path.is_file()] == []

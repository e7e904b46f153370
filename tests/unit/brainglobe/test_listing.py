"""The lists from which BrainGlobe shows atlases: complete, with the entries of others, whatever happens at once.

BrainGlobe itself reads them in tests/peers.
"""

import threading
from configparser import ConfigParser
from io import StringIO

import numpy as np
import pytest

from atlaszarr import build_atlas
from atlaszarr.brainglobe.listing import CUSTOM, OFFICIAL, defects, update
from atlaszarr.engine.lock import owning
from atlaszarr.errors import InputError
from atlaszarr.stores.target import Target
from codes import raises
from tiny_atlas import save, write_sources

TINY = [f"atlases/tiny_{size}um/3_0/manifest.json" for size in (25, 50)]


@pytest.fixture(params=["disk", "memory"])
def root(request, tmp_path):
    target = Target.of(tmp_path / "tree" if request.param == "disk" else "memory://lists/tree")
    yield target
    target.remove()


def tree(root, *keys):
    """Manifests at the keys of a tree."""
    for key in keys:
        root.write(key, b"{}")


def listed(root, key=CUSTOM):
    """The versions in a list, as BrainGlobe reads them."""
    parser = ConfigParser()
    parser.read_string(root.read(key).decode())
    return dict(parser["atlases"])


def test_every_resolution_is_listed_and_brainglobes_own_list_exists(root):
    tree(root, *TINY)
    update(root, "tiny")
    assert listed(root) == {"tiny_25um": "3.0", "tiny_50um": "3.0"}
    assert listed(root, OFFICIAL) == {}
    assert not list(defects(root, TINY))
    before = {key: root.read(key) for key in root.list_keys()}
    update(root, "tiny")
    assert {key: root.read(key) for key in root.list_keys()} == before


def test_entries_of_others_and_brainglobes_own_list_stay(root):
    official = b"[atlases]\nallen_mouse_25um = 3.0\n\n"
    tree(root, *TINY)
    root.write(OFFICIAL, official)
    root.write(CUSTOM, b"# by hand\n[atlases]\nmine_10um = 1.0\ntiny-er_10um = 2.0\nodd = 100%%\ntiny_10um: 1.0\n")
    update(root, "tiny")
    expected = {"mine_10um": "1.0", "tiny-er_10um": "2.0", "odd": "100%", "tiny_25um": "3.0", "tiny_50um": "3.0"}
    assert listed(root) == expected
    assert root.read(OFFICIAL) == official


def test_the_latest_version_of_a_tree_is_listed_as_brainglobe_sorts_versions(root):
    tree(root, *(f"atlases/tiny_25um/{version}/manifest.json" for version in ("3_9", "3_10", "2017", "2017-10", "v9")))
    update(root, "tiny")
    assert listed(root) == {"tiny_25um": "2017"}
    root.remove("atlases/tiny_25um/2017/manifest.json")
    update(root, "tiny")
    assert listed(root) == {"tiny_25um": "3.10"}


@pytest.mark.parametrize("root", ["disk"], indirect=True)
@pytest.mark.parametrize("key", [CUSTOM, OFFICIAL])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[atlas]\n",
        b"tiny_25um = 3.0\n",
        b"[atlases]\na = 1\na = 1\n",
        b"[atlases]\na = %(b)s\n",
        b"\xff[atlases]",
    ],
)
def test_a_list_that_brainglobe_cannot_read_is_named_and_refused_before_anything_is_written(root, tmp_path, key, body):
    tree(root, *TINY)
    update(root, "tiny")
    root.write(key, body)
    assert [(one.kind, one.key) for one in defects(root, TINY)] == [("metadata", key)]
    before = {key: root.read(key) for key in root.list_keys()}
    with raises(InputError, "not-a-list-of-atlases") as caught:
        build_atlas(root.url, **write_sources(tmp_path / "sources"), brainglobe=True)
    assert key in str(caught.value)
    assert {key: root.read(key) for key in root.list_keys()} == before


@pytest.mark.parametrize("root", ["disk"], indirect=True)
@pytest.mark.parametrize(
    ("key", "body", "kind", "named"),
    [
        (CUSTOM, None, "missing", "is missing"),
        (OFFICIAL, None, "missing", "is missing"),
        (CUSTOM, b"[atlases]\ntiny_25um = 3.0\n", "inconsistent", "tiny_50um"),
        (CUSTOM, b"[atlases]\ntiny_25um = 3.0\ntiny_50um = 3.1\n", "inconsistent", "3.1"),
    ],
)
def test_a_list_without_an_atlas_of_the_records_is_a_defect(root, key, body, kind, named):
    tree(root, *TINY)
    update(root, "tiny")
    root.remove(key)
    if body is not None:
        root.write(key, body)
    (found,) = defects(root, TINY)
    assert (found.kind, found.key) == (kind, key)
    assert named in found.text
    update(root, "tiny")
    assert not list(defects(root, TINY))


def test_lists_are_removed_with_the_last_atlas_but_keep_what_others_wrote(root):
    tree(root, *TINY)
    update(root, "tiny")
    root.remove("atlases/tiny_25um")
    root.remove("atlases/tiny_50um")
    update(root, "tiny")
    assert root.list_keys() == []
    root.write(CUSTOM, b"[atlases]\ntiny_25um = 3.0\n")
    update(root, "tiny")
    assert root.list_keys() == []
    root.write(CUSTOM, b"[atlases]\ntiny_25um = 3.0\n")
    root.write(OFFICIAL, b"[atlases]\nallen_mouse_25um = 3.0\n")
    update(root, "tiny")
    assert root.list_keys() == [OFFICIAL]


def test_a_tree_without_atlases_for_brainglobe_needs_no_lists(root):
    update(root, "tiny")
    assert root.list_keys() == []
    assert not list(defects(root, ["terminologies/tiny-terminology/1/terminology.csv"]))


def test_an_own_list_that_brainglobe_has_fetched_is_no_defect(root):
    tree(root, *TINY)
    update(root, "tiny")
    parser, text = ConfigParser(), StringIO()
    parser["atlases"] = {f"atlas{number}_25um": "1.0" for number in range(100)}
    parser.write(text)
    root.write(OFFICIAL, text.getvalue().encode())
    assert not list(defects(root, TINY))


def test_builds_that_finish_at_the_same_time_are_all_listed(root):
    names = [f"tiny{number}" for number in range(6)]
    tree(root, *(f"atlases/{name}_25um/1/manifest.json" for name in names))
    threads = [threading.Thread(target=update, args=(Target.of(root.url), name)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert listed(root) == {f"{name}_25um": "1" for name in names}


def test_an_update_waits_for_another_owner_of_the_tree(root):
    tree(root, *TINY)
    with owning(root):
        thread = threading.Thread(target=update, args=(Target.of(root.url), "tiny"))
        thread.start()
        thread.join(0.3)
        assert root.read(CUSTOM) is None
    thread.join()
    assert listed(root) == {"tiny_25um": "3.0", "tiny_50um": "3.0"}


def test_two_atlases_of_one_tree_are_listed_until_one_is_built_again_without_brainglobe(tmp_path):
    root = Target.of(tmp_path / "brainglobe-atlasapi")
    sources = write_sources(tmp_path / "sources")
    build_atlas(root.url, **sources, brainglobe=True)
    other = {**sources, "name": "other", "version": "2.0"}
    build_atlas(root.url, **other, brainglobe=True)
    first = {f"tiny_{size}um": "1" for size in (25, 50, 100)}
    second = {f"other_{size}um": "2.0" for size in (25, 50, 100)}
    assert listed(root) == first | second
    build_atlas(root.url, **other, overwrite=True)
    assert listed(root) == first


def test_a_resolution_that_an_atlas_no_longer_has_is_no_longer_listed(tmp_path):
    root, sources = Target.of(tmp_path / "brainglobe-atlasapi"), write_sources(tmp_path / "sources")
    build_atlas(root.url, **sources, brainglobe=True)
    assert "tiny_25um" in listed(root)
    changed = {
        "annotation": save(tmp_path / "a.nrrd", np.full((40, 32, 36), 7, np.uint32), 50),
        "template": save(tmp_path / "t.nrrd", np.full((40, 32, 36), 9, np.uint16), 50),
    }
    build_atlas(root.url, **{**sources, **changed}, brainglobe=True, overwrite=True)
    assert listed(root) == {"tiny_50um": "1", "tiny_100um": "1"}


def test_a_version_of_endless_digits_is_no_version(root):
    keys = [f"atlases/tiny_25um/{'9' * 5000}/manifest.json"]
    assert not list(defects(root, keys))

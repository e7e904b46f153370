"""An atlas on a disk that is full or read-only: one sentence that names the target, and no harm to what is there."""

import json
import shutil
import subprocess
import sys

import pytest

from atlaszarr import Terminology, build_atlas, verify
from atlaszarr.errors import TargetError
from codes import raises
from tiny_atlas import GRAPH, files, write_sources

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="mounts a tmpfs")

LAYOUTS = {"both": {"layout": ["assets", "brainglobe"]}, "strict": {"layout": "assets", "strict": True}}


def mount(*arguments):
    """Call ``mount`` or ``umount``; skip the test if it is not allowed."""
    if shutil.which(arguments[0]) is None or subprocess.run(arguments, check=False, capture_output=True).returncode:
        pytest.skip("mounting a tmpfs is not allowed")


@pytest.fixture
def disk(tmp_path):
    """A disk of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder)
    yield folder
    mount("umount", folder)


@pytest.fixture(params=LAYOUTS)
def given(request, tmp_path):
    ontology = Terminology.from_structure_graph(json.loads(json.dumps(GRAPH).replace('"a1"', '"A2"')))
    own = {"version": "2026", "ontology": ontology, "chunk": 32, "workers": 1, **LAYOUTS[request.param]}
    return write_sources(tmp_path / "sources") | own


@pytest.mark.slow
def test_a_disk_that_is_full_again_and_again_is_named_and_the_atlas_resumed(disk, given, tmp_path):
    errors, is_built = [], False
    while not is_built:
        try:
            build_atlas(disk / "atlas", **given)
        except TargetError as error:
            errors.append(error)
            mount("mount", "-o", f"remount,size={64 * (len(errors) + 1)}k", disk)
        else:
            is_built = True
    assert len(errors) > 5
    assert {error.code for error in errors} == {"disk-full"}
    assert all(str(disk) in str(error) and "No space left on device" in str(error) for error in errors)
    assert verify(disk / "atlas", deep=True).ok
    build_atlas(tmp_path / "other", **given)
    assert set(files(disk / "atlas")) == set(files(tmp_path / "other"))


def test_a_disk_that_is_read_only_is_named_and_nothing_changes(disk, given):
    mount("mount", "-o", "remount,size=64m", disk)
    build_atlas(disk / "atlas", **given)
    before = files(disk)
    mount("mount", "-o", "remount,ro", disk)
    for overwrite in (False, True):
        with raises(TargetError, "read-only") as caught:
            build_atlas(disk / "atlas", **given, overwrite=overwrite)
        assert f"cannot write to {disk}" in str(caught.value)
        assert files(disk) == before
    assert verify(disk / "atlas", deep=True).ok
